"""TIFF in every layout that a writer may choose: the pixels of tifffile or a reason, never other pixels."""

import itertools
from io import BytesIO

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from mim_jax.data.images import UnusableImage, decode_image
from tests.data.pictures import encode, noise, reason
from tests.stress.hostile import TAIL, tiff

SIDE = 48
COLOURS = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4}
ALPHAS = ((), ("unspecified",), ("unassalpha",), ("assocalpha",), ("unassalpha", "unspecified"))
# (bits, colours, extra samples) of the layouts that must be read, in chunky order.
READ = {
    *((8, colours, ()) for colours in COLOURS),
    *((16, colours, ()) for colours in ("minisblack", "rgb", "separated")),
    *((8, "rgb", alpha) for alpha in ALPHAS),
    *((16, "rgb", alpha) for alpha in ALPHAS[:4]),
    (8, "minisblack", ("unspecified",)),
    (8, "minisblack", ("unassalpha",)),
}


def write(pixels, **options):
    file = BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, software=False, **options)
    return file.getvalue()


def in_rgb(samples, colours, alpha, bits):
    """Samples `[S, S, C]` as 8-bit RGB on white, float64: the definitions of TIFF 6.0."""
    values = samples * (255 / (2**bits - 1))
    found = values[..., : COLOURS[colours]]
    if colours == "miniswhite":
        found = 255 - found
    if colours == "separated":
        found = (255 - found[..., :3]) * (255 - found[..., 3:]) / 255
    first = alpha[0] if alpha else "unspecified"
    opacity = values[..., COLOURS[colours], None] / 255 if first != "unspecified" else 1.0
    premultiplied = 1.0 if first == "assocalpha" else opacity
    return np.broadcast_to(found * premultiplied + 255 * (1 - opacity), (SIDE, SIDE, 3))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("alpha", ALPHAS, ids="+".join)
def test_layouts_are_read_as_tifffile_reads_them_or_refused(bits, colours, alpha):
    dtype = np.uint8 if bits == 8 else np.uint16
    samples = COLOURS[colours] + len(alpha)
    pixels = np.random.default_rng(0).integers(0, 2**bits, (SIDE, SIDE, samples), dtype=dtype)
    if alpha == ("assocalpha",):
        pixels[..., :-1] = pixels[..., :-1] * (pixels[..., -1:] / (2**bits - 1))
    cuts = ({}, {"tile": (16, 32)}, {"rowsperstrip": 7})
    packing = ({}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True})
    options = {"photometric": colours, "extrasamples": alpha or None}
    for planes, order, cut, pack in itertools.product((False, True), "<>", cuts, packing):
        if samples == 1:
            data = write(pixels[..., 0], byteorder=order, **options, **cut, **pack)
        else:
            own = {"planarconfig": "separate" if planes else "contig"}
            stored = np.moveaxis(pixels, -1, 0) if planes else pixels
            data = write(stored, byteorder=order, **options, **own, **cut, **pack)
        found = tifffile.imread(BytesIO(data))
        found = np.moveaxis(found, 0, -1) if planes and samples > 1 else found.reshape(pixels.shape)
        try:
            decoded = decode_image(data, size=SIDE)
        except UnusableImage as error:
            must = not planes or samples == 1 or (bits == 8 and not alpha)
            assert (bits, colours, alpha) not in READ or not must, (order, cut, pack)
            assert error.reason.startswith("an unsupported TIFF layout (")
            continue
        # Pillow keeps the upper 8 of 16 bits, once of the colour and once of the alpha; blending rounds.
        assert np.max(np.abs(decoded - in_rgb(found, colours, alpha, bits))) <= (1 if bits == 8 else 3) + 1e-9


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1, 2])
def test_pixels_of_fewer_bits(bits, photometric):
    values = np.random.default_rng(0).integers(0, 2**bits, (64, 64))
    packed = np.packbits(
        np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    ).tobytes()
    data = tiff({258: (3, 1, bits), 262: (3, 1, photometric), 273: (4, 1, TAIL)}, packed)
    if photometric == 2:
        assert reason(data) == f"an unsupported TIFF layout ({bits}-bit RGB); save it as 8-bit RGB"
        return
    grey = values * 255 // (2**bits - 1)
    decoded = decode_image(data, size=64)
    np.testing.assert_array_equal(decoded[..., 2], grey if photometric else 255 - grey)


