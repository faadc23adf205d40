"""Test images with maps of where a frozen network finds them unlike the training class."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mim_jax.evaluate.panels import UnlikeImages
from mim_jax.report.figures import canvas

_COLUMNS = 5  # pairs of image and map in a row


def unlike_figure(found: UnlikeImages, rows: np.ndarray, *, notice: str = "") -> bytes:
    """Pairs of image and map: dark = like the training class, bright = unlike it."""
    lines = -(-len(rows) // _COLUMNS)
    gap, text, top = 0.05, 0.3, 0.3 if notice else 0.06  # inches
    side = (canvas.WIDTH - gap * (2 * _COLUMNS - 1)) / (2 * _COLUMNS)
    width, height = canvas.WIDTH, top + lines * (side + text)
    with matplotlib.rc_context(canvas.STYLE):
        figure = Figure(figsize=(width, height), dpi=150)
        figure.text(0, 1 - 0.13 / height, notice, fontsize=7.5, **canvas.NOTICE_STYLE)
        for number, row in enumerate(rows):
            line, column = divmod(number, _COLUMNS)
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
