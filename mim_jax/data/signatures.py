"""File format detection by the first bytes, including formats that are refused."""

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
