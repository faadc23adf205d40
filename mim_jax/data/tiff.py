"""TIFF files: which pixel layouts are read. Pillow accepts others too, and decodes some of them wrongly."""

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mim_jax.data.container_limits import Source

# Photometric interpretation (TIFF 6.0, tag 262) -> name, samples per colour, bits per sample.
_COLOURS: dict[int, tuple[str, int, set[int]]] = {
    0: ("WhiteIsZero", 1, {1, 2, 4, 8}),
    1: ("BlackIsZero", 1, {1, 2, 4, 8, 16}),
    2: ("RGB", 3, {8, 16}),
    3: ("palette", 1, {1, 2, 4, 8}),
    5: ("CMYK", 4, {8, 16}),
    6: ("YCbCr", 3, {8}),
}
_JPEG = 7
# None, CCITT, LZW, JPEG, Deflate, PackBits, Deflate by its old number, LZMA, Zstandard.
_COMPRESSIONS = {1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34925, 50000}


def refusal(data: bytes) -> str:
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
    name, colours, read = _COLOURS.get(photometric, (f"PhotometricInterpretation={photometric}", 0, set()))
    # RGB and 8-bit grey may have extra samples: unspecified ones are skipped, and the first may be alpha.
    most = {1: int(8 in bits), 2: 3 if 8 in bits else 1}.get(photometric, 0)
    more = samples - colours
    wrong = {
        "no photometric interpretation": photometric == -1,
        f"{depth}-bit {name}": not set(bits) <= read or len(set(bits)) > 1,
        f"compression {compression}": compression not in _COMPRESSIONS,
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
