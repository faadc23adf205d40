"""PNG: transparency at every depth, and chunks that do not affect pixels; expected values from OpenCV."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from mim_jax.data.images import decode_image
from tests.data.pictures import noise, reason
from tests.stress.hostile import chunk, png

SIDE = 48


def body(samples, bits):
    """Rows of a PNG, unfiltered, from samples `[S, S, C]`."""
    rows = samples.reshape(len(samples), -1)
    if bits == 16:
        packed = rows.astype(">u2").view(np.uint8)
    else:
        packed = np.packbits(
            np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :], axis=None
        )
    return np.insert(packed.reshape(len(rows), -1), 0, 0, axis=1).tobytes()


def file(samples, *, bits, colour, before=b""):
    return png(SIDE, SIDE, before=before, bits=bits, colour=colour, body=body(samples, bits))


def by_opencv(data):
    """RGB on white, float64, from a reader that keeps all bits and alpha."""
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    found = found * (255 / np.iinfo(found.dtype).max)
    found = np.repeat(found[..., None], 3, axis=-1) if found.ndim == 2 else found
    opacity = found[..., 3:] / 255 if found.shape[-1] == 4 else 1.0
    return found[..., 2::-1] * opacity + 255 * (1 - opacity)


@pytest.mark.parametrize(
    ("colour", "bits"), [*((0, bits) for bits in (1, 2, 4, 8, 16)), (2, 8), (2, 16), (4, 8), (4, 16), (6, 16)]
)
def test_one_transparent_colour_at_every_depth(colour, bits):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    samples = np.random.default_rng(0).integers(0, 2**bits, (SIDE, SIDE, channels))
    samples[8:24, 8:24] = samples[0, 0]
    samples[30, 30] = samples[0, 0] ^ 1  # differs in the last bit only
    plain = file(samples, bits=bits, colour=colour)
    # Pillow keeps the upper 8 of 16 bits, once of the colour and once of the alpha; blending rounds.
    most = 1 if bits < 16 or colour == 0 else 2.5
    assert np.max(np.abs(decode_image(plain, size=SIDE) - by_opencv(plain))) <= most
    if colour < 4:
        key = chunk(b"tRNS", struct.pack(f">{channels}H", *samples[0, 0]))
        decoded = decode_image(file(samples, bits=bits, colour=colour, before=key), size=SIDE)
        # OpenCV ignores a transparent grey, so its definition is used here.
        clear = (samples == samples[0, 0]).all(axis=-1, keepdims=True)
        assert np.max(np.abs(decoded - np.where(clear, 255, by_opencv(plain)))) <= most


@pytest.mark.parametrize(
    ("bits", "colour", "value", "key", "right"),
    [
        (4, 0, [5], [5], [255, 255, 255]),
        (16, 0, [1000], [1000], [255, 255, 255]),
        (16, 2, [0x1234, 0x3456, 0x5678], [0x12, 0x34, 0x56], [18, 52, 86]),
        # Bits above the depth are ignored (PNG 1.2, 4.2.1.1).
        (4, 0, [5], [0x105], [255, 255, 255]),
    ],
)
def test_transparency_is_decided_at_full_depth(bits, colour, value, key, right):
    samples = np.tile(value, (SIDE, SIDE, 1))
    data = file(samples, bits=bits, colour=colour, before=chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    assert (decode_image(data, size=SIDE) == right).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_alphas_of_a_palette(bits):
    samples = np.random.default_rng(0).integers(0, 2**bits, (SIDE, SIDE, 1))
    palette, alphas = noise(2**bits, 3, 0, seed=1), noise(2**bits, 1, 0, seed=2)
    before = chunk(b"PLTE", palette.tobytes()) + chunk(b"tRNS", alphas.tobytes())
    data = file(samples, bits=bits, colour=3, before=before)
    assert np.max(np.abs(decode_image(data, size=SIDE) - by_opencv(data))) <= 1


@pytest.mark.parametrize(
    "before",
    [
        chunk(b"iTXt", b"a\0\0\0\0\0" + b"x" * 2_000_000),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(noise(2000, 1000, 0).tobytes())),
        chunk(b"pHYs", bytes(9))[:-1] + b"\0",
        chunk(b"tRNS", bytes(6))[:-1] + b"\0",
        chunk(b"tRNS", b"\0"),
        chunk(b"gAMA", b"\0"),
        chunk(b"zTXt", b"a\0\0not packed"),
        chunk(b"eXIf", b"no EXIF"),
    ],
    ids=lambda before: f"{before[4:8].decode()} of {len(before)}",
)
def test_chunks_that_no_pixel_depends_on_may_be_long_or_damaged(before):
    pixels = noise(SIDE, SIDE) | 1  # no black, which a damaged tRNS would name
    data = file(pixels, bits=8, colour=2, before=before)
    np.testing.assert_array_equal(decode_image(data, size=SIDE), pixels)
    np.testing.assert_array_equal(by_opencv(data), pixels)


def test_damage_to_pixels_is_damage():
    data = bytearray(file(noise(SIDE, SIDE), bits=8, colour=2))
    data[data.index(b"IDAT") + 40] ^= 1
    assert reason(bytes(data)).startswith("damaged: ")
