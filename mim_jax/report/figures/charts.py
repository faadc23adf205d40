"""Charts of the report as PNG bytes: curves, dots with intervals, histograms, rates and sweeps.

Every function is pure: numbers in, bytes out. `notice` is text drawn above the chart.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from mim_jax.decide.decision import SCORE_NAMES, Calibration
from mim_jax.evaluate.method_names import method_name, ordered
from mim_jax.report.figures import canvas
from mim_jax.report.format import verdict
from mim_jax.report.sections import axes as sheet_axes
from mim_jax.report.sections import coverage, error_rate, leading


def roc_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], aurocs: Mapping[str, float], *, notice: str = ""
) -> bytes:
    """ROC curves (Figure 6): method -> (false, true positive rate), and method -> AUROC, for the legend."""
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(4.7, notice)
        axes = figure.add_subplot(aspect="equal", xlim=(0, 1), ylim=(0, 1.01))
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        for index, (method, (false_rate, true_rate)) in enumerate(curves.items()):
            name = method_name(method)
            style: dict[str, Any] = {"color": canvas.COLORS[index % 7], "linestyle": canvas.LINES[index % 4]}
            label = f"{canvas.drawable(name, 24)}  {aurocs[method]:.4f}"
            axes.plot(false_rate, true_rate, **style, linewidth=1.4 if index else 2.2, label=label)
        axes.set_xlabel("false positive rate (others called mpox-like)")
        axes.set_ylabel("true positive rate (mpox found)")
        canvas.legend_above(axes)
        return canvas.png(figure)


def interval_figure(
    parts: Mapping[str, Mapping[str, Mapping[str, Any]]], *, xlabel: str, notice: str = ""
) -> bytes:
    """Dots with intervals: method -> part -> {"n", "mean", "low", "high"}; same parts for all methods."""
    first = next(iter(parts.values()))
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(1.1 + (0.08 + 0.1 * len(parts)) * len(first), notice)
        axes = figure.add_subplot(xlabel=xlabel, ylim=(len(first) - 0.4, -0.6))
        axes.axvline(0.5, color="#999999", linewidth=0.8)
        step = min(0.26, 0.78 / len(parts))
        for index, (method, values) in enumerate(parts.items()):
            rows = np.arange(len(first)) + step * (index - (len(parts) - 1) / 2)
            mean = [value["mean"] for value in values.values()]
            low, high = (
                np.array([value[end] for value in values.values()], float) for end in ("low", "high")
            )
            color = canvas.COLORS[index % 7]
            axes.hlines(rows, low, high, color=color, linewidth=1.2 if index else 2.2)
            label = canvas.drawable(method_name(method), 24)
            style: dict[str, Any] = {"color": color, "markerfacecolor": "white" if index else color}
            axes.plot(mean, rows, canvas.MARKERS[index % 4], **style, markersize=5, label=label)
        names = [f"{canvas.drawable(name, 22)} ({value['n']})" for name, value in first.items()]
        axes.set_yticks(range(len(first)), names)
        axes.grid(axis="x")
        canvas.legend_above(axes)
        return canvas.png(figure)


def forest_figure(
    estimates: Mapping[str, Mapping[str, Any]],
    *,
    reference: str,
    base: float,
    xlabel: str,
    notice: str = "",
) -> bytes:
    """Estimates with intervals, one row per method; a line marks `base` (chance, or no difference).

    Thick lines are intervals by images, thin lines intervals by images and folds. Hollow dots are not
    significantly different from `base`.
    """
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(0.55 + 0.17 * len(estimates), notice)
        axes = figure.add_subplot(xlabel=xlabel, ylim=(len(estimates) - 0.4, -0.6))
        axes.axvline(base, color="#444444", linewidth=0.9)
        for row, (method, own) in enumerate(estimates.items()):
            color = canvas.COLORS[0] if method == reference else canvas.COLORS[6]
            if own["low_folds"] is not None:
                axes.hlines(row, own["low_folds"], own["high_folds"], color=color, linewidth=0.9)
            axes.hlines(row, own["low"], own["high"], color=color, linewidth=2.6)
            undecided = verdict(own, base)[0].startswith("not")
            axes.plot(own["mean"], row, "o", color=color, mfc="white" if undecided else color, markersize=5)
        axes.set_yticks(range(len(estimates)), [canvas.drawable(method_name(name), 36) for name in estimates])
        for label, method in zip(axes.get_yticklabels(), estimates, strict=True):
            label.set_fontweight("bold" if method == reference else "normal")
        axes.grid(axis="x")
        return canvas.png(figure)


def histogram_figure(
    series: Mapping[str, np.ndarray],
    images: Mapping[str, int],
    thresholds: Sequence[float],
    pooled: Sequence[float | None],
    *,
    xlabel: str,
    notice: str = "",
) -> bytes:
    """Score histograms, one row for each of `series` (the training class first), with the thresholds.

    `images` counts the images behind each row: those of other classes are scored by every fold. Thin lines
    are the folds' thresholds, dashed lines those for new images.
    """
    pooled_line = [value for value in pooled if value is not None]
    edges = np.histogram_bin_edges(np.concatenate([*series.values(), thresholds, pooled_line]), bins=40)
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(0.75 + 0.85 * len(series), notice)
        rows = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
        for index, (axes, (label, scores)) in enumerate(zip(rows, series.items(), strict=True)):
            shares = 100 * np.histogram(scores, edges)[0] / len(scores)
            axes.stairs(shares, edges, fill=True, color="#8A8A8A" if index else canvas.COLORS[0])
            for threshold in thresholds:
                axes.axvline(threshold, color="#444444", linewidth=0.5)
            for threshold in pooled_line:
                axes.axvline(threshold, color="black", linewidth=1.2, linestyle="--")
            count = f"{images[label]:,} images"
            if len(scores) != images[label]:
                count += f", {len(scores):,} scores"
            axes.set_title(f"{canvas.drawable(label, 30)}: {count}", loc="left", pad=3)
        if pooled_line:
            words = " and ".join(f"{value:.4f}" for value in pooled_line)
            rows[0].set_title(f"new images: {words}", loc="right", fontsize=8, pad=3)
        rows[-1].set_xlabel(xlabel)
        figure.supylabel("share of row, %", fontsize=9)
        return canvas.png(figure)


def curve_figure(
    epochs: Iterable[Mapping[str, Any]], columns: Mapping[str, str], *, ylabel: str, notice: str = ""
) -> bytes:
    """Training curves, one per fold and column; colours mark columns or, for a single column, folds."""
    unique = {(row["fold"], row["epoch"]): row for row in epochs}  # a repeated epoch keeps its last row
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(2.9, notice)
        axes = figure.add_subplot(xlabel="epoch", ylabel=ylabel)
        folds = sorted({fold for fold, _ in unique})
        for index, (column, words) in enumerate(columns.items()):
            for number, fold in enumerate(folds):
                rows = [unique[key] for key in sorted(unique) if key[0] == fold]
                values = [math.nan if row[column] is None else row[column] for row in rows]
                color = canvas.COLORS[(index if len(columns) > 1 else number) % 7]
                label = (words if number == 0 else "_") if len(columns) > 1 else f"fold {fold}"
                marker = "." if len(rows) == 1 else ""
                axes.plot(
                    [row["epoch"] for row in rows], values, color=color, lw=1.1, marker=marker, label=label
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
        canvas.legend_above(axes)
        return canvas.png(figure)


def reliability_figure(rows: Sequence[Mapping[str, Any]], *, positive: str, notice: str = "") -> bytes:
    """Observed against guaranteed rates: missed mpox with its interval, false alarms by group of classes.

    `rows` is a non-empty result of `mim_jax.evaluate.decisions.reliability`.
    """
    rates = [row["rate"] for row in rows]
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(3.6, notice)
        axes = figure.add_subplot(xlabel="guaranteed rate", ylabel="observed rate")
        axes.plot([0, max(rates)], [0, max(rates)], color="#999999", linewidth=0.8)
        low, value, high = (np.array([row["missed"][k] for row in rows]) for k in ("low", "value", "high"))
        label = f"{canvas.drawable(positive, 18)} missed"
        axes.errorbar(
            rates, value, (value - low, high - value), label=label, lw=2, capsize=2, **canvas.series(0)
        )
        alarms = {row["rate"]: row["false_alarms"] for row in rows}
        families = sorted({name for found in alarms.values() for name in found})
        for index, name in enumerate(families, start=1):
            pairs = [(rate, found[name]["value"]) for rate, found in alarms.items() if name in found]
            label = f"alarms, {canvas.drawable(name, 18)}"
            axes.plot(*zip(*pairs, strict=True), label=label, linewidth=1.2, **canvas.series(index))
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid()
        canvas.legend_above(axes)
        return canvas.png(figure)


def coverage_figure(rows: Sequence[Mapping[str, Any]], *, positive: str, notice: str = "") -> bytes:
    """Error rate among decided images against the share decided, in which both sides weigh equally."""
    sides = {"training": f"{canvas.drawable(positive, 18)} missed", "others": "false alarms"}
    shares = [coverage(row) for row in rows]
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(3.0, notice)
        axes = figure.add_subplot(
            xlabel="share decided", ylabel="error rate among decided", xlim=(0, 1), ylim=(0, 1)
        )
        axes.axhline(0.5, color="#999999", linewidth=0.8)
        for index, (side, label) in enumerate(sides.items()):
            errors = [error_rate(row[side]) for row in rows]
            pairs = [pair for pair in zip(shares, errors, strict=True) if pair[1] is not None]
            if pairs:
                axes.plot(*zip(*pairs, strict=True), label=label, linewidth=1.4, **canvas.series(index))
        axes.grid()
        canvas.legend_above(axes)
        return canvas.png(figure)


def noise_sweep_figure(clinical: Mapping[str, Any], *, notice: str = "") -> bytes:
    """AUROC of the clinical test with intervals against the noise on mpox alone, and on both sides."""
    sweep = clinical["noise_sweep"]
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(3.0, notice)
        axes = figure.add_subplot(
            xlabel="noise standard deviation (pixel values in [0, 1])",
            ylabel=f"AUROC, {SCORE_NAMES[clinical['metric']]}",
            ylim=(0, 1),
        )
        axes.axhline(0.5, color="#999999", linewidth=0.8)
        axes.axvline(clinical["sigma"], color="#444444", linewidth=0.8, linestyle=":")
        curves = {"positives": "noise on mpox alone", "both": "noise on both sides"}
        for index, (name, words) in enumerate(curves.items()):
            _band(axes, sweep["sigmas"], sweep[name], index, words)
        axes.grid()
        canvas.legend_above(axes)
        return canvas.png(figure)


def robustness_figure(sheet: Mapping[str, Any], *, notice: str = "") -> bytes:
    """One panel per axis: AUROC with interval, missed mpox and others not ruled out, against strength."""
    shown = sheet_axes(sheet)
    lines = -(-(len(shown) + 1) // 2)  # one more cell for the legend
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(1.75 * lines, notice)
        cells = figure.subplots(lines, 2, sharey=True, squeeze=False).ravel()
        for (name, (title, axis)), axes in zip(shown.items(), cells, strict=False):
            plain = 1.0 if name == "mask_size" else 0.0
            strengths, entries = [plain, *axis["strengths"]], [sheet["plain"], *axis["entries"]]
            _band(axes, strengths, [entry["auroc"] for entry in entries], 0, "AUROC")
            for index, (share, words) in enumerate(
                {"missed": "mpox missed", "false_alarms": "others not ruled out"}.items(), start=1
            ):
                values = [entry[share]["mean"] for entry in entries]
                if None not in values:
                    axes.plot(strengths, values, **canvas.series(index), linewidth=1.4, label=words)
            axes.axhline(0.5, color="#999999", linewidth=0.8)
            axes.set_title(canvas.drawable(title, 22), loc="left", pad=3)
            axes.set_xlabel(textwrap.fill(canvas.drawable(axis["unit"], 80), 36), fontsize=7)
            axes.set_ylim(0, 1)
            if strengths[-1] < strengths[0]:
                axes.invert_xaxis()
            axes.grid()
        for axes in cells[len(shown) :]:
            axes.set_axis_off()
        cells[len(shown)].legend(*cells[0].get_legend_handles_labels(), loc="center")
        return canvas.png(figure)


def seed_figure(summary: Mapping[str, Any], *, metric: str, reference: str, notice: str = "") -> bytes:
    """Mean AUROC of each seed as a dot, one row per method; a tick marks the mean over the seeds."""
    values = summary["auroc"]["augmented"]
    methods = ordered(values)
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(0.8 + 0.2 * len(methods), notice)
        axes = figure.add_subplot(
            xlabel=f"mean AUROC, {SCORE_NAMES[metric]} or own score",
            ylim=(len(methods) - 0.4, -0.6),
        )
        axes.axvline(0.5, color="#999999", linewidth=0.8)
        for number, method in enumerate(methods):
            own = leading(values[method], metric)
            color = canvas.COLORS[0] if method == reference else canvas.COLORS[6]
            axes.plot(own["seeds"], [number] * len(own["seeds"]), "o", color=color, markersize=4, alpha=0.6)
            axes.plot(own["mean"], number, "|", color=color, markersize=12, markeredgewidth=2)
        axes.set_yticks(range(len(methods)), [canvas.drawable(method_name(name), 24) for name in methods])
        axes.grid(axis="x")
        return canvas.png(figure)


def drift_figure(
    scores: np.ndarray,
    calibration: Calibration,
    p_values: np.ndarray,
    *,
    distance: float,
    bound: float,
    notice: str = "",
) -> bytes:
    """Scores of a batch against the calibration scores, and its p-values against the uniform distribution.

    `distance`: of the p-values from uniform; 95 of 100 batches like the calibration stay below `bound`.
    """
    known = np.concatenate([*map(np.array, calibration.scores)])
    edges = np.histogram_bin_edges(np.concatenate([scores, known]), bins=40)
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(4.4, notice)
        upper, lower = figure.subplots(2, 1)
        cases = f"calibration: {len(known):,} cases of {canvas.drawable(calibration.positive, 18)}"
        for index, (values, label) in enumerate(((known, cases), (scores, f"batch: {len(scores):,} images"))):
            shares = 100 * np.histogram(values, edges)[0] / len(values)
            upper.stairs(shares, edges, fill=not index, color=canvas.COLORS[1 if index else 6], label=label)
        upper.set_xlabel(f"{SCORE_NAMES[calibration.metric]}, high = mpox-like")
        canvas.legend_above(upper)
        upper.set_ylabel("images, %")
        # Cumulative, because p-values from a small calibration are coarse and histogram bins would show it.
        lower.plot([0, 1], [0, 100], color="#999999", linewidth=0.8)
        ends = np.linspace(0, 1, 201)
        lower.fill_between(
            ends, 100 * (ends - bound), 100 * (ends + bound), color="#999999", alpha=0.25, lw=0
        )
        shares = 100 * np.searchsorted(np.sort(p_values), ends, side="right") / len(p_values)
        lower.step(ends, shares, where="post", color=canvas.COLORS[1], linewidth=1.4)
        lower.set(xlim=(0, 1), ylim=(0, 100), ylabel="cumulative images, %")
        lower.set_xlabel("p-value (grey: 95 of 100 batches of mpox alone)")
        lower.set_title(f"distance from uniform {distance:.3f}", loc="right", fontsize=8, pad=3)
        return canvas.png(figure)


def _band(
    axes: Any, positions: Sequence[float], areas: Sequence[Mapping[str, Any]], index: int, label: str
) -> None:
    axes.plot(positions, [area["mean"] for area in areas], **canvas.series(index), linewidth=1.4, label=label)
    low, high = (np.array([area[end] for area in areas], float) for end in ("low", "high"))
    axes.fill_between(positions, low, high, color=canvas.COLORS[index], alpha=0.18, linewidth=0)
