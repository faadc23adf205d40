"""PNG files, cut down to what decides their pixels."""

import struct
import zlib

from mim_jax.data.container_limits import MAX_READS, TooManyParts

_HEAD = 8  # bytes in front of the first chunk
# Transparency, orientation and the frames of an animation. Pixels depend on no other chunk that a decoder may
# pass over: texts, profiles and densities, which may be long, packed, or damaged.
_HEEDED = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")


def essential(data: bytes) -> bytes:
    """Return the PNG with the chunks that decide its pixels; of the others, damage and length do not matter.

    As in libpng, an ancillary chunk whose checksum is wrong is passed over.

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
    """Whether the header says 16 bits of RGB, of which Pillow keeps the upper 8."""
    return data[24:26] == b"\x10\x02"


def _scaled(data: bytes, body: bytes) -> bytes:
    """The chunk tRNS, its grey in 8 bits where it has fewer: Pillow scales pixels before it compares."""
    bits, colour = data[24:26]
    if colour == 3:  # alphas of a palette
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
