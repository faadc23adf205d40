"""Limits on the parts of an image file, which could keep a decoder busy without end; checked before decoding.

The pixels of an image bound what decoding costs, except for what its container repeats: scans of a JPEG,
chunks, segments, tags, strips and tiles. Each has a bound here, far beyond what encoders write.
"""

import re
import struct
from io import BytesIO

MAX_READS = 200_000  # of a file by its decoder: several a chunk, segment, tag, strip or run
MAX_SCANS = 40  # of a JPEG; encoders write 1 to about 20, and each costs a pass over all pixels
MAX_BLOCKS = 64  # of EXIF in a JPEG; encoders write 1, and one for each preview
MAX_VALUES = 2**18  # of a TIFF tag of numbers; a strip a row, or tiles of 16x16, stay below

# Neither a stuffed zero nor a restart, but what begins a segment or ends the image (ITU-T T.81, B.1.1.3).
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd8\x01])", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
_EXIF = b"Exif\0\0"  # Pillow joins these blocks one after the other, in quadratic time
_STRIPS, _TILES = 273, 324  # tags with an offset for each (TIFF 6.0)
_BYTES, _TEXT, _OPAQUE = 1, 2, 7  # types of tags that are not taken apart


class TooManyParts(ValueError):
    """The file is cut into more parts than any encoder writes."""


class Source(BytesIO):
    """Bytes of a file, for at most `MAX_READS` reads; beyond them `TooManyParts`."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise TooManyParts(f"more than {MAX_READS:,} parts")
        return super().read(size)


def check_parts(data: bytes, format: str) -> None:
    """Raise `TooManyParts` for a "JPEG" or "TIFF" with too many of its parts; others pass."""
    if format == "JPEG":
        _check_jpeg(data)
    elif format == "TIFF":
        _check_tiff(data)


def _check_jpeg(data: bytes) -> None:
    # Counted, not parsed: no marker or length that decoders read differently can hide one.
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
        # The length counts its own two bytes.
        place = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2]))
    raise TooManyParts(f"more than {MAX_READS:,} parts")


def _check_tiff(data: bytes) -> None:
    """Check the first directory of a TIFF or BigTIFF; a directory that is cut off is left to the decoder."""
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
            # More than the file can hold are none: the decoder passes over such a tag.
            if MAX_VALUES < count <= len(data) and (
                kind not in (_BYTES, _TEXT, _OPAQUE) or tag in (_STRIPS, _TILES)
            ):
                raise TooManyParts(f"{count:,} values in its tag {tag}; at most {MAX_VALUES:,} are allowed")
    except (struct.error, OverflowError):
        return
