"""Figures of the decision's promise: promised against observed rates, and error against coverage, as PNG."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from mim_jax import canvas


def reliability_figure(rows: Sequence[Mapping[str, Any]], *, positive: str, notice: str = "") -> bytes:
    """Observed against promised rates: missed mpox with its interval, false alarms of each group of classes.

    Args:
      rows: as `reliability.reliability` gives them, one at least.
      positive: the name of the training class.
      notice: written above.
    """
    rates = [row["rate"] for row in rows]
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(3.6, notice)
        axes = figure.add_subplot(xlabel="promised rate", ylabel="observed rate")
        axes.plot([0, max(rates)], [0, max(rates)], color="#999999", linewidth=0.8)
        missed = [row["missed"] for row in rows]
        values = [each["value"] for each in missed]
        ends = [
            [each["value"] - each["low"] for each in missed],
            [each["high"] - each["value"] for each in missed],
        ]
        label = f"{canvas.drawable(positive, 18)} missed"
        axes.errorbar(rates, values, ends, label=label, lw=2, capsize=2, **_style(0))
        families = sorted({name for row in rows for name in row["false_alarms"]})
        for index, name in enumerate(families, start=1):
            pairs = [
                (row["rate"], row["false_alarms"][name]["value"])
                for row in rows
                if name in row["false_alarms"]
            ]
            label = f"alarms, {canvas.drawable(name, 18)}"
            axes.plot(*zip(*pairs, strict=True), label=label, linewidth=1.2, **_style(index))
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid()
        canvas.legend_above(figure, axes)
        return canvas.png(figure)


def coverage_figure(rows: Sequence[Mapping[str, Any]], *, positive: str, notice: str = "") -> bytes:
    """Error among the decided images against the share that is decided, both sides counting alike.

    Args: as `reliability_figure`.
    """
    sides = {"training": f"{canvas.drawable(positive, 18)} missed", "others": "false alarms"}
    shares = [coverage(row) for row in rows]
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(3.0, notice)
        axes = figure.add_subplot(
            xlabel="share decided upon", ylabel="error among the decided", xlim=(0, 1), ylim=(0, 1)
        )
        axes.axhline(0.5, color="#999999", linewidth=0.8)
        for index, (side, label) in enumerate(sides.items()):
            errors = [error_rate(row[side]) for row in rows]
            pairs = [pair for pair in zip(shares, errors, strict=True) if pair[1] is not None]
            if pairs:
                axes.plot(*zip(*pairs, strict=True), label=label, linewidth=1.4, **_style(index))
        axes.grid()
        canvas.legend_above(figure, axes)
        return canvas.png(figure)


def coverage(row: Mapping[str, Any]) -> float:
    """The share of images that is decided upon, mean of both sides, so that both weigh alike."""
    return sum(row[side]["decided"] / row[side]["images"] for side in ("training", "others")) / 2


def error_rate(side: Mapping[str, int]) -> float | None:
    """The share of wrong decisions among those made; None where none was."""
    return side["wrong"] / side["decided"] if side["decided"] else None


def _style(index: int) -> dict[str, Any]:
    return {
        "color": canvas.COLORS[index % 7],
        "linestyle": canvas.LINES[index % 4],
        "marker": canvas.MARKERS[index % 4],
        "markersize": 3,
    }
