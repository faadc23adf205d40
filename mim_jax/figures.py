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
from matplotlib.ticker import MaxNLocator

from mim_jax.evaluation import roc

REFERENCE = "mim"
METRIC_NAMES = {"ssim_hbd": "SSIM+HBD", "ssim": "SSIM", "hbd": "HBD", "mae": "MAE", "mse": "MSE"}
METHOD_NAMES = {
    "mim": "MIM",
    "mean_fill": "mean-colour fill",
    "harmonic_fill": "harmonic fill",
    "biharmonic_fill": "biharmonic fill",
    "telea_fill": "Telea fill",
}
KINDS = ("typical", "best", "worst")
DIFFERENCE_SCALE = 0.25  # absolute difference that is drawn as the brightest colour
TRAINING_CURVES = {  # figure -> (axis title, {column of the history: name in words})
    "loss_pixel": ("pixel loss (mean absolute error)", {"loss_pixel": "pixel loss"}),
    "loss_adversarial": ("adversarial loss of the generator", {"loss_adversarial": "adversarial loss"}),
    "loss_discriminator": ("loss of the discriminator", {"loss_discriminator": "discriminator loss"}),
    "discriminator": (
        "mean output of the discriminator",
        {"d_real": "D(real), target 1", "d_fake": "D(fake), target 0"},
    ),
    "learning_rate": ("learning rate", {"learning_rate": "learning rate"}),
}

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "D", "^")
_NOTICE_STYLE: dict[str, Any] = {"color": "#A00000", "ha": "left"}
_STYLE: Any = {
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
    "text.parse_math": False,  # a file name may hold dollar signs
}
# Image rows of one panel figure, and the pixels of photographs that all of them may hold together. A pixel
# takes up to three bytes, and base64 adds a third: with all other figures the page stays under 4 MB.
_PANEL_ROWS = 6
_PHOTOGRAPH_PIXELS = 900_000


@dataclass(frozen=True, eq=False)
class Panels:
    """Test images with their inpaintings, chosen by the experiment.

    Attributes:
      images: uint8, or float in [0, 1], `[n, S, S, 3]`.
      inpainted: the composites, float in [0, 1], `[n, S, S, 3]`.
      offset: (row, column) of the hole's first pixel.
      mask_size: side of the hole in pixels.
      names: str `[n]`.
      classes: str `[n]`.
      scores: the deciding metric under the model of the fold, `[n]`.
      folds: int `[n]`, from 0.
      positive: bool `[n]`: is it of the training class?
      kind: str `[n]`: "typical" (median score), "best" (highest scores of its side) or "worst" (lowest).
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
        for name in {field.name for field in fields(self)} - {"offset", "mask_size"}:
            found = len(getattr(self, name))
            if found != len(self.images):
                raise ValueError(
                    f"{name} has {found} entries for {len(self.images)} images: one each is needed"
                )
        unknown = sorted(set(map(str, self.kind)) - set(KINDS))
        if unknown:
            raise ValueError(f"unknown kind of panel {unknown[0]!r}: use one of {', '.join(KINDS)}")

    def figures(self) -> dict[str, np.ndarray]:
        """Figure name -> the rows that it shows; what was picked by score is ordered by score."""
        chosen = {}
        for kind in KINDS:
            for positive, side in ((True, "training"), (False, "others")):
                rows = np.flatnonzero((self.kind == kind) & (self.positive == positive))
                if kind != "typical":
                    rows = rows[np.argsort(self.scores[rows] * (-1 if kind == "best" else 1), kind="stable")]
                for part, start in enumerate(range(0, len(rows), _PANEL_ROWS)):
                    chosen[f"panels_{side}_{kind}_{part + 1}"] = rows[start : start + _PANEL_ROWS]
        return chosen


def draw(
    results: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    panels: Panels,
    *,
    notice: str = "",
) -> dict[str, bytes]:
    """Every figure of the report that there are data for: name -> PNG, `notice` written above each."""
    metric = results["decision"]["metric"]
    pngs = {}
    for end, place in extremes(results).items():
        pairs: dict[str, list[tuple[float, bool]]] = {}
        for row in scores:
            if row["fold"] == results["splits"][place]["fold"] and row["augmented"]:
                pairs.setdefault(row["method"], []).append((row[metric], row["positive"]))
        curves = {method: roc(*map(np.array, zip(*pair, strict=True))) for method, pair in pairs.items()}
        aurocs = {
            method: values[metric]["folds"][place]["value"]
            for method, values in results["auroc"]["augmented"].items()
        }
        if curves:
            pngs[f"roc_{end}"] = roc_figure(curves, aurocs, notice=notice)
    for part in ("group", "class"):
        if results[f"per_{part}"].get(REFERENCE):
            pngs[f"per_{part}"] = interval_figure(
                ranked(results[f"per_{part}"]),
                xlabel=f"AUROC against one {part}, {metric_name(metric)}",
                notice=notice,
            )
    series = _scores_by_group(results, scores)
    if series:
        thresholds = [value for value in results["decision"]["thresholds"] if value is not None]
        pngs["histograms"] = histogram_figure(
            series,
            thresholds,
            results["decision"]["pooled"],
            xlabel=f"{metric_name(metric)} similarity (high = mpox-like)",
            notice=notice,
        )
    cell = _panel_cell(len(panels.images), panels.images.shape[1])
    for name, rows in panels.figures().items():
        pngs[name] = panel_figure(panels, rows, cell=cell, notice=notice)
    epochs = [row for row in history if row.get("event") == "epoch"]
    if epochs:
        for name, (ylabel, columns) in TRAINING_CURVES.items():
            pngs[name] = curve_figure(epochs, columns, ylabel=ylabel, notice=notice)
    return pngs


def extremes(results: Mapping[str, Any]) -> dict[str, int]:
    """Places of the "best" and the "worst" fold by the network's AUROC; one alone where they are the same."""
    summary = results["auroc"]["augmented"][REFERENCE][results["decision"]["metric"]]
    values = [fold["value"] for fold in summary["folds"]]
    best, worst = values.index(max(values)), values.index(min(values))
    return {"best": best, "worst": worst} if best != worst else {"best": best}


