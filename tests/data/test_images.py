import os
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mim_jax.data.images import UnusableImage, decode_image, load_image
from tests.data.pictures import encode, noise, reason

# EXIF orientation -> stored pixels upright, from the tag's definition (where row 0 and column 0 belong).
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[::-1],
}
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}


def png_with_header(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_image_of_the_wanted_size_keeps_its_pixels(format):
    pixels = noise(48, 48)
    decoded = decode_image(encode(Image.fromarray(pixels), format), size=48)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_shorter_side_is_scaled_and_the_centre_cut_out():
    wide = noise(64, 192)
    for turn, size, centre in (
        (UPRIGHT[1], (120, 40), np.s_[:, 40:80]),
        (UPRIGHT[5], (40, 120), np.s_[40:80]),
    ):
        # Scaled separately: before Pillow 13 a turned picture scales differently in a few pixels.
        picture = Image.fromarray(turn(wide))
        scaled = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))[centre]
        decoded = decode_image(encode(picture, "PNG"), size=40)
        assert np.max(np.abs(decoded.astype(int) - scaled)) <= 1


def test_reduction_is_antialiased():
    # A checkerboard of single pixels has no detail left at a quarter of its size: grey, not black and white.
    board = (255 * (np.indices((160, 160)).sum(0) % 2)).astype(np.uint8)
    decoded = decode_image(encode(Image.fromarray(board), "PNG"), size=40)
    assert np.all(np.abs(decoded.astype(int) - 128) < 12)


def test_large_jpeg_agrees_with_a_full_decode():
    # Waves of 16 pixels, four in the result, would be lost if the decoder reduced the image too far.
    wave = 128 + 90 * np.sin(np.arange(800) * 2 * np.pi / 16)
    pixels = np.stack(
        [np.tile(wave, (800, 1)), np.tile(wave[:, None], (1, 800)), np.full((800, 800), 90)], -1
    )
    image = Image.fromarray(pixels.astype(np.uint8))
    decoded = decode_image(encode(image, "JPEG", quality=98, subsampling=0), size=200)
    full = np.asarray(image.resize((200, 200), Image.Resampling.BICUBIC))
    assert np.max(np.abs(decoded.astype(int) - full)) <= 12
    assert np.ptp(full[..., 0]) > 120


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(format, orientation):
    stored = Image.fromarray(noise(40, 60))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(stored, format, exif=exif, **LOSSLESS[format]), size=40)
    plain = decode_image(encode(stored, format, **LOSSLESS[format]), size=40)
    np.testing.assert_array_equal(decoded, UPRIGHT[orientation](plain))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_only_exif_turns_a_picture(format):
    # As browsers and OpenCV do.
    stored = Image.fromarray(noise(48, 48))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    options = {"pnginfo": PngInfo()} if format == "PNG" else {"xmp": xmp}
    if format == "PNG":
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    decoded = decode_image(encode(stored, format, **options, **LOSSLESS[format]), size=48)
    np.testing.assert_array_equal(decoded, decode_image(encode(stored, format, **LOSSLESS[format]), size=48))


def test_damaged_exif_leaves_a_good_image_usable():
    pixels = noise(48, 48)
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\x7f" * 3
    decoded = decode_image(encode(Image.fromarray(pixels), "PNG", exif=exif), size=48)
    np.testing.assert_array_equal(decoded, pixels)


def test_transparency_is_laid_on_white():
    colour, alpha = noise(48, 48), noise(48, 48, 0, seed=1)
    # Over: a c + (1 - a) white, to within the rounding of 8-bit compositing.
    expected = (colour * (alpha[..., None] / 255.0) + 255 - alpha[..., None]).round()
    rgba = Image.fromarray(np.dstack([colour, alpha]))
    for format in ("PNG", "TIFF"):
        assert np.max(np.abs(decode_image(encode(rgba, format), size=48) - expected)) <= 1

    grey = (colour[..., 0] * (alpha / 255.0) + 255 - alpha).round()[..., None]
    la = Image.merge("LA", [Image.fromarray(colour[..., 0]), Image.fromarray(alpha)])
    assert np.max(np.abs(decode_image(encode(la, "PNG"), size=48) - grey)) <= 1


