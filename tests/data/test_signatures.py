"""Formats recognised by their first bytes; HEIC, which needs an extra."""

import struct
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mim_jax.data.containers import signature
from mim_jax.data.images import decode_image
from tests.data.pictures import noise, reason


def box(major, *compatible):
    """The first box of a file of ISO/IEC 14496-12."""
    brands = major + b"\0\0\0\0" + b"".join(compatible)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + b"\0\0\0\x08free"


@pytest.mark.parametrize(
    "brand",
    [b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1", b"MiHE"],
)
def test_every_brand_of_heic_is_heic(brand, monkeypatch):
    assert signature(box(brand)) == signature(box(b"abcd", b"efgh", brand)) == "HEIC"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason(box(brand)).startswith("HEIC content, which needs pillow-heif: install the [heic] extra")


def test_brands_of_others():
    assert signature(box(b"avif", b"mif1")) == signature(box(b"mif1", b"avif", b"miaf")) == "AVIF"
    assert reason(box(b"isom", b"mp42")).startswith("unknown content")
    assert signature(b"\xff\xff\xff\xffftyp") == signature(b"\0\0\0\0ftypheic") == ""


def test_heic_needs_its_plugin_and_says_so(monkeypatch):
    data = heic([noise(64, 48)])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason(data) == (
        "HEIC content, which needs pillow-heif: install the [heic] extra, or save it as JPEG"
    )


def test_heic_with_its_plugin_is_upright_bounded_and_one_picture():
    pytest.importorskip("pillow_heif")
    board = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((16, 16), np.uint8))
    pixels = np.repeat(board[:, :, None], 3, axis=-1)
    plain = decode_image(heic([pixels]), size=48)
    assert np.max(np.abs(plain.astype(int) - pixels[:, 8:56])) <= 8
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_image(heic([pixels], exif=exif.tobytes()), size=48)
    assert np.max(np.abs(np.rot90(turned) - plain.astype(int))) <= 8
    assert "at most 1,000 pixels" in reason(heic([pixels]), max_pixels=1000)
    assert "multi-page HEIF" in reason(heic([pixels, pixels]))
    assert reason(heic([pixels])[:300]).startswith("damaged: ")
    assert "HEIF" not in Image.OPEN


def heic(pictures, **options):
    plugin = pytest.importorskip("pillow_heif")
    file = plugin.HeifFile()
    for pixels in pictures:
        file.add_from_pillow(Image.fromarray(pixels))
    data = BytesIO()
    file.save(data, quality=95, **options)
    return data.getvalue()
