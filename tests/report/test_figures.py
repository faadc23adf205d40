"""Figures use exactly the rows and methods that they show."""

from dataclasses import replace
from typing import Any

import pytest
from sklearn.metrics import auc, roc_auc_score

from mim_jax.report import figures
from mim_jax.report.figures import canvas, charts
from mim_jax.report.sections import shown_methods
from tests.invented import evaluated, panels_of


def test_figures_take_the_rows_that_they_are_about(monkeypatch):
    run = evaluated()
    run.results["auroc"]["augmented"]["brightness"]["score"]["mean"] = 0.99  # the best baseline is shown
    folds = run.results["auroc"]["augmented"]["mim"]["ssim_hbd"]["folds"]
    for value, fold in zip((0.7, 0.9, 0.6), folds, strict=True):
        fold["value"] = value
    for folds in run.methods.values():  # a row outside the augmented set would show at once
        for images in folds:
            images.augmented[0] = False
            next(iter(images.similarities.values()))[0] = 5.0
    seen: dict[str, list[Any]] = {"roc": [], "histogram": []}
    monkeypatch.setattr(charts, "roc_figure", lambda curves, *_, **__: seen["roc"].append(curves) or b"")
    monkeypatch.setattr(charts, "histogram_figure", lambda *args, **_: seen["histogram"].append(args) or b"")
    figures.draw(replace(run, history=[], panels=panels_of(0)))
    for place, curves in zip((1, 2), seen["roc"], strict=True):
        assert list(curves) == shown_methods(run.results)
        for method in curves:
            images = run.methods[method][place]
            scores = images.similarities["score" if method == "brightness" else "ssim_hbd"]
            expected = roc_auc_score(images.positive[1:], scores[1:])
            assert auc(*curves[method]) == pytest.approx(expected)
    ((series, images, thresholds, pooled),) = seen["histogram"]
    assert {name: len(values) for name, values in series.items()} == {
        "mpox": 9,
        "dermoscopy": 21,
        "other classes": 21,
    }
    # Each fold has its own mpox images; images of other classes are the same in all folds.
    assert images == {"mpox": 3, "dermoscopy": 7, "other classes": 7}
    assert thresholds == [0.5, 0.625, 0.75, 0.75, 0.75] and pooled == [0.5625, 0.78125]


def test_few_methods_are_shown_the_best_baseline_among_them():
    results = evaluated().results
    aurocs = results["auroc"]["augmented"]
    aurocs["harmonic_fill"]["ssim_hbd"]["mean"] = 0.98
    aurocs["mask_region"]["ssim_hbd"]["mean"] = 0.99  # a variant is not a baseline
    assert shown_methods(results) == ["mim", "mean_fill", "harmonic_fill", "autoencoder"]
    aurocs["brightness"]["score"]["mean"] = 0.985
    assert shown_methods(results) == ["mim", "mean_fill", "autoencoder", "brightness"]


def test_a_legend_of_long_names_fits_into_the_figure():
    figure = canvas.blank(4.7, "")
    axes = figure.add_subplot(aspect="equal")
    for name in ("first", "second"):
        axes.plot([0, 1], [0, 1], label=f"MIM (width 0.25, 96 px) ({name})")
    canvas.legend_above(axes)
    figure.draw_without_rendering()
    legend = axes.get_legend().get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.width