@pytest.mark.parametrize("alpha", [0, 1])
def test_a_bmp_whose_alpha_is_empty_is_opaque(alpha):
    # A version 4 header with masks of four channels, which Pillow cannot write. Opaque, as in OpenCV.
    stored = np.dstack([noise(48, 48), np.full((48, 48), 0, np.uint8)])
    stored[0, 0, 3] = alpha
    masks = struct.pack("<4I", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 48, -48, 1, 32, 3, stored.size, 0, 0, 0, 0) + masks
    data = struct.pack("<2sIHHI", b"BM", 122 + stored.size, 0, 0, 122) + header.ljust(108, b"\0")
    decoded = decode_image(data + stored.tobytes(), size=48)
    if alpha:
        assert np.mean(decoded == 255) > 0.99
    else:
        np.testing.assert_array_equal(decoded, stored[..., :3])


def test_transparent_palette_entry_becomes_white():
    indices = noise(48, 48, 0) % 3
    image = Image.frombytes("P", (48, 48), indices.tobytes())
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    palette = np.uint8([[10, 20, 30], [255, 255, 255], [0, 0, 0]])
    decoded = decode_image(encode(image, "PNG", transparency=1), size=48)
    np.testing.assert_array_equal(decoded, palette[indices])


def test_grey_and_bilevel_images():
    grey = noise(48, 48, 0)
    decoded = decode_image(encode(Image.fromarray(grey), "PNG"), size=48)
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))
    bilevel = Image.fromarray(grey > 127)
    decoded = decode_image(encode(bilevel, "PNG"), size=48)
    np.testing.assert_array_equal(decoded[..., 0], np.where(grey > 127, 255, 0))


def test_cmyk_jpeg():
    flat = Image.new("CMYK", (48, 48), (0, 255, 255, 0))
    decoded = decode_image(encode(flat, "JPEG", quality=100), size=48)
    assert np.max(np.abs(decoded.astype(int) - [255, 0, 0])) <= 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format):
    deep = np.linspace(0, 65535, 48 * 48).astype(np.uint16).reshape(48, 48)
    decoded = decode_image(encode(Image.fromarray(deep), format), size=48)
    assert np.max(np.abs(decoded[..., 1] - deep / 257.0)) <= 0.5 + 1e-3


def test_photograph_with_previews_behind_it_is_its_first_picture():
    first, second = Image.fromarray(noise(48, 48)), Image.new("RGB", (48, 48))
    both = encode(first, "MPO", save_all=True, append_images=[second], quality=100, subsampling=0)
    assert Image.open(BytesIO(both)).format == "MPO"
    alone = encode(first, "JPEG", quality=100, subsampling=0)
    np.testing.assert_array_equal(decode_image(both, size=48), decode_image(alone, size=48))


