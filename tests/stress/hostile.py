"""Give hostile bytes to the decoder by the hundred thousand: what comes out, and at what cost?

python -m tests.stress.hostile --inputs=100000 --seed=0 2>/dev/null     # libtiff prints its own errors

A tenth of the inputs are random bytes; the rest are small pictures of many kinds saved by Pillow, kept whole,
cut off, with bits turned, bytes changed, parts repeated, or two files spliced. Bombs follow: files that cost
far more than their size, and images with the largest number of pixels allowed. Anything other than pixels or
an `UnusableImage` with a one-line reason counts as lost.
"""

import argparse
import itertools
import math
import re
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from mim_jax.data.containers import MAX_SCANS
from mim_jax.data.images import MAX_PIXELS, UnusableImage, decode_image

TAIL = 4096  # offset in a TIFF of the data that its tags point to
SIDE = 64  # pixels per side of the pictures made
DECODED = 16  # pixels per side after decoding, so few that a JPEG is decoded at half its side
CHANGES = ("whole", "cut off", "bits turned", "bytes changed", "part repeated", "spliced")
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "LA", "RGBA", "P", "1", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("RGB", "L", "P", "1"),
    "TIFF": ("RGB", "L", "LA", "RGBA", "P", "1", "I;16", "I", "F", "CMYK", "LAB", "YCbCr"),
    "GIF": ("P", "L"),
}
# More options of writers: one file for each, with RGB pixels.
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "JPEG": ({"progressive": True}, {"quality": 100, "subsampling": 0}, {"restart_marker_blocks": 2}),
    "WEBP": ({"lossless": True},),
    "TIFF": tuple(
        {"compression": name}
        for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
    ),
}
ANIMATED = ("PNG", "WEBP", "TIFF", "GIF", "MPO")


def seeds(rng: np.random.Generator) -> Iterator[bytes]:
    """Yield small pictures of every format, mode, orientation and option, with a profile, and animated."""

    def save(image: Image.Image, format: str, **options: Any) -> bytes:
        file = BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    smooth = np.kron(
        rng.integers(0, 256, (8, 8, 4), dtype=np.uint8), np.ones((SIDE // 8, SIDE // 8, 1), np.uint8)
    )
    photograph = Image.fromarray(smooth[..., :3])
    deep = Image.fromarray(smooth[..., 0].astype(np.uint16) * 257)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for format, modes in MODES.items():
        for mode in modes:
            if mode == "RGBA":
                picture = Image.fromarray(smooth)
            elif mode == "I;16":
                picture = deep
            else:
                picture = photograph.convert("L" if mode in ("LA", "I", "F") else mode)
            yield save(picture if mode in ("RGBA", "I;16", "P") else picture.convert(mode), format)
        if format not in ("BMP", "GIF"):
            for orientation in range(10):
                exif = Image.Exif()
                exif[0x0112], exif[0x010E] = orientation, "a" * 40
                yield save(photograph, format, exif=exif)
            yield save(photograph, format, icc_profile=profile)
        for options in OPTIONS.get(format, ()):
            yield save(photograph, format, **options)
    # Kinds that Pillow reads but does not write: 16 bits of grey and alpha, RGB and RGBA; pixels in runs.
    for colour, channels in ((4, 2), (2, 3), (6, 4)):
        yield png(SIDE, SIDE, bits=16, colour=colour, body=bytes(SIDE * (2 * channels * SIDE + 1)))
    yield bmp_of_runs(SIDE, SIDE, bytes((SIDE, 5, 0, 0)) * SIDE + b"\0\1")
    for format in ANIMATED:
        yield save(photograph, format, save_all=True, append_images=[photograph.rotate(90)])


def pick(rng: np.random.Generator, files: Sequence[bytes]) -> bytes:
    """One of the files."""
    return files[int(rng.integers(len(files)))]


def hostile(rng: np.random.Generator, files: Sequence[bytes]) -> tuple[str, bytes]:
    """One input and what was done to make it."""
    if rng.random() < 0.1:
        start = pick(rng, files)[: rng.integers(0, 32)] if rng.random() < 0.5 else b""
        return "random bytes", start + rng.bytes(int(rng.integers(0, 600)))
    data = bytearray(pick(rng, files))
    change = CHANGES[rng.integers(len(CHANGES))]
    # Headers matter most: half of all changes fall into the first 256 bytes.
    reach = min(len(data), 256) if rng.random() < 0.5 else len(data)
    places = rng.integers(0, reach, int(rng.integers(1, 9)))
    if change == "cut off":
        data = data[: int(rng.integers(0, len(data)))]
    elif change == "bits turned":
        for place in places:
            data[place] ^= 1 << int(rng.integers(8))
    elif change == "bytes changed":
        for place in places:
            data[place] = int(rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, int(rng.integers(256)))))
    elif change == "part repeated":
        first = int(places[0])
        part = data[first : first + int(rng.integers(1, 64))]
        data[first:first] = part * int(rng.integers(1, 200))
    elif change == "spliced":
        other = pick(rng, files)
        data = data[: int(places[0])] + other[int(rng.integers(0, len(other))) :]
    return change, bytes(data)


