"""Input images: unambiguous ones are accepted, others are refused in one line that says what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mim_jax.measure.host import checked_range
from mim_jax.measure.similarity import composite_similarities, hbd, mae, mse, psnr, similarities
from mim_jax.measure.ssim import ms_ssim, ssim

BYTES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
FLOATS = BYTES.astype(np.float32) / 255


@pytest.mark.parametrize(
    "images",
    [
        list(BYTES),
        tuple(jnp.asarray(BYTES)),
        [Image.fromarray(image) for image in BYTES],
        FLOATS.astype(np.float64),
        list(FLOATS),
    ],
    ids=["list", "jax", "PIL", "float64", "floats"],
)
def test_common_types_of_images_are_measured(images):
    np.testing.assert_allclose(ssim(images, BYTES[::-1]), ssim(BYTES, BYTES[::-1]), atol=1e-6)
    np.testing.assert_array_equal(similarities(images, BYTES).hbd, 1)


def test_pil_images_and_tensors_are_single_images():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(BYTES[0])
    assert float(mae(tensor, Image.fromarray(BYTES[0]))) == 1.0
    assert composite_similarities(tensor, tensor[:12, :12], (0, 0)).mae == 1.0
    with pytest.raises(ValueError, match=r"a Tensor cannot be read on the host: .*detach"):
        mae(torch.zeros(16, 16, 3, requires_grad=True), BYTES[0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (255 * FLOATS, r"floats in \[0, 1\], got values from 0 to 255: divide by 255"),
        (2 * FLOATS - 1, r"from -1 to 1: use \(x \+ 1\) / 2"),
        ((FLOATS - 0.45) / 0.225, "undo the normalisation"),
        (1.1 * FLOATS, "clip them"),
        (np.where(FLOATS < 0.5, np.nan, 255 * FLOATS), "divide by 255"),
        (255 * jnp.asarray(FLOATS).__array__().astype(jnp.bfloat16), "divide by 255"),
    ],
)
def test_other_ranges_are_refused(images, message):
    for metric in (ssim, hbd, mae, mse, psnr, similarities, ms_ssim):
        with pytest.raises(ValueError, match=message):
            metric(FLOATS, images)
    with pytest.raises(ValueError, match=message):
        composite_similarities(images, FLOATS[:, :8, :8], (0, 0))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([BYTES[0], BYTES[0, :8]], "one shape and dtype"),
        ([BYTES[0], FLOATS[0]], "one shape and dtype"),
        (Image.new("RGBA", (16, 16)), "RGB or L, got RGBA"),
    ],
)
def test_mixed_or_unclear_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        mae(images, images)


def test_the_range_is_that_of_the_largest_value():
    np.testing.assert_allclose(ssim(255 * FLOATS, BYTES, max_val=255.0), 1, atol=1e-6)
    with pytest.raises(ValueError, match=r"\[0, 255\], got values from 0 to 510"):
        ssim(510 * FLOATS, BYTES, max_val=255.0)
    assert checked_range(FLOATS + 5e-4) is not None  # rounding


def test_arrays_of_jax_are_not_looked_at():
    wide = 255 * jnp.asarray(FLOATS)
    assert checked_range(wide) is wide
    assert jax.jit(mae)(255 * FLOATS, FLOATS).shape == (2,)
