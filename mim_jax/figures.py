"""The figures of a run as PNG bytes: pure functions of scores, histories and images."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from mim_jax import canvas, pictures, promise_figures, stress_figures
from mim_jax.evaluate.statistics.summary import roc
from mim_jax.pictures import Panels
from mim_jax.wording import REFERENCE, controls, leading, method_name, metric_name, ordered

# What a figure shows beside MIM and the best control, where there is room for a few methods only.
SHOWN = ("mean_fill", "autoencoder", "color_neighbors")
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
    shown = shown_methods(results)
    pngs = {}
    for end, place in extremes(results).items():
        pairs: dict[str, list[tuple[float, bool]]] = {}
        for row in scores:
            if row["fold"] == results["splits"][place]["fold"] and row["augmented"]:
                score = row["score"] if row[metric] == "" else row[metric]
                pairs.setdefault(row["method"], []).append((score, row["positive"]))
        curves = {
            method: roc(*map(np.array, zip(*pairs[method], strict=True)))
            for method in shown
            if method in pairs
        }
        aurocs = {
            method: leading(results["auroc"]["augmented"][method], metric)["folds"][place]["value"]
            for method in shown
        }
        if curves:
            pngs[f"roc_{end}"] = roc_figure(curves, aurocs, notice=notice)
    for part in ("group", "class"):
        if results[f"per_{part}"].get(REFERENCE):
            parts = ranked(results[f"per_{part}"])
            pngs[f"per_{part}"] = interval_figure(
                {method: parts[method] for method in shown if method in parts},
                xlabel=f"AUROC against one {part}, {metric_name(metric)}",
                notice=notice,
            )
    series = _scores_by_group(results, scores)
    if series:
        every = [*results["decision"]["thresholds"], *results["decision"]["upper"]]
        thresholds = [value for value in every if value is not None]
        pngs["histograms"] = histogram_figure(
            series,
            thresholds,
            [results["decision"][name] for name in ("pooled", "pooled_upper")],
            xlabel=f"{metric_name(metric)} similarity (high = mpox-like)",
            notice=notice,
        )
    if rows := results["decision"]["reliability"]:
        about = {"positive": results["data"]["positive"], "notice": notice}
        pngs["reliability"] = promise_figures.reliability_figure(rows, **about)
        pngs["coverage"] = promise_figures.coverage_figure(rows, **about)
    if results["clinical"]:
        pngs["noise_sweep"] = stress_figures.noise_sweep_figure(results["clinical"], notice=notice)
    if results["robustness"]:
        pngs["robustness"] = stress_figures.robustness_figure(results["robustness"], notice=notice)
    cell = pictures.cell_side(panels)
    for name, rows in panels.figures().items():
        pngs[name] = pictures.panel_figure(panels, rows, cell=cell, notice=notice)
    epochs = [row for row in history if row.get("event") == "epoch"]
    if epochs:
        for name, (ylabel, columns) in TRAINING_CURVES.items():
            pngs[name] = curve_figure(epochs, columns, ylabel=ylabel, notice=notice)
    return pngs


def shown_methods(results: Mapping[str, Any]) -> list[str]:
    """MIM, the control of the highest mean AUROC, and those of `SHOWN` that there are, in order."""
    metric, aurocs = results["decision"]["metric"], results["auroc"]["augmented"]
    panel = controls(results)
    best = sorted(panel, key=lambda method: -leading(aurocs[method], metric)["mean"])[:1]
    return ordered({REFERENCE, *best, *(method for method in SHOWN if method in panel)})


def extremes(results: Mapping[str, Any]) -> dict[str, int]:
    """Places of the "best" and the "worst" fold by the network's AUROC; one alone where they are the same."""
    summary = results["auroc"]["augmented"][REFERENCE][results["decision"]["metric"]]
    values = [fold["value"] for fold in summary["folds"]]
    best, worst = values.index(max(values)), values.index(min(values))
    return {"best": best, "worst": worst} if best != worst else {"best": best}


