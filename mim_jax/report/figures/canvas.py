"""Canvas of every figure: size, style, colours, glyphs and PNG encoding.

Figures are about 4.6 inches wide, so that their text stays legible on a phone. Colours are those of
Okabe and Ito ("Color universal design", 2008), with line style and marker as a second cue. Figures are
created directly, never through pyplot: no global state changes, and the bytes depend only on the input.
"""

import io
from functools import cache
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from mim_jax.data.dataset import printable

WIDTH = 4.6  # inches
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "^")
NOTICE_STYLE: dict[str, Any] = {"color": "#A00000", "ha": "left"}
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.borderaxespad": 0.2,
    "text.parse_math": False,  # a file name may contain dollar signs
}


def series(index: int) -> dict[str, Any]:
    """Colour, line style and small marker of the series with that index."""
    return {
        "color": COLORS[index % 7],
        "linestyle": LINES[index % 4],
        "marker": MARKERS[index % 4],
        "markersize": 3,
    }


def blank(height: float, notice: str) -> Figure:
    """Make an empty figure `height` inches tall, plus room for the notice above."""
    figure = Figure(figsize=(WIDTH, height + (0.25 if notice else 0)), dpi=160, layout="constrained")
    if notice:
        figure.suptitle(notice, x=0.01, fontsize=8, **NOTICE_STYLE)
    return figure


def legend_above(axes: Any) -> None:
    """Put the legend in rows above the axes, not wider than the figure, unless it has a single entry."""
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        longest = max(map(len, labels))
        columns = 5 if longest <= 6 else 3 if longest <= 18 else 2
        anchor = {"loc": "lower right", "bbox_to_anchor": (1, 1.01)}
        legend = axes.legend(**anchor, ncols=columns, columnspacing=1, handlelength=1.6)
        if legend.get_window_extent().width > axes.figure.bbox.width:
            axes.legend(**anchor, ncols=1, handlelength=1.6)


def png(figure: Figure) -> bytes:
    """Encode the figure as PNG without date or software metadata."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def drawable(value: object, limit: int) -> str:
    """Shorten to `limit` characters by cutting the middle; characters missing from the font become "?"."""
    text = "".join(char if ord(char) in _glyphs() else "?" for char in printable(value))
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + "…" + text[len(text) - (limit - 1 - head) :]


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
