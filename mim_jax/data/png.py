"""PNG files, reduced to the chunks that determine their pixels."""

import struct
import zlib

from mim_jax.data.container_limits import MAX_READS, TooManyParts

_HEAD = 8  # bytes before the first chunk
# Optional chunks that are kept: transparency, orientation and animation frames. The pixels depend on none of
# the others: texts, profiles and densities, which may be long, compressed or damaged.
_HEEDED = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")


def essential(data: bytes) -> bytes:
    """Return the PNG with only the chunks that determine its pixels; other chunks may be long or damaged.

    As in libpng, an ancillary chunk with a wrong checksum is skipped.

    Raises:
      TooManyParts: more chunks than any encoder writes.
    """
    parts, place = [data[:_HEAD]], _HEAD
    for _ in range(MAX_READS):
        if place >= len(data):
            return b"".join(parts)
        end = place + 12 + int.from_bytes(data[place : place + 4])
        name, body = data[place + 4 : place + 8], data[place + 8 : end - 4]
        critical = name[:1].isupper()
        if critical or (name in _HEEDED and zlib.crc32(name + body).to_bytes(4) == data[end - 4 : end]):
            parts.append(_scaled(data, body) if name == b"tRNS" else data[place:end])
        place = end
    raise TooManyParts(f"more than {MAX_READS:,} parts")


def is_deep_rgb(data: bytes) -> bool:
    """Whether the header declares 16-bit RGB, of which Pillow keeps the upper 8 bits."""
    return data[24:26] == b"\x10\x02"


def _scaled(data: bytes, body: bytes) -> bytes:
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
