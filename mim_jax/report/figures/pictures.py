"""Figure 5 of the paper: test images with their masked, inpainted and difference images, as PNG bytes."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mim_jax.evaluate.panels import KINDS, Panels
from mim_jax.report.figures import canvas

DIFFERENCE_SCALE = 0.25  # absolute difference that is drawn as the brightest colour
# Image rows of one panel figure, and the pixels of photographs that all of them may hold together. A pixel
# takes up to three bytes, and base64 adds a third: with all other figures the page stays under 6 MB.
_PANEL_ROWS = 6
_PHOTOGRAPH_PIXELS = 900_000


# The columns of a panel figure: title, colour map (None for photographs), value of its brightest colour.
_COLUMNS: tuple[tuple[str, str | None, float], ...] = (
    ("original", None, 1.0),
    ("masked", None, 1.0),
    ("inpainted", None, 1.0),
    ("difference", "magma", DIFFERENCE_SCALE),
    ("similarity", "viridis", 1.0),
)


def arrange(panels: Panels) -> dict[str, np.ndarray]:
    """Assign panels to figures, name -> rows; panels picked by score are ordered by score."""
    chosen = {}
    for kind in KINDS:
        for positive, side in ((True, "training"), (False, "others")):
            rows = np.flatnonzero((panels.kind == kind) & (panels.positive == positive))
            if kind != "typical":
                rows = rows[np.argsort(panels.scores[rows] * (-1 if kind == "best" else 1), kind="stable")]
            for part, start in enumerate(range(0, len(rows), _PANEL_ROWS)):
                chosen[f"panels_{side}_{kind}_{part + 1}"] = rows[start : start + _PANEL_ROWS]
    return chosen


def panel_figure(panels: Panels, rows: Sequence[int] | np.ndarray, *, cell: int, notice: str = "") -> bytes:
    """Figure 5: original, masked, inpainted, difference, similarity; each drawn `cell` pixels wide."""
    gap, text, top = 0.04, 0.21, 0.4 if notice else 0.2  # inches
    side = (canvas.WIDTH - gap * (len(_COLUMNS) - 1)) / len(_COLUMNS)
    dpi = max(100.0, cell / side)
    side = cell / dpi
    width = len(_COLUMNS) * side + (len(_COLUMNS) - 1) * gap
    height = top + len(rows) * (side + text)
    letters = int(width * 72 / (7.5 * 0.56))
    with matplotlib.rc_context(canvas.STYLE):
        figure = Figure(figsize=(width, height), dpi=dpi)
        figure.text(0, 1 - 0.13 / height, notice, fontsize=7.5, **canvas.NOTICE_STYLE)
        for column, (title, _, _) in enumerate(_COLUMNS):
            left = (column * (side + gap) + side / 2) / width
            figure.text(left, 1 - (top - 0.05) / height, title, ha="center", fontsize=8)
        for line, row in enumerate(rows):
            bottom = height - top - line * (side + text) - side
            for column, (picture, (_, colors, most)) in enumerate(
                zip(_stages(panels, row), _COLUMNS, strict=True)
            ):
                left = column * (side + gap)
                axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
                axes.imshow(picture, cmap=colors, vmin=0, vmax=most)
                axes.set_axis_off()
            fold = panels.folds[row] + 1
            words = f"{panels.scores[row]:.4f}  {canvas.drawable(panels.classes[row], 20)}  fold {fold}  "
            words += canvas.drawable(panels.names[row], max(8, letters - len(words)))
            figure.text(0, (bottom - 0.14) / height, words, fontsize=7.5)
        return canvas.png(figure)


def _stages(panels: Panels, row: int) -> tuple[np.ndarray, ...]:
    """Original, masked and inpainted `[S, S, 3]`, difference and similarity `[S, S]`, floats."""
    image = panels.images[row]
    original = image / np.float32(255) if image.dtype == np.uint8 else np.clip(image, 0, 1)
    inpainted = np.clip(panels.inpainted[row], 0, 1)
    masked, (top, left) = original.copy(), panels.offset
    masked[top : top + panels.mask_size, left : left + panels.mask_size] = 1
    difference = np.mean(np.abs(original - inpainted), axis=-1)
    return original, masked, inpainted, difference, panels.maps[row]


def cell_side(panels: Panels) -> int:
    """Side in pixels of one drawn image where all of `panels` are drawn."""
    # Of the images of a row the original counts whole, the masked and the inpainted one less, the difference
    # hardly at all, the map of similarities as a third: about 2.9 images.
    count, size = max(1, len(panels.images)), panels.images.shape[1]
    return max(48, min(size, 200, math.isqrt(int(_PHOTOGRAPH_PIXELS / (2.9 * count)))))
