"""Containers of image files, read before anything is decoded: format, limits on parts, layouts.

The number of pixels bounds the cost of decoding, except for parts that the container repeats: JPEG scans,
chunks, segments, tags, strips and tiles. Each has a limit here, far above what encoders write. PNG files are
reduced to the chunks that determine their pixels. TIFF layouts that Pillow decodes wrongly are refused.
"""

import re
import struct
import zlib
from io import BytesIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

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

# (offset, bytes, name)
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    # Byte orders that contradict the bytes after them; Pillow reads such files all the same.
    (0, b"MM*\0", "TIFF"),
    (0, b"II\0*", "TIFF"),
    (0, b"GIF8", "GIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "ZIP"),
    (128, b"DICM", "DICOM"),
    (0, b"BM", "BMP"),
)
# Brands of ISO/IEC 23008-12 and of its profiles: pictures, sequences, MIAF with HEVC. AVIF comes first: its
# files also carry the brand mif1.
_BRANDS = {
    "AVIF": {b"avif", b"avis"},
    "HEIC": {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
    | {b"mif1", b"mif2", b"msf1", b"MiHE", b"MiHB", b"MiHA"},
}

_PNG_HEAD = 8  # bytes of a PNG before its first chunk
# Its optional chunks that are kept: transparency, orientation and animation frames. The pixels depend on none
# of the others: texts, profiles and densities, which may be long, compressed or damaged.
_HEEDED = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")

# Photometric interpretation (TIFF 6.0, tag 262) -> name, samples per colour, bits per sample.
_TIFF_COLOURS: dict[int, tuple[str, int, set[int]]] = {
    0: ("WhiteIsZero", 1, {1, 2, 4, 8}),
    1: ("BlackIsZero", 1, {1, 2, 4, 8, 16}),
    2: ("RGB", 3, {8, 16}),
    3: ("palette", 1, {1, 2, 4, 8}),
    5: ("CMYK", 4, {8, 16}),
    6: ("YCbCr", 3, {8}),
}
_JPEG = 7
# None, CCITT, LZW, JPEG, Deflate, PackBits, Deflate by its old number, LZMA, Zstandard.
_TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34925, 50000}


def signature(data: bytes) -> str:
    """Name the format of a file by its first bytes; "" if unknown."""
    if data[4:8] == b"ftyp":
        # The box holds the major brand, its version and the compatible brands.
        box = data[8 : min(int.from_bytes(data[:4]), 1024)]
        brands = {box[:4], *(box[start : start + 4] for start in range(8, len(box), 4))}
        return next((name for name, known in _BRANDS.items() if brands & known), "")
    return next((name for start, magic, name in _SIGNATURES if data[start : start + len(magic)] == magic), "")


def content(data: bytes) -> str:
    """Name the format, or "text", or "unknown"."""
    # Text has no NUL and decodes (a character may be cut at the end of the sample).
    sample = data[:512]
    text = b"\0" not in sample and "�" not in sample.decode(errors="replace")[:-1]
    return signature(data) or ("text" if text else "unknown")


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


def essential_png(data: bytes) -> bytes:
    """Return the PNG with only the chunks that determine its pixels; other chunks may be long or damaged.

    As in libpng, an ancillary chunk with a wrong checksum is skipped. Raises `TooManyParts`.
    """
    parts, place = [data[:_PNG_HEAD]], _PNG_HEAD
    for _ in range(MAX_READS):
        if place >= len(data):
            return b"".join(parts)
        end = place + 12 + int.from_bytes(data[place : place + 4])
        name, body = data[place + 4 : place + 8], data[place + 8 : end - 4]
        critical = name[:1].isupper()
        if critical or (name in _HEEDED and zlib.crc32(name + body).to_bytes(4) == data[end - 4 : end]):
            parts.append(_scaled_transparency(data, body) if name == b"tRNS" else data[place:end])
        place = end
    raise TooManyParts(f"more than {MAX_READS:,} parts")


def is_deep_rgb(data: bytes) -> bool:
    """Whether the header declares 16-bit RGB, of which Pillow keeps the upper 8 bits."""
    return data[24:26] == b"\x10\x02"


def _scaled_transparency(data: bytes, body: bytes) -> bytes:
    """The tRNS chunk, with grey of fewer bits scaled to 8: Pillow scales pixels before it compares."""
    bits, colour = data[24:26]
    if colour == 3:  # palette alphas
        changed = body
    elif len(body) != {0: 2, 2: 6}.get(colour):
        return b""
    else:
        peak = 2**bits - 1
        grey = (sample & peak for sample in struct.unpack(f">{len(body) // 2}H", body))
        changed = b"".join(struct.pack(">H", v * 255 // peak if bits < 8 else v) for v in grey)
    return (
        struct.pack(">I", len(changed)) + b"tRNS" + changed + struct.pack(">I", zlib.crc32(b"tRNS" + changed))
    )


def tiff_refusal(data: bytes) -> str:
    """Return a one-line reason why the pixels of a TIFF are not read; "" if they are."""
    file = Source(data)
    tags = ImageFileDirectory_v2(file.read(16 if 0x2B in data[2:4] else 8))
    file.seek(tags.next)
    tags.load(file)

    def values(tag: int, *default: int) -> tuple[int, ...]:
        found = tags.get(tag, default)
        # A damaged tag may hold texts and fractions, which match none of the values that are read.
        found = found if isinstance(found, tuple) else (found,)
        return tuple(value if isinstance(value, int) else -1 for value in found)

    photometric, samples, compression = values(262, -1)[0], values(277, 1)[0], values(259, 1)[0]
    bits, extra = values(258, 1)[:6], values(338)  # supported layouts have no more samples
    depth = "/".join(map(str, dict.fromkeys(bits)))
    if values(254, 0)[0] & 1:
        return "a TIFF whose first picture is a thumbnail, as in raw files; save the photograph by itself"
    if set(values(339, 1)) != {1} or max(bits) > 16:
        kinds = {1: "unsigned", 2: "signed", 3: "floating-point"}
        kind = kinds.get(values(339, 1)[0], "undefined")
        return f"{kind} pixels ({depth} bits), whose range is unknown; save it with 8 or 16 bits"
    name, colours, read = _TIFF_COLOURS.get(
        photometric, (f"PhotometricInterpretation={photometric}", 0, set())
    )
    # RGB and 8-bit grey may have extra samples: unspecified ones are skipped, and the first may be alpha.
    most = {1: int(8 in bits), 2: 3 if 8 in bits else 1}.get(photometric, 0)
    more = samples - colours
    wrong = {
        "no photometric interpretation": photometric == -1,
        f"{depth}-bit {name}": not set(bits) <= read or len(set(bits)) > 1,
        f"compression {compression}": compression not in _TIFF_COMPRESSIONS,
        "YCbCr outside JPEG": photometric == 6 and compression != _JPEG,
        f"{name} of {samples} samples": not 0 <= more <= most or any(extra[1:]),
        "grey multiplied by its alpha": photometric == 1 and extra == (1,),
        "samples in separate planes": values(284, 1) == (2,)
        and samples > 1
        and (photometric not in (2, 5) or set(bits) != {8} or more > 0),
        "bits in reverse order": values(266, 1) != (1,),
        "inks other than CMYK": values(332, 1) != (1,),
        "several slices": values(32997, 1) != (1,),
        "a colour map of 8 bits": photometric == 3 and max(values(320, 0)) < 256,
    }
    found = next((words for words, holds in wrong.items() if holds), "")
    return found and f"an unsupported TIFF layout ({found}); save it as 8-bit RGB"
