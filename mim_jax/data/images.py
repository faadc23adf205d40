"""The image loader: the bytes of any photograph -> clean pixels of one size, or a plain reason why not.

`decode_image` and `load_image` return uint8 RGB `[size, size, 3]` or raise `UnusableImage`, and nothing else,
whatever the bytes are. The shorter side is scaled to `size` (bicubic, antialiased) and the centre is cropped.
Orientation is applied and transparency blended with white; grey, palette, CMYK and 16-bit images become
8-bit RGB; colour profiles are ignored.
"""

import contextlib
import errno
import operator
import os
import stat
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from mim_jax.data import containers, pillow_state
from mim_jax.data.containers import TooManyParts, signature
from mim_jax.data.quality import SIDE, Gate, find_faults

MAX_PIXELS = 50_000_000
MAX_BYTES = 64 * 2**20
MIN_SIDE = 32

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")

# EXIF orientation n -> operation that turns the stored pixels upright (EXIF 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_TILE_WIDTH, _TILE_LENGTH = 0x0142, 0x0143


class UnusableImage(ValueError):
    """An image that cannot be used: `reason` says why in plain words; `path` is the file, or "" for bytes.

    >>> str(UnusableImage("no such file", "a.jpg"))
    'a.jpg: no such file'
    """

    def __init__(self, reason: str, path: str = ""):
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


def load_image(
    path: str | os.PathLike[str],
    *,
    size: int,
    gate: Gate | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_side: int = MIN_SIDE,
) -> np.ndarray:
    """Load an image file as uint8 `[size, size, 3]`; arguments and errors as in `decode_image`.

    The input gate is off by default: use a detector's `read` method for pictures to be judged.

    >>> load_image("missing.jpg", size=224)
    Traceback (most recent call last):
    mim_jax.data.images.UnusableImage: missing.jpg: no such file
    """
    try:
        data = read_bytes(path, max_bytes=max_bytes)
        return decode_image(
            data, size=size, gate=gate, max_pixels=max_pixels, max_bytes=max_bytes, min_side=min_side
        )
    except UnusableImage as error:
        raise UnusableImage(error.reason, os.fspath(path)) from None


def decode_image(
    data: bytes | bytearray | memoryview,
    *,
    size: int,
    gate: Gate | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_side: int = MIN_SIDE,
    on_header: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Decode the bytes of a JPEG, PNG, WEBP, BMP or TIFF image, or HEIC if pillow-heif is installed.

    >>> file = BytesIO()
    >>> Image.new("RGB", (640, 480)).save(file, "PNG")
    >>> decode_image(file.getvalue(), size=224).shape
    (224, 224, 3)

    Args:
      data: content of the whole file.
      size: side of the returned square, in pixels.
      gate: checks that the picture must pass; None = no checks. The pixels do not depend on it.
      max_pixels: images with more pixels are refused before any pixel is decoded.
      max_bytes: larger files are refused.
      min_side: images with a shorter side, in pixels, are refused; a gate raises it to at least `MIN_SIDE`,
        or sets it to `MIN_SIDE` if its `too_small` is False.
      on_header: called with the stored width and height in pixels, also for an image that is then refused.

    Raises:
      UnusableImage: the bytes cannot be decoded safely and completely, hold more than one picture (which a
        gate without `several_frames` allows), or do not pass the gate; `reason` names every fault.
      TypeError: `data` is not bytes, `gate` is not a `Gate`, or a size or limit is not an integer.
      ValueError: `size` is not positive.
    """
    # Checked outside the `try`: inside, a caller's mistake would look like a bad image.
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"data must be the bytes of an image file, got {type(data).__name__}")
    if not isinstance(gate, Gate | None):
        raise TypeError(f"gate must be a Gate or None, got {gate!r}")
    data = bytes(data)
    size, max_pixels, max_bytes, min_side = map(operator.index, (size, max_pixels, max_bytes, min_side))
    if size < 1:
        raise ValueError(f"size={size}: the side of the decoded image must be at least 1 pixel")
    if not data:
        raise UnusableImage("an empty file (0 bytes)")
    _check_bytes(len(data), max_bytes)
    if gate is not None:
        min_side = max(min_side, MIN_SIDE) if gate.too_small else MIN_SIDE
    try:
        containers.check_parts(data, signature(data))
        with pillow_state.defaults():
            with _open(data) as image:
                if on_header is not None:
                    on_header(*image.size)
                _check_header(image, max_pixels, min_side, gate is not None and not gate.several_frames)
                full = min(image.size)
                picture, turn = _decode(image, data, size)
            pixels = _square(picture, turn, size)
            if gate is None:
                return pixels
            # An image decoded for a small network may be too small to be measured.
            if size < SIDE and min(picture.size) < min(full, 2 * SIDE):
                with _open(data) as image:
                    picture, turn = _decode(image, data, SIDE)
            measured = pixels if size == SIDE else _square(picture, turn, SIDE)
    except UnusableImage:
        raise
    except UnidentifiedImageError:
        found = containers.content(data)
        words = f"{found} content; JPEG, PNG, WEBP, BMP or TIFF is needed"
        if found in _FORMATS:
            words = f"damaged: its {found} header cannot be read"
        raise UnusableImage(words) from None
    except TooManyParts as error:
        raise UnusableImage(f"an abnormal file structure: {error}; save it again") from None
    # Catch all: on hostile bytes Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error,
    # zlib.error, MemoryError and more, and the set changes with its version. No file may stop a run.
    except Exception as error:
        raise UnusableImage(f"damaged: {_one_line(error)}") from None
    faults = find_faults(measured, gate)
    if faults:
        raise UnusableImage("; ".join(faults.values()))
    return pixels


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file; `UnusableImage` if it is missing, unreadable or too large."""
    path = Path(path)
    if "\0" in str(path):
        raise UnusableImage("no such file")
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnusableImage("a folder, not a file")
        # Opening a pipe would wait for a writer forever; a device never ends.
        if not stat.S_ISREG(status.st_mode):
            raise UnusableImage("not a regular file")
        _check_bytes(status.st_size, max_bytes)
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except FileNotFoundError:
        raise UnusableImage("no such file") from None
    except PermissionError:
        raise UnusableImage("not readable (permission denied)") from None
    except OSError as error:
        loops = error.errno == errno.ELOOP
        raise UnusableImage("a circular symbolic link" if loops else _one_line(error)) from None


def _open(data: bytes) -> ImageFile.ImageFile:
    format = signature(data)
    if format == "TIFF" and (reason := containers.tiff_refusal(data)):
        raise UnusableImage(reason)
    if format != "HEIC":
        data = containers.essential_png(data) if format == "PNG" else data
        return Image.open(containers.Source(data), formats=_FORMATS)
    try:
        import pillow_heif
    except ImportError:
        raise UnusableImage(
            "HEIC content, which needs pillow-heif: install the [heic] extra, or save it as JPEG"
        ) from None
    # Not registered with Pillow, whose global state belongs to the importing program.
    return pillow_heif.HeifImageFile(BytesIO(data))


def _check_bytes(count: int, max_bytes: int) -> None:
    if count > max_bytes:
        raise UnusableImage(f"a file of {count:,} bytes; at most {max_bytes:,} are allowed")


def _check_header(image: Image.Image, max_pixels: int, min_side: int, first_frame: bool) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise UnusableImage(f"{width}x{height} pixels; at most {max_pixels:,} pixels in all are allowed")
    # A tile is always decoded whole, however little of it the image needs.
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)
    if all(isinstance(side, int) for side in tile) and tile[0] * tile[1] > max_pixels:
        raise UnusableImage(f"tiles of {tile[0]}x{tile[1]} pixels; at most {max_pixels:,} are allowed")
    if min(width, height) < min_side:
        raise UnusableImage(f"{width}x{height} pixels; at least {min_side}x{min_side} are needed")
    # Many phones store previews or a depth map after the photograph (MPO); the photograph comes first.
    if getattr(image, "is_animated", False) and image.format != "MPO" and not first_frame:
        raise UnusableImage(f"an animated or multi-page {image.format}; save one picture as a separate file")


