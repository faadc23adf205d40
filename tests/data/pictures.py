"""Small pictures and their files, and the reason why one is refused."""

from io import BytesIO

import numpy as np
import pytest

from mim_jax.data.images import UnusableImage, decode_image


def encode(image, format, **options):
    """The bytes of a file written by Pillow."""
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(height, width, channels=3, seed=0):
    """Random pixels, uint8 `[height, width, channels]`, or `[height, width]` for no channels."""
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def reason(data, **options):
    """The reason with which these bytes are refused."""
    with pytest.raises(UnusableImage) as caught:
        decode_image(data, size=48, **options)
    assert type(caught.value) is UnusableImage
    return caught.value.reason
