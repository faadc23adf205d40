"""AUROC and its intervals against scikit-learn, slow resampling and known standard errors."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import auroc, cluster_bootstrap, draw_groups, resampled_aurocs, roc
from mim_jax.evaluate.statistics.summary import summarize, summarize_seeds


def scored(
    seed: int,
    *,
    positives: int = 12,
    negatives: int = 40,
    copies: int = 1,
    negatives_a_group: int = 1,
    gap: float = 1.0,
    decimals: int = 1,
) -> ScoredImages:
    """One fold of normal scores, rounded so that many tie; `copies` of each positive share its group."""
    generator = np.random.default_rng(seed)
    base = np.repeat(generator.normal(gap, 1, positives), copies)
    count = positives * copies
    total = count + negatives
    origin = np.repeat(np.arange(positives), copies)
    copy = np.concatenate([np.tile(np.arange(copies), positives), np.zeros(negatives, int)])
    noise = generator.normal(0, 0.3, count) * (copy[:count] > 0)
    other = generator.normal(0, 1, negatives)
    scores = np.round(np.concatenate([base + noise, other]), decimals)
    return ScoredImages(
        names=np.array([f"mpox/{seed}-{i}" for i in range(count)] + [f"other/{i}" for i in range(negatives)]),
        classes=np.array(
            ["mpox"] * count + [("eczema", "measles", "nevus")[i % 3] for i in range(negatives)]
        ),
        groups=np.array(
            [f"p{seed}-{i}" for i in origin] + [f"n{i // negatives_a_group}" for i in range(negatives)]
        ),
        copies=copy,
        positive=np.arange(total) < count,
        augmented=np.ones(total, bool),
        plain=copy == 0,
        similarities={"ssim_hbd": scores, "mae": scores**3 + np.round(generator.normal(0, 1, total), 1)},
    )


def slow_aurocs(
    fold: ScoredImages, metric: str, positive_draws: np.ndarray, negative_draws: np.ndarray
) -> list[float]:
    """AUROC of every resample, by building the resampled images and asking scikit-learn."""
    result = []
    for positive_weights, negative_weights in zip(positive_draws, negative_draws, strict=True):
        drawn = []
        for positive, weights in ((True, positive_weights), (False, negative_weights)):
            for group, times in zip(np.unique(fold.groups[fold.positive == positive]), weights, strict=True):
                members = np.flatnonzero((fold.groups == group) & (fold.positive == positive))
                drawn += list(members) * int(times)
        result.append(roc_auc_score(fold.positive[drawn], fold.similarities[metric][drawn]))
    return result


def test_auroc_is_scikit_learns_and_the_share_of_pairs_won():
    for seed in range(5):
        fold = scored(seed, positives=20, negatives=30)
        scores, positive = fold.similarities["ssim_hbd"], fold.positive
        difference = scores[positive][:, None] - scores[~positive][None, :]
        assert np.any(difference == 0)
        assert auroc(scores, positive) == pytest.approx(np.mean((np.sign(difference) + 1) / 2), abs=1e-12)
        assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert auroc(np.array([0.7, 0.7, 0.9, 0.1]), np.array([1, 0, 1, 0])) == 0.875
    assert auroc(np.ones(4), np.array([1, 0, 1, 0])) == 0.5


def test_roc_encloses_the_auroc():
    fold = scored(1)
    false_rate, true_rate = roc(fold.similarities["mae"], fold.positive)
    assert false_rate[0] == true_rate[0] == 0 and false_rate[-1] == true_rate[-1] == 1
    area = np.trapezoid(true_rate, false_rate)
    assert area == pytest.approx(auroc(fold.similarities["mae"], fold.positive), abs=1e-12)


def test_resamples_are_what_slow_resampling_gives():
    folds = [scored(seed, copies=3, negatives_a_group=2) for seed in (1, 2)]
    draws = draw_groups(folds, resamples=60, seed=3)
    fast = resampled_aurocs(folds, "ssim_hbd", draws)
    slow = np.array(
        [
            slow_aurocs(fold, "ssim_hbd", draws.positive[index], draws.negative[index])
            for index, fold in enumerate(folds)
        ]
    )
    np.testing.assert_allclose(fast, slow, atol=1e-12)
    each, mean = cluster_bootstrap(folds, "ssim_hbd", resamples=60, seed=3)
    for fold, row, estimate in zip(folds, slow, each, strict=True):
        value = roc_auc_score(fold.positive, fold.similarities["ssim_hbd"])
        np.testing.assert_allclose(estimate, (value, *np.percentile(row, [2.5, 97.5])), atol=1e-12)
    np.testing.assert_allclose(mean[1:], np.percentile(slow.mean(axis=0), [2.5, 97.5]), atol=1e-12)
    # Every group is drawn as often as there are groups: the folds' positives apart, the negatives together.
    assert all(np.all(draw.sum(axis=1) == 12) for draw in draws.positive)
    assert draws.negative[0].shape == (60, 20) and np.all(draws.negative[0].sum(axis=1) == 20)
    assert all(draw is draws.negative[0] for draw in draws.negative)


def test_folds_may_test_on_different_negatives_and_share_the_draw_of_those_in_common():
    folds = [scored(seed, copies=3, negatives_a_group=2) for seed in (1, 2)]
    names = [np.unique(fold.groups[~fold.positive]) for fold in folds]
    kept = [own[place:] if place else own[:-3] for place, own in enumerate(names)]
    folds = [f.select(f.positive | np.isin(f.groups, own)) for f, own in zip(folds, kept, strict=True)]
    draws = draw_groups(folds, resamples=60, seed=3)
    fast = resampled_aurocs(folds, "ssim_hbd", draws)
    for index, fold in enumerate(folds):
        slow = slow_aurocs(fold, "ssim_hbd", draws.positive[index], draws.negative[index])
        np.testing.assert_allclose(fast[index], slow, atol=1e-12)
    common = [np.isin(own, np.intersect1d(*kept)) for own in kept]
    np.testing.assert_array_equal(*(draw[:, own] for draw, own in zip(draws.negative, common, strict=True)))
    # Folds whose few negatives are seldom drawn are never left without any.
    few = [
        f.select(f.positive | (f.groups == own[-i]))
        for i, (f, own) in enumerate(zip(folds, kept, strict=True))
    ]
    assert all(draw.any(axis=1).all() for draw in draw_groups(few, resamples=200, seed=0).negative)


def test_spread_of_ungrouped_images_is_that_of_delong():
    fold = scored(4, positives=80, negatives=150, decimals=6)
    scores, positive = fold.similarities["ssim_hbd"], fold.positive
    wins = (scores[positive][:, None] > scores[~positive][None, :]).astype(float)
    # DeLong, DeLong and Clarke-Pearson, Biometrics, 1988: the variances of the two classes' placements.
    expected = np.sqrt(wins.mean(axis=1).var(ddof=1) / 80 + wins.mean(axis=0).var(ddof=1) / 150)
    resampled = resampled_aurocs([fold], "ssim_hbd", draw_groups([fold], resamples=2000, seed=0))
    assert resampled.std() == pytest.approx(expected, rel=0.15)


def test_copies_do_not_make_an_interval_narrower():
    fold = scored(5, positives=15)
    five = np.concatenate([np.repeat(np.flatnonzero(fold.positive), 5), np.flatnonzero(~fold.positive)])
    once = cluster_bootstrap([fold], "ssim_hbd", resamples=300, seed=1)
    copied = cluster_bootstrap([fold.select(five)], "ssim_hbd", resamples=300, seed=1)
    assert copied[1] == once[1]
    # Taken for independent images they would.
    selected = fold.select(five)
    alone = dataclasses.replace(selected, groups=np.array([str(i) for i in range(len(selected))]))
    low, high = cluster_bootstrap([alone], "ssim_hbd", resamples=300, seed=1)[1][1:]
    assert high - low < 0.75 * (once[1].high - once[1].low)


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
    mean = cluster_bootstrap(folds, "mae", resamples=200, seed=0)[1]
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
    # Pairing pays: both methods score the same images, and their errors go together.
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
    # Everything that is by the leading metric is by the score that it has, as if it bore that name.
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
    """Numbers stand for names inside: a shared patient stays shared, and the order of names is kept."""
    folds = [scored(seed, copies=2, negatives_a_group=2) for seed in range(2)]
    groups = np.where(np.arange(len(folds[0])) == 24, folds[0].groups[0], folds[0].groups)
    shared = [dataclasses.replace(fold, groups=np.where(groups == "n0", "z0", groups)) for fold in folds]
    renamed = [dataclasses.replace(fold, groups=np.char.add("z", fold.groups)) for fold in shared]
    assert summarize({"mim": shared}, resamples=20) == summarize({"mim": renamed}, resamples=20)
    assert summarize({"mim": shared}, resamples=20) != summarize({"mim": folds}, resamples=20)


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
    with pytest.raises(ValueError, match="12 of 12 images are positive"):
        auroc(np.zeros(12), np.ones(12, bool))
    with pytest.raises(ValueError, match="score 1 is inf"):
        auroc(np.array([0.0, np.inf]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        auroc(np.zeros(3), np.array([True, False]))
    broken = {**fold.similarities, "mae": fold.similarities["mae"].copy()}
    broken["mae"][[14, 20]] = np.nan
    with pytest.raises(ValueError, match=r"mae of other/2 is nan \(2 of 52 scores are not finite\)"):
        dataclasses.replace(fold, similarities=broken)
    with pytest.raises(ValueError, match="mae has 3 entries for 52 images"):
        dataclasses.replace(fold, similarities={"mae": np.zeros(3)})
    with pytest.raises(ValueError, match="fold 1 has no positive"):
        draw_groups([fold, fold.select(~fold.positive)])
    with pytest.raises(ValueError, match="fold 0 has no negative"):
        draw_groups([fold.select(fold.positive)])
    with pytest.raises(ValueError, match="no folds"):
        draw_groups([])
    with pytest.raises(ValueError, match="reference method 'mim'"):
        summarize({"mean_fill": [fold]})
    with pytest.raises(ValueError, match="unknown metric 'psnr'"):
        summarize({"mim": [fold]}, metrics=["psnr"])
    with pytest.raises(ValueError, match="control and mim differ in names in fold 0"):
        summarize({"mim": [fold], "control": [scored(8)]})
    with pytest.raises(ValueError, match="control has 1 folds and mim has 2"):
        summarize({"mim": [fold, scored(8)], "control": [fold]})
