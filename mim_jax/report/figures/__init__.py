"""Draw the figures of a run: select the results and scores that each figure shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mim_jax.decide.decision import SCORE_NAMES
from mim_jax.evaluate.decisions import OTHERS, families
from mim_jax.evaluate.method_names import DETECTORS, method_name, ordered
from mim_jax.evaluate.mim import Evaluated
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import roc
from mim_jax.report.figures import charts, pictures
from mim_jax.report.sections import (
    baselines,
    extremes,
    groups_of_classes,
    leading,
    ranked,
    reference_of,
    shown_methods,
)

TRAINING_CURVES = {  # figure -> (axis title, {column of the history: legend text})
    "loss_pixel": ("pixel loss (mean absolute error)", {"loss_pixel": "pixel loss"}),
    "loss_adversarial": ("adversarial loss of the generator", {"loss_adversarial": "adversarial loss"}),
    "loss_discriminator": ("loss of the discriminator", {"loss_discriminator": "discriminator loss"}),
    "discriminator": (
        "mean output of the discriminator",
        {"d_real": "D(real), target 1", "d_fake": "D(fake), target 0"},
    ),
    "learning_rate": ("learning rate", {"learning_rate": "learning rate"}),
}


def draw(found: Evaluated, *, notice: str = "") -> dict[str, bytes]:
    """Draw every figure of the report that has data: name -> PNG bytes, with `notice` above each."""
    results, methods, panels = found.results, found.methods, found.panels
    metric = results["decision"]["metric"]
    shown = shown_methods(results)
    pngs = {}
    for end, index in extremes(results).items():
        curves = {}
        for method in (name for name in shown if name in methods):
            fold = methods[method][index]
            tested = fold.select(fold.augmented)
            curves[method] = roc(leading(tested.similarities, metric), tested.positive)
        aurocs = {
            method: leading(results["auroc"]["augmented"][method], metric)["folds"][index]["value"]
            for method in shown
        }
        if curves:
            pngs[f"roc_{end}"] = charts.roc_figure(curves, aurocs, notice=notice)
    for part in ("group", "class"):
        if values := ranked(results[f"per_{part}"], reference_of(results), shown):
            label = f"AUROC against each {part}, {SCORE_NAMES[metric]}"
            pngs[f"per_{part}"] = charts.interval_figure(values, xlabel=label, notice=notice)
    pngs |= _forests(results, notice=notice)
    series, images = _scores_by_group(results, methods[reference_of(results)])
    if series:
        every = [*results["decision"]["thresholds"], *results["decision"]["upper"]]
        pngs["histograms"] = charts.histogram_figure(
            series,
            images,
            [value for value in every if value is not None],
            [results["decision"]["pooled"], results["decision"]["pooled_upper"]],
            xlabel=f"{SCORE_NAMES[metric]}, high = mpox-like",
            notice=notice,
        )
    if rows := results["decision"]["reliability"]:
        about = {"positive": results["data"]["positive"], "notice": notice}
        pngs["reliability"] = charts.reliability_figure(rows, **about)
        pngs["coverage"] = charts.coverage_figure(rows, **about)
    if results["clinical"]:
        pngs["noise_sweep"] = charts.noise_sweep_figure(results["clinical"], notice=notice)
    if results["robustness"]:
        pngs["robustness"] = charts.robustness_figure(results["robustness"], notice=notice)
    if len(panels.images):
        cell = pictures.cell_side(panels)
        for name, rows in pictures.arrange(panels).items():
            pngs[name] = pictures.panel_figure(panels, rows, cell=cell, notice=notice)
        pngs["strip"] = pictures.strip_figure(panels, notice=notice)
    if found.unlike:
        for name, side in (("unlike_training", True), ("unlike_others", False)):
            rows = np.flatnonzero(found.unlike.positive == side)
            pngs[name] = pictures.unlike_figure(found.unlike, rows, notice=notice)
    epochs = [row for row in found.history if row.get("event") == "epoch"]
    if epochs:
        for name, (ylabel, columns) in TRAINING_CURVES.items():
            pngs[name] = charts.curve_figure(epochs, columns, ylabel=ylabel, notice=notice)
    return pngs


def _forests(results: Mapping[str, Any], *, notice: str) -> dict[str, bytes]:
    """Forest plots: AUROC of detectors and baselines, and the deciding method minus every other method."""
    metric, reference = results["decision"]["metric"], reference_of(results)
    aurocs, differences = results["auroc"]["augmented"], results["differences"]
    detectors = [method for method in ordered(aurocs) if method in DETECTORS and method != reference]
    shown = [reference, *detectors, *baselines(results)]
    about: dict[str, Any] = {"reference": reference, "notice": notice}
    pngs = {
        "aurocs": charts.forest_figure(
            {method: leading(aurocs[method], metric) for method in shown},
            base=0.5,
            xlabel="AUROC (line: chance)",
            **about,
        )
    }
    compared = [*shown[1:], *ordered(results["variants"])]
    if compared:
        pngs["differences"] = charts.forest_figure(
            {method: differences[method][metric] for method in compared},
            base=0.0,
            xlabel=f"difference in AUROC\n({method_name(reference)} \u2212 method)",
            **about,
        )
    return pngs


def _scores_by_group(
    results: Mapping[str, Any], folds: Sequence[ScoredImages]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Scores of the plain test images by the deciding method, and the number of images behind them.

    Keys: the training class, then the groups of other classes, whose images every fold scores.
    """
    data, metric = results["data"], results["decision"]["metric"]
    plain = [fold.originals() for fold in folds]
    names = np.concatenate([fold.names for fold in plain])
    values = np.concatenate([fold.similarities[metric] for fold in plain])
    others = families(np.concatenate([fold.classes for fold in plain]), data["class_groups"])
    parts = np.where(np.concatenate([fold.positive for fold in plain]), data["positive"], others)
    order = dict.fromkeys((data["positive"], *groups_of_classes(results).values(), OTHERS))
    series = {part: values[parts == part] for part in order if np.any(parts == part)}
    return series, {part: len(np.unique(names[parts == part])) for part in series}
