"""Our safetensors files against the reference package, and what a damaged file may do: raise ValueError."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from mim_jax import tensors

ARRAYS = {
    "a/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "b": np.array(3, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "half": np.arange(5).astype(ml_dtypes.bfloat16),
    "images": np.arange(27, dtype=np.uint8).reshape(3, 3, 3),
}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_the_reference_reads_what_we_write_and_we_what_it_writes(tmp_path):
    tensors.save(tmp_path / "ours.safetensors", ARRAYS)
    assert_same(safetensors.numpy.load_file(tmp_path / "ours.safetensors"), ARRAYS)
    safetensors.numpy.save_file(ARRAYS, tmp_path / "theirs.safetensors", metadata={"from": "elsewhere"})
    assert_same(tensors.load(tmp_path / "theirs.safetensors"), ARRAYS)
    assert_same(tensors.load(tmp_path / "ours.safetensors"), ARRAYS)


def test_a_dtype_of_no_code_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a is complex64"):
        tensors.save(tmp_path / "x", {"a": np.zeros(2, np.complex64)})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "do not lie where they should"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "do not lie where they should"),
        ({"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}, "whole numbers"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "longer than its header says"),
        ({"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 8]}, "cannot be read"),
        ({"shape": [1], "data_offsets": [0, 8]}, "cannot be read"),
        ({"dtype": "F32", "shape": [0, 2**70], "data_offsets": [0, 0]}, "x: a has a shape that no array has"),
        ({"dtype": "F32", "shape": [0] + [1] * 99, "data_offsets": [0, 0]}, "x: a has a shape that no array"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, entry, message):
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match=message):
        tensors.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"a": 1, "a": 2}', "x has a header that cannot be read .*twice"),
        (b"[" * 100_000, "x has a header that cannot be read"),
    ],
)
def test_headers_that_no_writer_makes_are_refused(tmp_path, header, message):
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=message):
        tensors.load(tmp_path / "x")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_raises_value_error_or_changes_values_alone(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "x"
    tensors.save(path, ARRAYS)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        found = tensors.load(path)
    except ValueError:
        return
    assert sum(array.nbytes for array in found.values()) == sum(array.nbytes for array in ARRAYS.values())
