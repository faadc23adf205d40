"""Images from arrays, files and generators: the same scores, one shape, bounded memory."""

import itertools

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from mim_jax.data.batches import batch_size, collect, padded_batches


def images(count, dtype=np.uint8):
    return (np.arange(count * 48) % 251).reshape(count, 4, 4, 3).astype(dtype)


@pytest.mark.parametrize("count", [0, 1, 8, 9, 32, 33, 71])
def test_every_image_once_in_batches_of_one_size(count, tmp_path):
    np.save(tmp_path / "images.npy", images(count))
    sources = (images(count), np.load(tmp_path / "images.npy", mmap_mode="r"), iter(images(count)))
    for source in sources:
        batches = list(padded_batches(source, size=4))
        assert {len(batch) for batch, _ in batches} <= {batch_size()}
        joined = [batch[:real] for batch, real in batches]
        np.testing.assert_array_equal(np.concatenate([images(0), *joined]), images(count))
        assert all(not batch[real:].any() for batch, real in batches)


def test_one_image_is_a_batch():
    ((batch, real),) = padded_batches(images(1)[0], size=4)
    assert batch.shape == (8, 4, 4, 3) and real == 1


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_floats_of_every_width_are_images(dtype):
    floats = (images(3) / 255).astype(dtype)
    for source in (floats, iter(floats)):
        ((batch, real),) = padded_batches(source, size=4)
        assert batch.dtype == dtype and real == 3
        np.testing.assert_array_equal(batch[:3], floats)


def test_floats_of_another_range_are_refused():
    wide = images(3).astype(np.float32)
    for source in (wide, iter(wide), jnp.asarray(wide), list(wide)):
        with pytest.raises(ValueError, match="divide by 255"):
            list(padded_batches(source, size=4))


def test_pil_images_and_tensors_are_images():
    torch = pytest.importorskip("torch")
    expected = images(3)
    for source in ([Image.fromarray(image) for image in expected], torch.from_numpy(expected)):
        ((batch, _),) = padded_batches(source, size=4)
        np.testing.assert_array_equal(batch[:3], expected)
    ((batch, real),) = padded_batches(Image.fromarray(expected[0]), size=4)
    np.testing.assert_array_equal(batch[0], expected[0])
    assert real == 1


def test_an_iterable_is_read_no_further_than_needed():
    read = itertools.count()
    endless = (images(1)[0] for _ in read)
    batches = padded_batches(endless, size=4)
    next(batches)
    assert next(read) == batch_size()


def test_collect_joins_along_the_last_axis():
    def score(batch):
        return {"sum": batch.sum(axis=(1, 2, 3)), "folds": np.stack([batch[:, 0, 0, 0]] * 2)}

    found = collect(score, padded_batches(images(41), size=4))
    np.testing.assert_array_equal(found["sum"], images(41).sum(axis=(1, 2, 3)))
    assert found["folds"].shape == (2, 41) and found["folds"].dtype == np.float64
    for none in (images(0), iter([])):
        found = collect(score, padded_batches(none, size=4))
        assert found["sum"].shape == (0,) and found["folds"].shape == (2, 0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 4, 5, 3), np.uint8), r"\[N, 4, 4, 3\] or one \[4, 4, 3\], got \[2, 4, 5, 3\]"),
        ([np.zeros((4, 4), np.uint8)], r"\[4, 4, 3\] each, got \[4, 4\]"),
        (np.zeros((2, 4, 4, 3), int), "uint8, or float"),
        (np.zeros((2, 4, 4, 3), complex), "not complex128"),
        ([images(1)[0], images(1, np.float32)[0]], "one dtype, got uint8 and float32"),
    ],
)
def test_unfit_images_are_named(source, message):
    with pytest.raises(ValueError, match=message):
        list(padded_batches(source, size=4))