def png(
    width: int, height: int, *, before: bytes = b"", bits: int = 8, colour: int = 2, body: bytes = b""
) -> bytes:
    """A PNG built by hand: chunks `before` its pixels, and the uncompressed `body`."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")
    first, *rest = (chunk(name, data) for name, data in parts)
    return b"\x89PNG\r\n\x1a\n" + first + before + b"".join(rest)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bmp_of_runs(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of 8 bits whose pixels are `runs`: (count, colour), or 0 and a command."""
    palette = bytes(4 * 256)
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs


def tiff(entries: Mapping[int, tuple[int, int, int]], tail: bytes) -> bytes:
    """A TIFF of 64x64 grey pixels; `entries` are tag -> (type, count, value), `tail` starts at `TAIL`."""
    basic = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1}
    tags = {tag: (3, 1, value) for tag, value in basic.items()} | dict(entries)
    packed = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + packed + bytes(4)
    return head.ljust(TAIL, b"\0") + tail


def bombs(*, scale: int) -> dict[str, bytes]:
    """Small files that would cost much time or memory; their cost grows with `scale` (1 = some megabytes)."""
    grey = BytesIO()
    side = 1024 * scale
    Image.new("L", (side, side), 99).save(grey, "JPEG", progressive=True)
    jpeg = grey.getvalue()
    scan = jpeg[jpeg.rfind(b"\xff\xda") : -2]
    offsets, tile = 400_000 * scale, zlib.compress(bytes(2**22 * scale), 9)
    tiled = {259: (3, 1, 8), 322: (4, 1, 40_000), 323: (4, 1, 40_000), 325: (4, 1, len(tile))}
    pixels = bytes(64 * (3 * 64 + 1))
    exif = b"\xff\xe1" + struct.pack(">H", 308) + b"Exif\0\0" + bytes(300)
    head = jpeg.index(b"\xff\xc2") + 5  # of the frame: its height and width
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**6)))
    canvas = b"VP8X" + struct.pack("<II", 10, 0) + (16_382).to_bytes(3, "little") * 2
    return {
        "JPEG of 65,535 x 65,535": jpeg[:head] + b"\xff" * 4 + jpeg[head + 4 :],
        "JPEG of many blocks of EXIF": jpeg[:2] + exif * (10_000 * scale) + jpeg[2:],
        "PNG of many profiles": png(64, 64, before=profile * (1000 * scale), body=pixels),
        "WEBP of 16,383 x 16,383": b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas,
        "BMP of 65,535 x 65,535": bmp_of_runs(65_535, 65_535, b"\0\1"),
        "BMP that passes over its pixels": bmp_of_runs(390_000 * scale, 32, b"\0\2\0\xff" * 3),
        "JPEG of many scans": jpeg[:-2] + scan * (100 * scale) + jpeg[-2:],
        "JPEG of many segments": jpeg[:2] + b"\xff\xe5\0\2" * (500_000 * scale) + jpeg[2:],
        "PNG of many chunks": png(64, 64, before=chunk(b"prIv", b"") * (200_000 * scale), body=pixels),
        "PNG with a text that inflates": png(
            64, 64, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24 * scale))), body=pixels
        ),
        "PNG with a profile that inflates": png(
            64, 64, before=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**24 * scale))), body=pixels
        ),
        "PNG of 65,535 x 65,535": png(65_535, 65_535),
        "PNG of 65,535 x 762": png(65_535, 762),
        "TIFF of many strips": tiff({273: (4, offsets, TAIL)}, bytes(4 * offsets)),
        "TIFF of one huge tile": tiff({**tiled, 324: (4, 1, TAIL)}, tile),
        "TIFF of overlapping tags": tiff(
            {273: (4, 1, TAIL), **dict.fromkeys(range(1000, 1300), (1, 10**6, 0))}, bytes(10**6)
        ),
    }


