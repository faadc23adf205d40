"""The app's icon, drawn: a square of skin with its centre hidden."""

import io

from PIL import Image, ImageDraw

SIZES = (192, 512)


def icon(size: int) -> bytes:
    """A PNG, `size` pixels a side, drawn inside the four fifths that every phone shows ("maskable")."""
    scale = 4  # drawn larger and reduced, for smooth edges
    side = size * scale
    image = Image.new("RGB", (side, side), "#1d4e5f")
    draw = ImageDraw.Draw(image)

    def box(low: float, high: float, radius: float, fill: str) -> None:
        draw.rounded_rectangle((low * side, low * side, high * side, high * side), radius * side, fill=fill)

    box(0.22, 0.78, 0.08, "#e8b996")
    for row, column, radius in (
        (0.31, 0.34, 0.035),
        (0.68, 0.33, 0.03),
        (0.33, 0.69, 0.025),
        (0.7, 0.68, 0.04),
    ):
        place = (
            (column - radius) * side,
            (row - radius) * side,
            (column + radius) * side,
            (row + radius) * side,
        )
        draw.ellipse(place, fill="#b5533c")
    box(0.39, 0.61, 0.02, "#ffffff")
    buffer = io.BytesIO()
    image.resize((size, size), Image.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