def _decode(image: Image.Image, data: bytes, size: int) -> tuple[Image.Image, Image.Transpose | None]:
    """Decode RGB pixels, at least enough for a square of `size`; also return the turn that uprights them."""
    # A large JPEG is decoded at 1/2, 1/4 or 1/8 of its side, but never below twice the wanted size, so that
    # the antialiased reduction that follows still determines the result.
    image.draft(None, (2 * size, 2 * size))
    image.load()
    # Only after loading: a PNG may hold EXIF after its pixels, and Pillow turns TIFF images while it loads.
    turn = _UPRIGHT.get(_orientation(image))
    if image.format == "PNG" and containers.is_deep_rgb(data) and "transparency" in image.info:
        _make_colour_transparent(image, data)
    return _to_rgb(image), turn


def _square(image: Image.Image, turn: Image.Transpose | None, size: int) -> np.ndarray:
    """Crop the central square, scale it and turn it upright: uint8 `[size, size, 3]`."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # Cropped and scaled in one step, so that memory is bounded for any aspect ratio.
    box = (left, top, left + side, top + side)
    image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    # The crop is central and square, so turning the result equals turning the photograph.
    return np.array(image if turn is None else image.transpose(turn), dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    # If the EXIF block is damaged, the pixels are used as stored.
    with contextlib.suppress(Exception):
        # From EXIF alone, as browsers do: `getexif` would also use the orientation in XMP.
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        return int(exif.get(_ORIENTATION, 1))
    return 1


def _make_colour_transparent(image: Image.Image, data: bytes) -> None:
    """Add alpha for the transparent colour of 16-bit RGB: all 16 bits count, `image` has the upper 8."""
    key = np.array(image.info.pop("transparency"))
    with _open(data) as lower:
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        opaque = (np.asarray(image) != key >> 8).any(axis=-1) | (np.asarray(lower) != key & 255).any(axis=-1)
    image.putalpha(Image.fromarray(opaque).convert("L"))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _from_deep_grey(image).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        alpha = colours.getchannel("A")
        # Some writers leave a fourth byte zero that is not alpha; browsers treat such a BMP as opaque.
        if image.format in ("BMP", "TIFF") and alpha.getextrema() == (0, 0):
            return colours.convert("RGB")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(colours, mask=alpha)
        return canvas
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits, 255 v / 65535; Pillow itself would clip."""
    deep = np.asarray(image)
    grey = np.rint(deep.astype(np.float32) * (255 / 65535)).astype(np.uint8)
    if "transparency" in image.info:
        grey[deep == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split()) or type(error).__name__