def ranked(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The methods in order, and the parts by MIM's mean AUROC, highest first."""
    order = sorted(parts[REFERENCE], key=lambda name: (-parts[REFERENCE][name]["mean"], name))
    return {method: {name: parts[method][name] for name in order} for method in ordered(parts)}


def groups_of_classes(results: Mapping[str, Any]) -> dict[str, str]:
    """Class -> group, for the classes other than the training class."""
    groups, positive = results["data"]["class_groups"], results["data"]["positive"]
    return {name: group for group, names in groups.items() for name in names if name != positive}


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
        canvas.legend_above(figure, axes)
        return canvas.png(figure)


def interval_figure(
    parts: Mapping[str, Mapping[str, Mapping[str, Any]]], *, xlabel: str, notice: str = ""
) -> bytes:
    """Dots with intervals: method -> part -> {"n", "mean", "low", "high"}, the same parts for each method."""
    first = next(iter(parts.values()))
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(1.1 + (0.1 + 0.13 * len(parts)) * len(first), notice)
        axes = figure.add_subplot(xlabel=xlabel, ylim=(len(first) - 0.4, -0.6))
        axes.axvline(0.5, color="#999999", linewidth=0.8)
        step = min(0.26, 0.78 / len(parts))
        for index, (method, values) in enumerate(parts.items()):
            rows = np.arange(len(first)) + step * (index - (len(parts) - 1) / 2)
            mean, low, high = ([value[key] for value in values.values()] for key in ("mean", "low", "high"))
            color = canvas.COLORS[index % 7]
            axes.hlines(rows, low, high, color=color, linewidth=1.2 if index else 2.2)
            label = canvas.drawable(method_name(method), 24)
            style: dict[str, Any] = {"color": color, "markerfacecolor": "white" if index else color}
            axes.plot(mean, rows, canvas.MARKERS[index % 4], **style, markersize=5, label=label)
        axes.set_yticks(
            range(len(first)),
            [f"{canvas.drawable(name, 22)} ({value['n']})" for name, value in first.items()],
        )
        axes.grid(axis="x")
        canvas.legend_above(figure, axes)
        return canvas.png(figure)


def histogram_figure(
    series: Mapping[str, np.ndarray],
    thresholds: Sequence[float],
    pooled: Sequence[float | None],
    *,
    xlabel: str,
    notice: str = "",
) -> bytes:
    """Score histograms, one row for each of `series` (the training class first), with the thresholds.

    The folds' thresholds are thin lines, those for new images are dashed.
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
            axes.set_title(f"{canvas.drawable(label, 30)}, n = {len(scores)}", loc="left", pad=3)
        if pooled_line:
            words = " and ".join(f"{value:.4f}" for value in pooled_line)
            rows[0].set_title(f"for new images {words}", loc="right", fontsize=8, pad=3)
        rows[-1].set_xlabel(xlabel)
        figure.supylabel("images, % of the row", fontsize=9)
        return canvas.png(figure)


def curve_figure(
    epochs: Iterable[Mapping[str, Any]], columns: Mapping[str, str], *, ylabel: str, notice: str = ""
) -> bytes:
    """Curves over the epochs, one a fold and column; colours tell columns, or the folds of a single one."""
    unique = {(row["fold"], row["epoch"]): row for row in epochs}  # of a repeated epoch the last counts
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(2.9, notice)
        axes = figure.add_subplot(xlabel="epoch", ylabel=ylabel)
        folds = sorted({fold for fold, _ in unique})
        for index, (column, words) in enumerate(columns.items()):
            for place, fold in enumerate(folds):
                rows = [unique[key] for key in sorted(unique) if key[0] == fold]
                values = [math.nan if row[column] is None else row[column] for row in rows]
                color = canvas.COLORS[(index if len(columns) > 1 else place) % 7]
                label = (words if place == 0 else "_") if len(columns) > 1 else f"fold {fold + 1}"
                marker = "." if len(rows) == 1 else ""
                axes.plot(
                    [row["epoch"] for row in rows], values, color=color, lw=1.1, marker=marker, label=label
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
        canvas.legend_above(figure, axes)
        return canvas.png(figure)


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
