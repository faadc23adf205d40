"""The figures of a run as PNG bytes: pure functions of scores, histories and images.

Every figure is about 4.6 inches wide, so that its text can still be read on a phone. Colours are those of
Okabe and Ito ("Color universal design", 2008), told apart by line style or marker as well. Canvases are made
directly, never through pyplot, so that no global state is touched, and the bytes depend on the input alone.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from mim_jax.evaluation import roc

METRIC_NAMES = {"ssim_hbd": "SSIM+HBD", "ssim": "SSIM", "hbd": "HBD", "mae": "MAE", "mse": "MSE"}
METHOD_NAMES = {"mim": "MIM", "mean_fill": "mean-colour fill", "harmonic_fill": "harmonic fill"}
KINDS = ("typical", "best", "worst")
ROWS_A_FIGURE = 6  # image rows of one panel figure
DIFFERENCE_SCALE = 0.5  # absolute difference shown as the brightest colour

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "D", "^")
_WIDTH = 4.6  # inches
_NOTICE_COLOR = "#A00000"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "text.parse_math": False,  # a file name may hold dollar signs
}
# Pixels of photographs that all panel figures may hold together. One compresses to about 2.5 bytes, and base64
# adds a third: with the other figures the page stays under four megabytes.
_PHOTOGRAPH_PIXELS = 800_000


@dataclass(frozen=True, eq=False)
class Panels:
    """Test images with their inpaintings, chosen by the experiment.

    Attributes:
      images: uint8 or float in [0, 1], `[n, S, S, 3]`.
      inpainted: the composites, float in [0, 1], `[n, S, S, 3]`.
      offset: (row, column) of the hole's first pixel.
      mask_size: side of the hole in pixels.
      names: str `[n]`.
      classes: str `[n]`.
      scores: SSIM+HBD under the model of the fold, `[n]`.
      folds: int `[n]`, from 0.
      positive: bool `[n]`: is it of the training class?
      kind: str `[n]`: "typical", "best" (among the highest scores of its side) or "worst" (the lowest).
    """

    images: np.ndarray
    inpainted: np.ndarray
    offset: tuple[int, int]
    mask_size: int
    names: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    folds: np.ndarray
    positive: np.ndarray
    kind: np.ndarray

    def __post_init__(self) -> None:
        for field in fields(self):
            column = getattr(self, field.name)
            if field.name not in ("offset", "mask_size") and len(column) != len(self.images):
                raise ValueError(
                    f"{field.name} has {len(column)} entries for {len(self.images)} images: "
                    "one an image is needed"
                )
        for kind in self.kind:
            if kind not in KINDS:
                raise ValueError(f"unknown kind of panel {str(kind)!r}: use one of {', '.join(KINDS)}")


@dataclass(frozen=True, eq=False)
class Curve:
    """One line of a training figure; curves that share a label share its entry in the legend."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    style: int


