"""Limits on the parts of an image file, checked before decoding: too many could stall a decoder.

The number of pixels bounds the cost of decoding, except for parts that the container repeats: JPEG scans,
chunks, segments, tags, strips and tiles. Each has a limit here, far above what encoders write.
"""

import re
import struct
from io import BytesIO

MAX_READS = 200_000  # reads of a file by its decoder: several per chunk, segment, tag, strip or run
MAX_SCANS = 40  # scans per JPEG; encoders write 1 to about 20, and each costs a pass over all pixels
MAX_BLOCKS = 64  # EXIF blocks per JPEG; encoders write 1, and one for each preview
MAX_VALUES = 2**18  # values of a numeric TIFF tag; one strip per row, or tiles of 16x16, stay below

# A marker that begins a segment or ends the image: no stuffed zero, no restart (ITU-T T.81, B.1.1.3).
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd8\x01])", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
_EXIF = b"Exif\0\0"  # Pillow concatenates these blocks one by one, in quadratic time
_STRIPS, _TILES = 273, 324  # tags with the offset of each strip or tile (TIFF 6.0)
_BYTES, _TEXT, _OPAQUE = 1, 2, 7  # tag types that decoders do not split into values


class TooManyParts(ValueError):
    """The file has more parts than any encoder writes."""


class Source(BytesIO):
    """In-memory file that raises `TooManyParts` after `MAX_READS` reads."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise TooManyParts(f"more than {MAX_READS:,} parts")
        return super().read(size)


def check_parts(data: bytes, format: str) -> None:
    """Raise `TooManyParts` for a "JPEG" or "TIFF" with too many parts; other formats pass."""
    if format == "JPEG":
        _check_jpeg(data)
    elif format == "TIFF":
        _check_tiff(data)


def _check_jpeg(data: bytes) -> None:
    # Counted without parsing: no marker or length that decoders read differently can hide a block.
    if data.count(_EXIF) > MAX_BLOCKS:
        raise TooManyParts(f"more than {MAX_BLOCKS} blocks of EXIF")
    scans, place = 0, 2
    for _ in range(MAX_READS):
        marker = _MARKER.search(data, place)
        if marker is None or marker[1][0] == _END:
            return
        scans += marker[1][0] == _SCAN
        if scans > MAX_SCANS:
            raise TooManyParts(f"more than {MAX_SCANS} scans")
        # The length includes its own two bytes.
        place = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2]))
    raise TooManyParts(f"more than {MAX_READS:,} parts")


def _check_tiff(data: bytes) -> None:
    """Check the first directory of a TIFF or BigTIFF; a truncated directory is left to the decoder."""
    order = "<" if data[:2] == b"II" else ">"
    big = 0x2B in data[2:4]
    try:
        (place,) = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)
        (tags,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
        place += 8 if big else 2
        for i in range(tags):
            if i > MAX_READS:
                raise TooManyParts(f"more than {MAX_READS:,} parts")
            tag, kind, count = struct.unpack_from(
                order + ("HHQ" if big else "HHL"), data, place + i * (20 if big else 12)
            )
            # A count beyond the file's size passes: the decoder skips such a tag.
            if MAX_VALUES < count <= len(data) and (
                kind not in (_BYTES, _TEXT, _OPAQUE) or tag in (_STRIPS, _TILES)
            ):
                raise TooManyParts(f"{count:,} values in tag {tag}; at most {MAX_VALUES:,} are allowed")
    except (struct.error, OverflowError):
        return