def ranked(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The network first among the methods, and the parts by its mean AUROC, highest first."""
    order = sorted(parts[REFERENCE], key=lambda name: -parts[REFERENCE][name]["mean"])
    methods = [REFERENCE, *(method for method in parts if method != REFERENCE)]
    return {method: {name: parts[method][name] for name in order} for method in methods}


def groups_of_classes(results: Mapping[str, Any]) -> dict[str, str]:
    """Class -> group, for the classes other than the training class."""
    groups, positive = results["data"]["class_groups"], results["data"]["positive"]
    return {name: group for group, names in groups.items() for name in names if name != positive}


def metric_name(metric: str) -> str:
    """The metric as the paper writes it."""
    return METRIC_NAMES.get(metric, metric)


def printable(value: object) -> str:
    """The text of `value` with line breaks, control and direction characters spelled out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(value)
    )


def roc_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], aurocs: Mapping[str, float], *, notice: str = ""
) -> bytes:
    """ROC curves (Figure 6): method -> (false, true positive rate), and method -> AUROC."""
    with matplotlib.rc_context(_STYLE):
        figure = _figure(4.3, notice)
        axes = figure.add_subplot(aspect="equal", xlim=(0, 1), ylim=(0, 1.01))
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        for index, (method, (false_rate, true_rate)) in enumerate(curves.items()):
            name = METHOD_NAMES.get(method, method)
            style: dict[str, Any] = {"color": _COLORS[index % 7], "linestyle": _LINES[index % 4]}
            label = f"{_drawable(name, 24)}  {aurocs[method]:.4f}"
            axes.plot(false_rate, true_rate, **style, linewidth=1.4 if index else 2.2, label=label)
        axes.set_xlabel("false positive rate (others called mpox-like)")
        axes.set_ylabel("true positive rate (mpox found)")
        axes.legend(loc="lower right", title="AUROC", alignment="left")
        return _png(figure)