def printable(value: object) -> str:
    """The text of `value` with line breaks, control and direction characters spelled out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in str(value)
    )


def metric_name(metric: str) -> str:
    """The metric as the paper writes it."""
    return METRIC_NAMES.get(metric, metric)


def method_name(method: str) -> str:
    """The method in words."""
    return METHOD_NAMES.get(method, method)


def roc_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], aurocs: Mapping[str, float], *, notice: str = ""
) -> bytes:
    """ROC curves (Figure 6): label -> (false positive rate, true positive rate), and label -> AUROC."""
    with matplotlib.rc_context(_STYLE):
        figure = _figure(4.3, notice)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        for index, (label, (false_rate, true_rate)) in enumerate(curves.items()):
            axes.plot(
                false_rate,
                true_rate,
                color=_COLORS[index % len(_COLORS)],
                linestyle=_LINES[index % len(_LINES)],
                linewidth=2.2 if index == 0 else 1.4,
                label=f"{_drawable(label, 24)}  {aurocs[label]:.4f}",
            )
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1.01),
            aspect="equal",
            xlabel="false positive rate (others called mpox-like)",
            ylabel="true positive rate (mpox found)",
        )
        axes.legend(loc="lower right", title="AUROC", alignment="left")
        return _png(figure)


def interval_figure(
    parts: Mapping[str, Mapping[str, Mapping[str, Any]]], *, xlabel: str, notice: str = ""
) -> bytes:
    """Dots with intervals: method -> part -> {"n", "mean", "low", "high"}, parts in the first method's order."""
    names = list(next(iter(parts.values())))
    spread = 0.26 if len(parts) > 1 else 0.0
    with matplotlib.rc_context(_STYLE):
        figure = _figure(1.3 + 0.14 * len(parts) * len(names) + 0.1 * len(names), notice)
        axes = figure.add_subplot()
        axes.axvline(0.5, color="#999999", linewidth=0.8)
        for index, (method, values) in enumerate(parts.items()):
            shown = [name for name in names if name in values]
            rows = np.array([names.index(name) for name in shown]) + spread * (index - (len(parts) - 1) / 2)
            mean, low, high = (
                np.array([values[name][key] for name in shown]) for key in ("mean", "low", "high")
            )
            color = _COLORS[index % len(_COLORS)]
            axes.hlines(rows, low, high, color=color, linewidth=2.2 if index == 0 else 1.2)
            axes.plot(
                mean,
                rows,
                _MARKERS[index % len(_MARKERS)],
                color=color,
                markerfacecolor=color if index == 0 else "white",
                markersize=5.5 if index == 0 else 4.5,
                label=_drawable(method_name(method), 24),
            )
        labels = [f"{_drawable(name, 22)} ({parts[next(iter(parts))][name]['n']})" for name in names]
        axes.set_yticks(range(len(names)), labels)
        axes.set(xlabel=xlabel, ylim=(len(names) - 0.4, -0.6))
        axes.grid(axis="x", color="#E4E4E4", linewidth=0.6)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=3, columnspacing=1.2, handlelength=1.2)
        return _png(figure)


def histogram_figure(
    series: Mapping[str, np.ndarray],
    *,
    xlabel: str,
    thresholds: Sequence[float] = (),
    pooled: float | None = None,
    notice: str = "",
) -> bytes:
    """One histogram a row on a common axis, each in per cent of its own images.

    Args:
      series: label -> scores; the first is the training class.
      xlabel: title of the score axis.
      thresholds: one a fold, drawn thin.
      pooled: the threshold over all folds, drawn dashed and labelled.
      notice: written above the figure.
    """
    marks = [*thresholds, *([] if pooled is None else [pooled])]
    every = np.concatenate([*series.values(), np.array(marks, dtype=np.float64)])
    edges = np.histogram_bin_edges(every, bins=40)
    with matplotlib.rc_context(_STYLE):
        figure = _figure(0.75 + 0.85 * len(series), notice)
        grid = figure.subplots(len(series), 1, sharex=True, squeeze=False)
        for index, (axes, (label, scores)) in enumerate(zip(grid[:, 0], series.items(), strict=True)):
            heights = 100 * np.histogram(scores, edges)[0] / max(1, len(scores))
            axes.stairs(heights, edges, fill=True, color=_COLORS[0] if index == 0 else "#8A8A8A")
            for threshold in thresholds:
                axes.axvline(threshold, color="#444444", linewidth=0.5, alpha=0.6)
            if pooled is not None:
                axes.axvline(pooled, color="black", linewidth=1.2, linestyle="--")
            axes.set_title(f"{_drawable(label, 40)}, n = {len(scores)}", loc="left", pad=3)
        if pooled is not None:
            grid[0, 0].set_title(f"threshold {pooled:.4f} (dashed)", loc="right", fontsize=8, pad=3)
        grid[-1, 0].set_xlabel(xlabel)
        figure.supylabel("images, % of the row", fontsize=9)
        return _png(figure)


def curve_figure(curves: Sequence[Curve], *, ylabel: str, notice: str = "") -> bytes:
    """Training curves over epochs, the folds overlaid."""
    with matplotlib.rc_context(_STYLE):
        figure = _figure(2.9, notice)
        axes = figure.add_subplot()
        seen: set[str] = set()
        for curve in curves:
            axes.plot(
                curve.steps,
                curve.values,
                color=_COLORS[curve.style % len(_COLORS)],
                linewidth=1.1,
                marker="." if len(curve.steps) < 3 else "",
                label="_" if curve.label in seen else curve.label,
            )
            seen.add(curve.label)
        axes.set(xlabel="epoch", ylabel=ylabel)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#E4E4E4", linewidth=0.6)
        if len(seen) > 1:
            figure.legend(loc="outside upper left", ncols=5, columnspacing=1.0, handlelength=1.2)
        return _png(figure)