def largest() -> Iterator[tuple[str, bytes]]:
    """Yield images of nearly as many pixels as allowed, in the modes that take the most memory."""
    side = math.isqrt(MAX_PIXELS)
    packing: dict[str, dict[str, Any]] = {
        "PNG": {"compress_level": 1},
        "JPEG": {"progressive": True},
        "TIFF": {"compression": "tiff_adobe_deflate"},
        "WEBP": {"lossless": True, "method": 0},
    }
    for format, mode in (
        ("PNG", "RGBA"),
        ("PNG", "LA"),
        ("PNG", "I;16"),
        ("JPEG", "CMYK"),
        ("TIFF", "CMYK"),
        ("WEBP", "RGBA"),
    ):
        file = BytesIO()
        Image.new(mode, (side, side)).save(file, format, **packing[format])
        yield f"{format} of {side:,} x {side:,}, {mode}", file.getvalue()
    for format, mode, shape in (("PNG", "RGBA", (65_535, 762)), ("JPEG", "RGB", (65_500, 763))):
        file = BytesIO()
        Image.new(mode, shape).save(file, format, **packing[format])
        yield f"{format} of {shape[0]:,} x {shape[1]:,}, {mode}", file.getvalue()
    file = BytesIO()
    Image.new("RGB", (side, side)).save(file, "JPEG", progressive=True, subsampling=0)
    jpeg = file.getvalue()
    scan = jpeg[jpeg.rfind(b"\xff\xda") : -2]
    more = MAX_SCANS - jpeg.count(b"\xff\xda")
    yield f"JPEG of {side:,} x {side:,}, {MAX_SCANS} scans", jpeg[:-2] + scan * more + jpeg[-2:]


def kind_of(data: bytes) -> str:
    """The outcome: "an image", the beginning of the reason, or "LOST" with the exception raised instead."""
    try:
        pixels = decode_image(data, size=DECODED)
    except UnusableImage as error:
        if not error.reason or not error.reason.isprintable() or len(error.reason) > 400:
            return "LOST: a reason that is not one line of text"
        words = re.split(r"[:;(]", error.reason)[0].strip()
        return "too large or too small" if words[:1].isdigit() else words
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"LOST: {type(error).__name__}"
    clean = pixels.shape == (DECODED, DECODED, 3) and pixels.dtype == np.uint8
    return "an image" if clean else "LOST: not a clean image"


def memory(row: str) -> float:
    """Memory of this process in MiB: `row` is "VmRSS" (now) or "VmHWM" (peak); Linux."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{row}:")[1].split()[0]) / 1024


def main() -> None:
    """Print the inputs tried, the outcomes, and the highest costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    files = list(seeds(rng))
    tried: Counter[str] = Counter()
    found: Counter[str] = Counter()
    slowest, began = 0.0, time.perf_counter()
    before = memory("VmRSS")
    for _ in range(options.inputs):
        change, data = hostile(rng, files)
        start = time.thread_time()
        kind = kind_of(data)
        slowest = max(slowest, time.thread_time() - start)
        tried[change] += 1
        found[kind] += 1
    seconds = time.perf_counter() - began
    print(f"{options.inputs:,} inputs from {len(files)} files, seed {options.seed}, in {seconds:.0f} s")
    print("\ntried\n" + "\n".join(f"  {count:7,}  {name}" for name, count in tried.most_common()))
    print("\nwhat came out\n" + "\n".join(f"  {count:7,}  {name}" for name, count in found.most_common()))
    print(f"\nslowest: {1000 * slowest:.0f} ms of processor time")
    print(f"largest memory: {memory('VmHWM'):.0f} MiB, {memory('VmHWM') - before:.0f} above the start")
    print("\nbombs: result, seconds of processor time, MiB above the start")
    for name, data in itertools.chain(bombs(scale=4).items(), largest()):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the memory held now
        before, start = memory("VmRSS"), time.process_time()
        kind = kind_of(data)
        spent, held = time.process_time() - start, memory("VmHWM") - before
        found[kind] += 1
        print(f"  {name}, {len(data):,} bytes: {kind}, {spent:.1f} s, {held:.0f} MiB", flush=True)
    print(f"\nlost: {sum(count for name, count in found.items() if name.startswith('LOST'))}")


if __name__ == "__main__":
    main()
