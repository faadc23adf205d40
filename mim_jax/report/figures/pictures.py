"""Figure 5 of the paper: test images with their masked, inpainted and difference images, as PNG bytes.

Also test images with maps of where a frozen network finds them unlike the training class.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mim_jax.evaluate.panels import KINDS, Panels, UnlikeImages
from mim_jax.report.figures import canvas

DIFFERENCE_SCALE = 0.25  # absolute difference drawn in the brightest colour
# Image rows per panel figure, and the total of photograph pixels in all panel figures. A pixel takes up to
# three bytes, and base64 adds a third: with all other figures the page stays under 6 MB.
_PANEL_ROWS = 6
_PHOTOGRAPH_PIXELS = 900_000
_PAIRS = 5  # pairs of image and map in a row

# The stages of an image: title, colour map (None for photographs), value of its last colour. In both maps
# bright means unlike, as in the app, which draws similarities in cividis from 1 to 0.
_STAGES: tuple[tuple[str, str | None, float], ...] = (
    ("original", None, 1.0),
    ("masked", None, 1.0),
    ("inpainted", None, 1.0),
    ("difference", "magma", DIFFERENCE_SCALE),
    ("SSIM", "cividis_r", 1.0),
)
_TITLES = [title for title, _, _ in _STAGES]


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
    """Figure 5: original, masked, inpainted, difference, SSIM; only originals if nothing is inpainted.

    Each `cell` pixels wide, originals alone twice; captions: score, class and, if inpainted, fold and name.
    """
    words = [f"{panels.scores[row]:.4f}  {canvas.drawable(panels.classes[row], 20)}" for row in rows]
    if panels.inpainted is None:
        originals = [_stages(panels, row)[0] for row in rows]
        return _mosaic(_in_threes(originals), _in_threes(words), cell=2 * cell, notice=notice)
    heads = [f"{head}  fold {panels.folds[row]}  " for head, row in zip(words, rows, strict=True)]
    captions = [
        [head + canvas.drawable(panels.names[row], max(8, 78 - len(head)))]
        for head, row in zip(heads, rows, strict=True)
    ]
    return _mosaic([_stages(panels, row) for row in rows], captions, cell=cell, titles=_TITLES, notice=notice)


def strip_figure(panels: Panels, *, notice: str = "") -> bytes:
    """The first picture of a report: images with median scores, one of the training class and two of others.

    Each as original, masked, inpainted, difference; if nothing is inpainted, up to five originals per side.
    """
    sides = [np.flatnonzero((panels.kind == "typical") & (panels.positive == own)) for own in (True, False)]
    sides = [rows for rows in sides if len(rows)]
    cell = min(200, max(96, panels.images.shape[1]))
    if panels.inpainted is None:
        spread = [rows[np.linspace(0, len(rows) - 1, min(5, len(rows))).astype(int)] for rows in sides]
        grid = [[_stages(panels, row)[0] for row in rows] for rows in spread]
        captions = [[canvas.drawable(panels.classes[row], 15) for row in rows] for rows in spread]
        return _mosaic(grid, captions, cell=cell, notice=notice)
    first = {panels.classes[row]: row for rows in sides for row in reversed(rows)}  # of each class
    chosen = sorted(first.values(), key=lambda row: (not panels.positive[row], row))[:3]
    captions = [[canvas.drawable(panels.classes[row], 40)] for row in chosen]
    stages = [_stages(panels, row)[:4] for row in chosen]
    return _mosaic(stages, captions, cell=cell, titles=_TITLES[:4], notice=notice)


def _in_threes(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + 3] for start in range(0, len(items), 3)]


def _mosaic(
    grid: Sequence[Sequence[np.ndarray]],
    captions: Sequence[Sequence[str]],
    *,
    cell: int,
    titles: Sequence[str] = (),
    notice: str,
) -> bytes:
    """Draw pictures in rows, each `cell` pixels wide: photographs, or the stages in `titles`.

    A caption starts below its picture and may extend past it if it is the last in its row.
    """
    columns = max(map(len, grid))
    gap, text, top = 0.04, 0.21, 0.02 + (0.18 if notice else 0) + (0.18 if titles else 0)  # inches
    side = (canvas.WIDTH - gap * (columns - 1)) / columns
    dpi = max(100.0, cell / side)
    side = cell / dpi
    width = columns * side + (columns - 1) * gap
    height = top + len(grid) * (side + text)
    with matplotlib.rc_context(canvas.STYLE):
        figure = Figure(figsize=(width, height), dpi=dpi)
        axes = figure.add_axes((0, 0, 1, 1))  # one for all pictures, in inches: axes are slow to make
        axes.set_axis_off()
        figure.text(0, 1 - 0.13 / height, notice, fontsize=7.5, **canvas.NOTICE_STYLE)
        for column, title in enumerate(titles):
            left = (column * (side + gap) + side / 2) / width
            figure.text(left, 1 - (top - 0.05) / height, title, ha="center", fontsize=8)
        for line, (pictures, words) in enumerate(zip(grid, captions, strict=True)):
            bottom = height - top - line * (side + text) - side
            for column, picture in enumerate(pictures):
                left = column * (side + gap)
                _, colors, most = _STAGES[column if titles else 0]
                place = (left, left + side, bottom, bottom + side)
                axes.imshow(picture, cmap=colors, vmin=0, vmax=most, extent=place, aspect="auto")
                if column < len(words):
                    figure.text(left / width, (bottom - 0.14) / height, words[column], fontsize=7.5)
        axes.set(xlim=(0, width), ylim=(0, height))
        return canvas.png(figure)


def _stages(panels: Panels, row: int) -> tuple[np.ndarray, ...]:
    """Original, masked and inpainted `[S, S, 3]`, difference and SSIM `[S, S]`, floats; or (original,)."""
    image = panels.images[row]
    original = image / np.float32(255) if image.dtype == np.uint8 else np.clip(image, 0, 1)
    if panels.inpainted is None or panels.maps is None:
        return (original,)
    inpainted = np.clip(panels.inpainted[row], 0, 1)
    masked, (top, left) = original.copy(), panels.offset
    masked[top : top + panels.mask_size, left : left + panels.mask_size] = 1
    difference = np.mean(np.abs(original - inpainted), axis=-1)
    return original, masked, inpainted, difference, panels.maps[row]


def cell_side(panels: Panels) -> int:
    """Side in pixels of one drawn image, so that all of `panels` stay within the pixel limit."""
    # In a row the original counts in full, the masked and inpainted images less, the difference almost
    # nothing and the similarity map a third: about 2.9 images.
    count, size = max(1, len(panels.images)), panels.images.shape[1]
    return max(48, min(size, 200, math.isqrt(int(_PHOTOGRAPH_PIXELS / (2.9 * count)))))


def unlike_figure(found: UnlikeImages, rows: np.ndarray, *, notice: str = "") -> bytes:
    """Pairs of image and map: dark = like the training class, bright = unlike it."""
    lines = -(-len(rows) // _PAIRS)
    gap, text, top = 0.05, 0.3, 0.3 if notice else 0.06  # inches
    side = (canvas.WIDTH - gap * (2 * _PAIRS - 1)) / (2 * _PAIRS)
    width, height = canvas.WIDTH, top + lines * (side + text)
    with matplotlib.rc_context(canvas.STYLE):
        figure = Figure(figsize=(width, height), dpi=150)
        figure.text(0, 1 - 0.13 / height, notice, fontsize=7.5, **canvas.NOTICE_STYLE)
        for number, row in enumerate(rows):
            line, column = divmod(number, _PAIRS)
            bottom = height - top - line * (side + text) - side
            for place, (picture, colors) in enumerate(
                ((found.images[row], None), (found.maps[row], "magma"))
            ):
                left = (2 * column + place) * (side + gap)
                axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
                axes.imshow(picture, cmap=colors, vmin=0, vmax=None if colors is None else 1)
                axes.set_axis_off()
            words = f"{found.scores[row]:.2f}  {canvas.drawable(found.classes[row], 20)}"
            left = 2 * column * (side + gap) / width
            figure.text(left, (bottom - 0.14) / height, words, fontsize=7)
        return canvas.png(figure)
