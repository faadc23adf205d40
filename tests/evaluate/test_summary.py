"""The tables of a run: every figure recomputed from the scores; methods with one score; several seeds."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from mim_jax.evaluate.statistics.auroc import auroc, draw_groups, sample_aurocs
from mim_jax.evaluate.statistics.summary import summarize, summarize_seeds
from tests.evaluate.invented_folds import scored


def test_summary_holds_every_figure_of_the_report():
    folds = [scored(seed, copies=5) for seed in range(3)]
    weaker = [
        dataclasses.replace(
            fold,
            similarities={name: values - 0.5 * fold.positive for name, values in fold.similarities.items()},
        )
        for fold in folds
    ]
    summary = summarize(
        {"mim": folds, "mean_fill": weaker, "again": folds},
        resamples=200,
        class_groups={"rash": ["measles", "eczema"], "dermoscopy": ["nevus"], "absent": ["none"]},
    )
    assert json.loads(json.dumps(summary)) == summary
    values = [auroc(fold.similarities["mae"], fold.positive) for fold in folds]
    found = summary["auroc"]["augmented"]["mim"]["mae"]
    assert [fold["value"] for fold in found["folds"]] == values
    assert found["mean"] == pytest.approx(np.mean(values)) and found["std"] == pytest.approx(
        np.std(values, ddof=0)
    )
    assert found["low"] < found["mean"] < found["high"]
    mean = sample_aurocs(folds, "mae", draw_groups(folds, resamples=200, seed=0)).mean()
    assert (found["mean"], found["low"], found["high"]) == mean

    plain = [
        roc_auc_score(fold.positive[fold.copies == 0], fold.similarities["mae"][fold.copies == 0])
        for fold in folds
    ]
    found = summary["auroc"]["plain"]["mim"]["mae"]["folds"]
    assert [fold["value"] for fold in found] == pytest.approx(plain, abs=1e-12)

    for name, classes in {"nevus": ["nevus"], "rash": ["measles", "eczema"]}.items():
        part = summary["per_class" if name == "nevus" else "per_group"]["mean_fill"][name]
        chosen = [fold.positive | np.isin(fold.classes, classes) for fold in weaker]
        expected = [
            roc_auc_score(fold.positive[mask], fold.similarities["ssim_hbd"][mask])
            for fold, mask in zip(weaker, chosen, strict=True)
        ]
        assert part["mean"] == pytest.approx(np.mean(expected)) and part["std"] == pytest.approx(
            np.std(expected)
        )
        assert part["n"] == np.isin(folds[0].classes, classes).sum()
        assert part["low"] <= part["mean"] <= part["high"]
    assert set(summary["per_class"]["mim"]) == {"eczema", "measles", "nevus"}
    assert set(summary["per_group"]["mim"]) == {"rash", "dermoscopy"}

    assert set(summary["differences"]["again"]["mae"].values()) == {0.0}
    paired = summary["differences"]["mean_fill"]["ssim_hbd"]
    table = summary["auroc"]["augmented"]
    assert paired["mean"] == pytest.approx(
        table["mim"]["ssim_hbd"]["mean"] - table["mean_fill"]["ssim_hbd"]["mean"]
    )
    assert 0 < paired["low"] < paired["mean"] < paired["high"]
    # Pairing narrows the interval: both methods score the same images, and their errors are correlated.
    assert paired["high"] - paired["low"] < table["mim"]["ssim_hbd"]["high"] - table["mim"]["ssim_hbd"]["low"]
    assert set(summary["differences"]) == {"mean_fill", "again"}
    turned = summarize({"mim": folds, "mean_fill": weaker}, resamples=200, reference="mean_fill")
    backwards = turned["differences"]["mim"]["ssim_hbd"]
    for key, back in {"mean": "mean", "low": "high", "high": "low", "low_folds": "high_folds"}.items():
        assert backwards[key] == pytest.approx(-paired[back], abs=1e-12)
    for part in (table["mim"]["ssim_hbd"], summary["per_class"]["mim"]["nevus"], paired):
        assert part["low_folds"] <= part["low"] <= part["high"] <= part["high_folds"]

    point = summary["operating"]["mim"]["sensitivity_at_specificity"]["0.9"]
    rates = [
        roc_curve(fold.positive, fold.similarities["ssim_hbd"], drop_intermediate=False) for fold in folds
    ]
    assert point["mean"] == pytest.approx(np.mean([t[f <= 0.1 + 1e-9].max() for f, t, _ in rates]))
    assert point["low"] < point["mean"] < point["high"]
    precision = summary["operating"]["again"]["average_precision"]
    assert precision["mean"] == pytest.approx(
        np.mean([average_precision_score(fold.positive, fold.similarities["ssim_hbd"]) for fold in folds])
    )


def test_a_control_with_a_score_of_its_own_stands_beside_the_metrics():
    folds = [scored(seed, copies=2) for seed in range(3)]
    sharp = [dataclasses.replace(fold, similarities={"score": fold.similarities["mae"]}) for fold in folds]
    three = [dataclasses.replace(fold, similarities={"ssim_hbd": fold.similarities["mae"]}) for fold in folds]
    arguments = {"resamples": 100, "class_groups": {"rash": ["measles"]}}
    alone = summarize({"mim": folds}, **arguments)
    both = summarize({"sharpness": sharp, "mim": folds, "fill": three}, **arguments)
    for kind in ("augmented", "plain"):
        assert set(both["auroc"][kind]["mim"]) == {"ssim_hbd", "mae"}
        assert set(both["auroc"][kind]["fill"]) == {"ssim_hbd"}
        assert both["auroc"][kind]["mim"] == alone["auroc"][kind]["mim"]
        assert both["auroc"][kind]["sharpness"] == {"score": alone["auroc"][kind]["mim"]["mae"]}
    # Tables by the leading metric use a method's single score as if it had that name.
    assert set(both["differences"]) == {"sharpness", "fill"}
    for table in ("differences", "per_class", "per_group", "operating"):
        assert both[table]["sharpness"] == both[table]["fill"]
    assert set(both["differences"]["sharpness"]) == {"ssim_hbd"}
    only = summarize({"mim": folds, "sharpness": sharp}, metrics=["mae"], **arguments)
    assert only["differences"]["sharpness"] == both["differences"]["sharpness"]
    assert set(only["auroc"]["augmented"]["mim"]) == {"mae"}

    with pytest.raises(ValueError, match="blur is scored by a, b: either ssim_hbd or a single score"):
        two = {"a": folds[0].similarities["mae"], "b": folds[0].similarities["mae"]}
        summarize({"mim": folds[:1], "blur": [dataclasses.replace(folds[0], similarities=two)]})
    with pytest.raises(ValueError, match="mixed is scored by score in fold 1 and by ssim_hbd, mae in fold 0"):
        summarize({"mim": folds[:2], "mixed": [folds[0], sharp[1]]})


def test_a_fold_of_one_patient_is_summarised():
    fold = dataclasses.replace(scored(2), groups=np.array(["one"] * 12 + [f"n{i}" for i in range(40)]))
    summary = summarize({"mim": [fold, fold], "again": [fold, fold]}, resamples=10)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_group_names_do_not_matter():
    """Names become numbers internally: a shared patient stays shared, and the order of names is kept."""
    folds = [scored(seed, copies=2, negatives_a_group=2) for seed in range(2)]
    groups = np.where(np.arange(len(folds[0])) == 24, folds[0].groups[0], folds[0].groups)
    shared = [dataclasses.replace(fold, groups=np.where(groups == "n0", "z0", groups)) for fold in folds]
    renamed = [dataclasses.replace(fold, groups=np.char.add("z", fold.groups)) for fold in shared]
    assert summarize({"mim": shared}, resamples=40) == summarize({"mim": renamed}, resamples=40)
    assert summarize({"mim": shared}, resamples=40) != summarize({"mim": folds}, resamples=40)


def test_seeds_are_summarised_as_a_distribution():
    runs = [
        summarize({"mim": [scored(seed, copies=2)], "fill": [scored(seed, copies=2, gap=0.5)]}, resamples=10)
        for seed in (1, 2, 5)
    ]
    found = summarize_seeds(runs)
    means = [run["auroc"]["plain"]["fill"]["mae"]["mean"] for run in runs]
    assert found["auroc"]["plain"]["fill"]["mae"] == {
        "mean": np.mean(means),
        "min": min(means),
        "max": max(means),
        "std": np.std(means),
        "seeds": means,
    }
    assert min(means) < max(means)
    augmented = [run["auroc"]["augmented"]["mim"]["mae"]["mean"] for run in runs]
    assert found["auroc"]["augmented"]["mim"]["mae"]["seeds"] == augmented
    differences = [run["differences"]["fill"]["ssim_hbd"]["mean"] for run in runs]
    assert found["differences"]["fill"]["ssim_hbd"]["seeds"] == differences
    assert set(found["auroc"]["augmented"]) == {"mim", "fill"}
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(ValueError, match="result 1 holds other augmented AUROCs than result 0"):
        summarize_seeds([runs[0], summarize({"mim": [scored(1)]}, resamples=10)])
    with pytest.raises(ValueError, match="no results were given"):
        summarize_seeds([])


def test_plain_and_augmented_sets_may_be_disjoint_in_positives():
    fold = scored(6, copies=3)
    fold = dataclasses.replace(fold, augmented=~fold.positive | (fold.copies > 0))
    auc = summarize({"mim": [fold]}, resamples=20)["auroc"]
    for kind, mask in (("augmented", fold.augmented), ("plain", fold.plain)):
        expected = roc_auc_score(fold.positive[mask], fold.similarities["mae"][mask])
        assert auc[kind]["mim"]["mae"]["mean"] == pytest.approx(expected, abs=1e-12)
        # One fold says nothing of how folds vary.
        assert auc[kind]["mim"]["mae"]["low_folds"] is None and auc[kind]["mim"]["mae"]["high_folds"] is None
    np.testing.assert_array_equal(fold.originals().names, fold.names[fold.plain])


def test_errors_name_what_is_wrong():
    fold = scored(7)
    with pytest.raises(ValueError, match="reference method 'mim'"):
        summarize({"mean_fill": [fold]})
    with pytest.raises(ValueError, match="unknown metric 'psnr'"):
        summarize({"mim": [fold]}, metrics=["psnr"])
    with pytest.raises(ValueError, match="control and mim differ in names in fold 0"):
        summarize({"mim": [fold], "control": [scored(8)]})
    with pytest.raises(ValueError, match="control has 1 folds and mim has 2"):
        summarize({"mim": [fold, scored(8)], "control": [fold]})