def interval_figure(
    parts: Mapping[str, Mapping[str, Mapping[str, Any]]], *, xlabel: str, notice: str = ""
) -> bytes:
    """Dots with intervals: method -> part -> {"n", "mean", "low", "high"}, the same parts for each method."""
    first = next(iter(parts.values()))
    with matplotlib.rc_context(_STYLE):
        figure = _figure(1.1 + (0.1 + 0.13 * len(parts)) * len(first), notice)
        axes = figure.add_subplot(xlabel=xlabel, ylim=(len(first) - 0.4, -0.6))
        axes.axvline(0.5, color="#999999", linewidth=0.8)
        for index, (method, values) in enumerate(parts.items()):
            rows = np.arange(len(first)) + 0.26 * (index - (len(parts) - 1) / 2)
            mean, low, high = ([value[key] for value in values.values()] for key in ("mean", "low", "high"))
            color = _COLORS[index % 7]
            axes.hlines(rows, low, high, color=color, linewidth=1.2 if index else 2.2)
            label = _drawable(METHOD_NAMES.get(method, method), 24)
            style: dict[str, Any] = {"color": color, "markerfacecolor": "white" if index else color}
            axes.plot(mean, rows, _MARKERS[index % 4], **style, markersize=5, label=label)
        axes.set_yticks(
            range(len(first)), [f"{_drawable(name, 22)} ({value['n']})" for name, value in first.items()]
        )
        axes.grid(axis="x")
        _legend_above(figure, axes)
        return _png(figure)


def histogram_figure(
    series: Mapping[str, np.ndarray],
    thresholds: Sequence[float],
    pooled: float | None,
    *,
    xlabel: str,
    notice: str = "",
) -> bytes:
    """Score histograms, one row for each of `series` (the training class first), with the thresholds.

    The folds' thresholds are thin lines, the pooled one is dashed.
    """
    pooled_line = [] if pooled is None else [pooled]
    edges = np.histogram_bin_edges(np.concatenate([*series.values(), thresholds, pooled_line]), bins=40)
    with matplotlib.rc_context(_STYLE):
        figure = _figure(0.75 + 0.85 * len(series), notice)
        rows = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
        for index, (axes, (label, scores)) in enumerate(zip(rows, series.items(), strict=True)):
            shares = 100 * np.histogram(scores, edges)[0] / len(scores)
            axes.stairs(shares, edges, fill=True, color="#8A8A8A" if index else _COLORS[0])
            for threshold in thresholds:
                axes.axvline(threshold, color="#444444", linewidth=0.5)
            for threshold in pooled_line:
                axes.axvline(threshold, color="black", linewidth=1.2, linestyle="--")
            axes.set_title(f"{_drawable(label, 30)}, n = {len(scores)}", loc="left", pad=3)
        if pooled is not None:
            rows[0].set_title(f"pooled threshold {pooled:.4f}", loc="right", fontsize=8, pad=3)
        rows[-1].set_xlabel(xlabel)
        figure.supylabel("images, % of the row", fontsize=9)
        return _png(figure)


