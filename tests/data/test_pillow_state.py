"""Decoding does not depend on Pillow's globals and warning filters, which other code may set."""

import threading
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import BmpImagePlugin, Image, ImageFile, TiffImagePlugin

from mim_jax.data.images import UnusableImage, decode_image
from tests.data.pictures import encode, noise, reason


def test_settings_of_others_change_nothing_and_are_given_back(monkeypatch):
    picture = Image.fromarray(noise(96, 96))
    files = {format: encode(picture, format) for format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")}
    expected = {format: decode_image(data, size=48) for format, data in files.items()}
    settings = (
        (ImageFile, "LOAD_TRUNCATED_IMAGES", True),
        (Image, "MAX_IMAGE_PIXELS", 1000),
        (TiffImagePlugin, "READ_LIBTIFF", True),
        (BmpImagePlugin, "USE_RAW_ALPHA", True),
    )
    for module, name, value in settings:
        monkeypatch.setattr(module, name, value)
    for format, data in files.items():
        np.testing.assert_array_equal(decode_image(data, size=48), expected[format])
        assert reason(data[: len(data) // 2]).startswith("damaged: ")
    assert "at most 9,000 pixels" in reason(files["PNG"], max_pixels=9000)
    assert all(getattr(module, name) == value for module, name, value in settings)


def test_warnings_stay_silent_in_overlapping_threads(monkeypatch):
    # Pillow warns of a tag that is cut off, and tests make that an error.
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\x7f" * 3
    odd = encode(Image.fromarray(noise(48, 48)), "JPEG", exif=exif)
    open_image = Image.open
    inside = {name: threading.Event() for name in ("first", "second")}
    leave = {name: threading.Event() for name in ("first", "second")}

    def slow_open(*arguments, **options):
        name = threading.current_thread().name
        inside[name].set()
        assert leave[name].wait(60)
        return open_image(*arguments, **options)

    monkeypatch.setattr(Image, "open", slow_open)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    before = list(warnings.filters)
    found = {}

    def decode(name):
        try:
            found[name] = decode_image(odd, size=48).shape
        except UnusableImage as error:
            found[name] = error.reason

    threads = {name: threading.Thread(name=name, target=decode, args=[name]) for name in inside}
    for name, thread in threads.items():
        thread.start()
        assert inside[name].wait(60)
    for name, thread in threads.items():
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
        leave[name].set()
        thread.join(60)
    assert found == dict.fromkeys(inside, (48, 48, 3))
    assert warnings.filters == before and ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.warns(UserWarning):
        open_image(BytesIO(odd)).getexif()