def panel_cell(count: int, size: int) -> int:
    """Side in pixels of one drawn image when `count` images of side `size` are shown in one report."""
    # Of a row's four images the original counts whole, the masked and the inpainted one less, the difference
    # hardly at all: about 2.6 images.
    return max(48, min(size, 200, math.isqrt(int(_PHOTOGRAPH_PIXELS / (2.6 * max(1, count))))))


def panel_figure(panels: Panels, rows: Sequence[int], *, cell: int, notice: str = "") -> bytes:
    """Figure 5: original, masked, inpainted and absolute difference, one image a row.

    Args:
      panels: the images.
      rows: which of them.
      cell: side in pixels of one drawn image.
      notice: written above the figure.
    """
    dpi = max(100.0, cell / 1.12)
    gap, text, top = 0.04, 0.21, 0.2 + (0.2 if notice else 0)  # inches
    side = cell / dpi
    width, height = 4 * side + 3 * gap, top + len(rows) * (side + text)
    letters = int(width * 72 / (7.5 * 0.62))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=dpi)
        if notice:
            figure.text(0, 1 - 0.13 / height, notice, color=_NOTICE_COLOR, fontsize=7.5)
        for column, title in enumerate(("original", "masked", "inpainted", "difference")):
            left = (column * (side + gap) + side / 2) / width
            figure.text(left, 1 - (top - 0.05) / height, title, ha="center", fontsize=8)
        for line, row in enumerate(rows):
            bottom = height - top - line * (side + text) - side
            for column, picture in enumerate(_stages(panels, row)):
                axes = figure.add_axes(
                    (column * (side + gap) / width, bottom / height, side / width, side / height)
                )
                axes.imshow(picture, cmap="magma", vmin=0, vmax=DIFFERENCE_SCALE)
                axes.set_axis_off()
            head = f"{panels.scores[row]:.4f}  {_drawable(panels.classes[row], 20)}  fold {panels.folds[row] + 1}  "
            name = _drawable(panels.names[row], max(8, letters - len(head)))
            figure.text(0, (bottom - 0.14) / height, head + name, fontsize=7.5)
        return _png(figure)


def roc_curves(
    scores: Iterable[Mapping[str, Any]], *, fold: int, metric: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """ROC curves of one fold on its augmented test set: method -> (false, true positive rate)."""
    rows: dict[str, list[tuple[float, bool]]] = {}
    for row in scores:
        if row["fold"] == fold and row["augmented"]:
            rows.setdefault(row["method"], []).append((row[metric], row["positive"]))
    return {
        method: roc(*(np.array(column) for column in zip(*pairs, strict=True)))
        for method, pairs in rows.items()
    }


def _stages(panels: Panels, row: int) -> tuple[np.ndarray, ...]:
    """Original, masked, inpainted `[S, S, 3]`, and absolute difference `[S, S]`, floats in [0, 1]."""
    image = panels.images[row]
    original = image / np.float32(255) if image.dtype == np.uint8 else np.clip(image, 0, 1)
    inpainted = np.clip(panels.inpainted[row], 0, 1)
    masked = original.copy()
    first, left = panels.offset
    masked[first : first + panels.mask_size, left : left + panels.mask_size] = 1
    return original, masked, inpainted, np.mean(np.abs(original - inpainted), axis=-1)


def _figure(height: float, notice: str) -> Figure:
    figure = Figure(figsize=(_WIDTH, height + (0.25 if notice else 0)), dpi=180, layout="constrained")
    if notice:
        figure.suptitle(notice, x=0.01, ha="left", color=_NOTICE_COLOR, fontsize=8)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _drawable(value: object, limit: int) -> str:
    """At most `limit` characters, the middle left out; those that the font lacks are drawn as "?"."""
    text = "".join(char if ord(char) in _glyphs() else "?" for char in printable(value))
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + "…" + text[len(text) - (limit - 1 - head) :]


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