def curve_figure(
    epochs: Iterable[Mapping[str, Any]], columns: Mapping[str, str], *, ylabel: str, notice: str = ""
) -> bytes:
    """Curves over the epochs, one a fold and column; colours tell columns, or the folds of a single one."""
    unique = {(row["fold"], row["epoch"]): row for row in epochs}  # of a repeated epoch the last counts
    with matplotlib.rc_context(_STYLE):
        figure = _figure(2.9, notice)
        axes = figure.add_subplot(xlabel="epoch", ylabel=ylabel)
        folds = sorted({fold for fold, _ in unique})
        for index, (column, words) in enumerate(columns.items()):
            for place, fold in enumerate(folds):
                rows = [unique[key] for key in sorted(unique) if key[0] == fold]
                values = [math.nan if row[column] is None else row[column] for row in rows]
                color = _COLORS[(index if len(columns) > 1 else place) % 7]
                label = (words if place == 0 else "_") if len(columns) > 1 else f"fold {fold + 1}"
                marker = "." if len(rows) == 1 else ""
                axes.plot(
                    [row["epoch"] for row in rows], values, color=color, lw=1.1, marker=marker, label=label
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
        _legend_above(figure, axes)
        return _png(figure)


def panel_figure(panels: Panels, rows: Sequence[int] | np.ndarray, *, cell: int, notice: str = "") -> bytes:
    """Figure 5: original, masked, inpainted, absolute difference; each drawn `cell` pixels wide."""
    dpi = max(100.0, cell / 1.12)
    side, gap, text, top = cell / dpi, 0.04, 0.21, 0.4 if notice else 0.2  # inches
    width, height = 4 * side + 3 * gap, top + len(rows) * (side + text)
    letters = int(width * 72 / (7.5 * 0.56))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=dpi)
        figure.text(0, 1 - 0.13 / height, notice, fontsize=7.5, **_NOTICE_STYLE)
        for column, title in enumerate(("original", "masked", "inpainted", "difference")):
            left = (column * (side + gap) + side / 2) / width
            figure.text(left, 1 - (top - 0.05) / height, title, ha="center", fontsize=8)
        for line, row in enumerate(rows):
            bottom = height - top - line * (side + text) - side
            for column, picture in enumerate(_stages(panels, row)):
                left = column * (side + gap)
                axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
                axes.imshow(picture, cmap="magma", vmin=0, vmax=DIFFERENCE_SCALE)
                axes.set_axis_off()
            fold = panels.folds[row] + 1
            words = f"{panels.scores[row]:.4f}  {_drawable(panels.classes[row], 20)}  fold {fold}  "
            words += _drawable(panels.names[row], max(8, letters - len(words)))
            figure.text(0, (bottom - 0.14) / height, words, fontsize=7.5)
        return _png(figure)


def _stages(panels: Panels, row: int) -> tuple[np.ndarray, ...]:
    """Original, masked and inpainted `[S, S, 3]`, absolute difference `[S, S]`, floats in [0, 1]."""
    image = panels.images[row]
    original = image / np.float32(255) if image.dtype == np.uint8 else np.clip(image, 0, 1)
    inpainted = np.clip(panels.inpainted[row], 0, 1)
    masked, (top, left) = original.copy(), panels.offset
    masked[top : top + panels.mask_size, left : left + panels.mask_size] = 1
    return original, masked, inpainted, np.mean(np.abs(original - inpainted), axis=-1)


def _panel_cell(count: int, size: int) -> int:
    """Side in pixels of one drawn image where `count` images of side `size` are shown."""
    # Of the four images of a row the original counts whole, the masked and the inpainted one less, and the
    # difference hardly at all: about 2.6 images.
    return max(48, min(size, 200, math.isqrt(int(_PHOTOGRAPH_PIXELS / (2.6 * max(1, count))))))


def _scores_by_group(
    results: Mapping[str, Any], scores: Iterable[Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """The network's scores of the plain test images: the training class, then the groups of the others."""
    groups, positive, rest = groups_of_classes(results), results["data"]["positive"], "other classes"
    metric = results["decision"]["metric"]
    series: dict[str, list[float]] = {name: [] for name in (positive, *groups.values(), rest)}
    for row in scores:
        if row["method"] == REFERENCE and row["plain"]:
            series[positive if row["positive"] else groups.get(row["class"], rest)].append(row[metric])
    return {name: np.array(values) for name, values in series.items() if values}


def _figure(height: float, notice: str) -> Figure:
    figure = Figure(figsize=(4.6, height + (0.25 if notice else 0)), dpi=160, layout="constrained")
    if notice:
        figure.suptitle(notice, x=0.01, fontsize=8, **_NOTICE_STYLE)
    return figure


def _legend_above(figure: Figure, axes: Any) -> None:
    """Entries in rows above the axes, where a single one says nothing and is left out."""
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        anchor = {"loc": "lower right", "bbox_to_anchor": (1, 1.01)}
        axes.legend(**anchor, ncols=3 if max(map(len, labels)) > 6 else 5, columnspacing=1, handlelength=1.2)


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