@pytest.mark.parametrize("format", ["WEBP", "PNG", "TIFF"])
def test_several_pictures_in_one_file_are_refused(format):
    frames = [Image.fromarray(noise(48, 48, seed=i)) for i in range(3)]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    assert reason(data) == f"an animated or multi-page {format}; save one picture as a separate file"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "an empty file (0 bytes)"),
        (b"This is a note, not a photograph.\n" * 9, "text content"),
        ("<!doctype html><p>nicht gefunden é".encode() * 40, "text content"),
        (bytes(range(256)) * 8, "unknown content"),
        (encode(Image.new("RGB", (48, 48)), "GIF"), "GIF content"),
        (b"%PDF-1.7\n", "PDF content"),
        (b"\xff\xd8\xff\xe0", "damaged: its JPEG header cannot be read"),
        (encode(Image.new("RGB", (1, 1)), "PNG"), "1x1 pixels; at least 32x32 are needed"),
        (encode(Image.new("RGB", (400, 31)), "JPEG"), "400x31 pixels; at least 32x32 are needed"),
        (png_with_header(10_000, 10_000), "10000x10000 pixels; at most 50,000,000 pixels in all are allowed"),
        (png_with_header(100_000, 100_000), "100000x100000 pixels; at most 50,000,000"),
        (png_with_header(0, 0), "damaged"),
    ],
)
def test_what_cannot_be_used_has_a_plain_reason(data, said):
    assert reason(data).startswith(said)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated_files_are_damaged(format, part):
    data = encode(Image.fromarray(noise(96, 96)), format)
    assert reason(data[: int(part * len(data))]).startswith("damaged: ")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=12),
    st.integers(0, 200),
)
def test_hostile_bytes_give_pixels_or_a_reason_and_nothing_else(format, changes, cut):
    data = bytearray(encode(Image.fromarray(noise(40, 40)), format))
    for place, value in changes:
        # The header matters most: half of the changes fall into the first 64 bytes.
        data[place % (64 if place % 2 else len(data))] = value
    try:
        decoded = decode_image(bytes(data[: len(data) - cut]), size=40)
    except UnusableImage as error:
        assert error.reason and "\n" not in error.reason
    else:
        assert decoded.shape == (40, 40, 3) and decoded.dtype == np.uint8


def test_bytes_cap_and_the_caps_of_the_caller():
    data = encode(Image.fromarray(noise(48, 48)), "PNG")
    assert reason(data, max_bytes=100) == f"a file of {len(data):,} bytes; at most 100 are allowed"
    assert "at most 2,000 pixels" in reason(data, max_pixels=2000)
    assert "at least 49x49" in reason(data, min_side=49)
    with pytest.raises(ValueError, match="size=0"):
        decode_image(data, size=0)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_mistake_of_the_caller_is_no_bad_image(format):
    data = encode(Image.fromarray(noise(48, 48)), format)
    expected = decode_image(data, size=48)
    for same in (memoryview(data), bytearray(data), memoryview(data + data)[: len(data)]):
        np.testing.assert_array_equal(decode_image(same, size=np.int64(48)), expected)
    for wrong in (str(data), np.frombuffer(data, np.uint8), BytesIO(data), Image.fromarray(noise(48, 48)), 5):
        with pytest.raises(TypeError, match=f"data must be the bytes .* got {type(wrong).__name__}"):
            decode_image(wrong, size=48)
    for options in ({"size": 48.0}, {"max_pixels": None}, {"min_side": "32"}, {"max_bytes": 1e6}):
        with pytest.raises(TypeError):
            decode_image(data, **({"size": 48} | options))
    with pytest.raises(TypeError, match=r"gate must be a Gate or None, got True"):
        decode_image(data, size=48, gate=True)


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    def said(path, **options):
        with pytest.raises(UnusableImage) as caught:
            load_image(path, size=48, **options)
        assert str(caught.value) == f"{path}: {caught.value.reason}"
        return caught.value.reason

    good = tmp_path / "a b é.jpg"
    good.write_bytes(encode(Image.fromarray(noise(48, 48)), "PNG"))  # The content decides, not the suffix.
    assert load_image(good, size=48).shape == (48, 48, 3)
    assert "at most 64 are allowed" in said(good, max_bytes=64)

    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    assert said(loop) == "a circular symbolic link"
    assert said(tmp_path) == "a folder, not a file"
    assert said(tmp_path / "absent.jpg") == said(f"{tmp_path}/\0.jpg") == "no such file"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert said(tmp_path / "pipe.jpg") == "not a regular file"

    def denied(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(good), "open", denied)
    assert said(good) == "not readable (permission denied)"


@pytest.mark.parametrize(
    "error",
    [struct.error("short"), SyntaxError("broken"), MemoryError(), KeyError(45057), ValueError("a\nb")],
)
def test_whatever_a_decoder_raises_is_a_reason(monkeypatch, error):
    def failing(*arguments, **options):
        raise error

    monkeypatch.setattr(Image, "open", failing)
    said = reason(b"\xff\xd8\xff")
    assert said.startswith("damaged: ") and len(said) > len("damaged: ") and "\n" not in said