@pytest.mark.parametrize("compression", [5, 32773])  # LZW with a predictor, and PackBits
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_opencv_packs(compression, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (SIDE, SIDE, 3), dtype=dtype)
    packed, data = cv2.imencode(".tif", pixels[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    assert packed
    assert np.max(np.abs(decode_image(data.tobytes(), size=SIDE) - pixels * (255 / np.iinfo(dtype).max))) <= 1


def test_the_right_value_of_a_ramp_from_white():
    ramp = np.tile(np.linspace(0, 65535, SIDE).astype(np.uint16), (SIDE, 1))
    said = "an unsupported TIFF layout (16-bit WhiteIsZero); save it as 8-bit RGB"
    assert reason(write(ramp, photometric="miniswhite")) == said
    assert reason(write(ramp, photometric="miniswhite", byteorder=">")) == said
    eight = decode_image(write((ramp // 257).astype(np.uint8), photometric="miniswhite"), size=SIDE)
    np.testing.assert_array_equal(eight[..., 0], 255 - ramp // 257)


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, 3)])
@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "uint32", "uint64", "float16", "float32", "float64"]
)
def test_pixels_of_unknown_range_are_refused(dtype, shape):
    data = write(np.ones(shape, dtype), photometric="rgb" if len(shape) == 3 else "minisblack")
    kind = {"i": "signed", "u": "unsigned", "f": "floating-point"}[np.dtype(dtype).kind]
    bits = 8 * np.dtype(dtype).itemsize
    assert reason(data) == f"{kind} pixels ({bits} bits), whose range is unknown; save it with 8 or 16 bits"


def test_palettes_of_16_bits_are_read_and_of_8_refused():
    indices = noise(SIDE, SIDE, 0)
    colours = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16)
    decoded = decode_image(write(indices, photometric="palette", colormap=colours * 257), size=SIDE)
    np.testing.assert_array_equal(decoded, np.moveaxis(colours[:, indices], 0, -1))
    assert "a colour map of 8 bits" in reason(write(indices, photometric="palette", colormap=colours))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({254: (4, 1, 1)}, "a TIFF whose first picture is a thumbnail, as in raw files"),
        ({262: (3, 1, 32803)}, "(8-bit PhotometricInterpretation=32803)"),
        ({262: (3, 1, 6), 277: (3, 1, 3)}, "(YCbCr outside JPEG)"),
        ({259: (3, 1, 34712)}, "(compression 34712)"),
        ({266: (3, 1, 2)}, "(bits in reverse order)"),
        ({262: (3, 1, 5), 277: (3, 1, 4), 332: (3, 1, 2)}, "(inks other than CMYK)"),
        ({32997: (4, 1, 4)}, "(several slices)"),
        ({259: (2, 4, TAIL)}, "(compression -1)"),  # a text
        ({262: (3, 1, 8), 277: (3, 1, 3)}, "(8-bit PhotometricInterpretation=8)"),
    ],
)
def test_what_pillow_would_misread_is_named(tags, said):
    assert said in reason(tiff({273: (4, 1, TAIL), **tags}, bytes(4 * 64 * 64)))


def test_an_alpha_of_zeros_everywhere_is_ignored():
    pixels = np.dstack([noise(SIDE, SIDE), np.zeros((SIDE, SIDE), np.uint8)])
    data = write(pixels, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(decode_image(data, size=SIDE), pixels[..., :3])


def test_jpeg_inside_is_read_as_pillow_alone_reads_it():
    picture = Image.fromarray(np.kron(noise(6, 6), np.ones((8, 8, 1), np.uint8)))
    decoded = decode_image(encode(picture, "TIFF", compression="jpeg", quality=100), size=SIDE)
    assert np.max(np.abs(decoded.astype(int) - np.asarray(picture))) <= 3
