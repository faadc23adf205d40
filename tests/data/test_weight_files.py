"""Safetensors files are read back as written; a damaged one raises a ValueError or has other values."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mim_jax.data import weight_files

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


def test_arrays_come_back_as_they_were(tmp_path):
    weight_files.save(tmp_path / "x", ARRAYS)
    assert_same(weight_files.load(tmp_path / "x"), ARRAYS)
    columns_first = {name: np.asarray(array, order="F") for name, array in ARRAYS.items()}
    weight_files.save(tmp_path / "columns", columns_first)
    assert_same(weight_files.load(tmp_path / "columns"), ARRAYS)


def test_the_order_of_the_arrays_does_not_matter(tmp_path):
    contents = set()
    for turn in range(len(ARRAYS)):
        names = [*list(ARRAYS)[turn:], *list(ARRAYS)[:turn]]
        weight_files.save(tmp_path / "x", {name: ARRAYS[name] for name in names})
        contents.add((tmp_path / "x").read_bytes())
    assert len(contents) == 1


def write(path, header: bytes, body: bytes = bytes(8)):
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)


def test_files_of_earlier_versions_are_read(tmp_path):
    # They hold the arrays in the order of their names, whatever their dtypes.
    header, body = {}, b""
    for name, code in zip(ARRAYS, ("F32", "I64", "F32", "BF16", "U8"), strict=True):
        array = ARRAYS[name]
        offsets = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": offsets}
        body += array.tobytes()
    text = json.dumps({"__metadata__": {"from": "elsewhere"}, **header}).encode()
    write(tmp_path / "x", text + b" " * (-len(text) % 8), body)
    assert_same(weight_files.load(tmp_path / "x"), ARRAYS)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]},
        {"shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [0, 2**70], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [0] + [1] * 99, "data_offsets": [0, 0]},
    ],
)
def test_headers_that_lie_are_refused(tmp_path, entry):
    body = bytes(8) if entry["data_offsets"][1] else b""
    write(tmp_path / "x", json.dumps({"a": entry}).encode(), body)
    with pytest.raises(
        ValueError, match=r"x is not a safetensors file, or is damaged \(.*\): fetch it again"
    ):
        weight_files.load(tmp_path / "x")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 7, b"\xff" * 100, (100_000).to_bytes(8, "little") + b"[" * 100_000]
)
def test_what_is_no_such_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="x is not a safetensors file, or is damaged"):
        weight_files.load(tmp_path / "x")


def test_arrays_that_share_bytes_are_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    write(tmp_path / "x", json.dumps({"a": entry, "b": entry}).encode())
    with pytest.raises(ValueError, match="fetch it again"):
        weight_files.load(tmp_path / "x")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_raises_value_error_or_changes_values_alone(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "x"
    weight_files.save(path, ARRAYS)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        found = weight_files.load(path)
    except ValueError:
        return
    assert sum(array.nbytes for array in found.values()) == sum(array.nbytes for array in ARRAYS.values())
