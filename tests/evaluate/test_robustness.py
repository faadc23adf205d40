"""Robustness sheet and clinical test against images corrupted, painted, pasted and counted by hand."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from sklearn.metrics import roc_auc_score

from mim_jax.detector import Detector
from mim_jax.evaluate.robustness import conditions, sheet
from mim_jax.evaluate.robustness.conditions import Condition, GroupedImages, score_conditions, score_folds
from mim_jax.evaluate.robustness.corruptions import CORRUPTIONS
from mim_jax.evaluate.robustness.sheet import SIGMAS, _shares, clinical_test, robustness_sheet
from mim_jax.evaluate.statistics.auroc import auroc
from mim_jax.features.backbone import Backbone
from mim_jax.features.detector import fit_detector
from mim_jax.measure.similarity import METRICS, similarities

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SIZE, HOLE = 32, 16


class Painter(nn.Module):
    """Paint the mean visible colour plus a shade: a generator that needs no training."""

    @nn.compact
    def __call__(self, masked: jax.Array, *, train: bool) -> jax.Array:
        shade = self.param("shade", nn.initializers.zeros, (3,))
        # The hole is white, 1 in the network's range.
        seen = (jnp.sum(masked, axis=(1, 2)) - HOLE**2) / (SIZE**2 - HOLE**2)
        colour = (seen + shade[None, :])[:, None, None, :]
        return jnp.broadcast_to(colour, (len(masked), HOLE, HOLE, 3))


def detector(shade: float = 0.0) -> Detector:
    return Detector(Painter(), [{"params": {"shade": jnp.full(3, shade)}}], SIZE, HOLE)


def plain_images(count: int, seed: int, *, detail: float) -> np.ndarray:
    """Images of one colour with noise of size `detail`, uint8: the less noise, the better the inpainting."""
    generator = np.random.default_rng(seed)
    colour = generator.uniform(80, 170, (count, 1, 1, 3))
    spread = generator.uniform(0.5, 1.5, (count, 1, 1, 1)) * detail
    noise = generator.normal(0, 1, (count, SIZE, SIZE, 3))
    return np.clip(np.rint(colour + spread * noise), 0, 255).astype(np.uint8)


def grouped(images: np.ndarray, prefix: str = "i") -> GroupedImages:
    return GroupedImages(images, np.array([f"{prefix}{i}" for i in range(len(images))]))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Batches of four images, so that a few images fill several."""
    monkeypatch.setattr(conditions, "BATCH", 4)


@pytest.fixture(scope="module")
def experiment():
    """Two fold models, their mpox images (smooth) and the others (less smooth, with overlapping scores)."""
    positives = [grouped(plain_images(count, seed, detail=8)) for count, seed in ((7, 0), (5, 1))]
    return [detector(), detector(0.02)], positives, grouped(plain_images(11, 2, detail=12))


# Eight conditions, as many as in the clinical test, to share its program.
CASES = [
    Condition(),
    Condition("noise", 0.1),
    Condition("jpeg", 70.0),
    Condition("crop", 0.2),
    Condition(position=0.5),
    Condition(position=1.0),
    Condition(side=0.5),
    Condition("blur", 2.0, position=0.25, side=0.75),
]


@functools.cache
def jitted(name):
    corruption = CORRUPTIONS[name]
    return corruption if corruption.on_host else jax.jit(corruption.__call__)


def corrupt(images, condition, key, first):
    index = jnp.arange(first, first + len(images))
    as_float = jnp.asarray(images, jnp.float32) / 255
    return np.array(jitted(condition.corruption)(key, as_float, condition.strength, index=index), np.float64)


def by_hand(model, corrupted, condition):
    """One condition image by image, with NumPy and full similarities."""
    start = round((SIZE - HOLE) / 2 * (1 - condition.position))
    side = round(HOLE * condition.side)
    inner = start + (HOLE - side) // 2
    mended = corrupted.copy()
    for image, original in zip(mended, corrupted, strict=True):
        seen = np.ones((SIZE, SIZE), bool)
        seen[start : start + HOLE, start : start + HOLE] = False
        shade = np.asarray(model.variables[0]["params"]["shade"], np.float64)
        colour = np.clip(original[seen].mean(axis=0) + shade / 2, 0, 1)
        image[inner : inner + side, inner : inner + side] = colour
    return similarities(jnp.asarray(corrupted, jnp.float32), jnp.asarray(mended, jnp.float32))


def test_conditions_are_what_they_say(experiment):
    models, positives, _ = experiment
    images, key = positives[0].images, jax.random.key(4)
    results = score_conditions(models, images, CASES, key=key, first=20)
    for i, case in enumerate(CASES):
        corrupted = corrupt(images, case, key, 20)
        for model, scores in zip(models, results, strict=True):
            expected = by_hand(model, corrupted, case)._asdict()
            for metric in METRICS:
                # A colour on the edge of a histogram's bin may round to its neighbour.
                tolerance = 0.02 if "hbd" in metric else 2e-5
                np.testing.assert_allclose(
                    scores[metric][i], expected[metric], atol=tolerance, err_msg=f"{case} {metric}"
                )


def test_no_corruption_is_the_plain_score_and_batches_do_not_matter(experiment, monkeypatch):
    models, _, negatives = experiment
    key = jax.random.key(0)
    whole = score_conditions(models, negatives.images, CASES, key=key, first=3)
    for model, scores in zip(models, whole, strict=True):
        plain = model.similarities(negatives.images)
        for metric in METRICS:
            np.testing.assert_allclose(scores[metric][0], plain[metric][0], atol=1e-7)
    later = score_conditions(models, negatives.images[5:], CASES, key=key, first=8)
    monkeypatch.setattr(conditions, "BATCH", 8)
    large = score_conditions(models, negatives.images, CASES, key=key, first=3)
    for metric in METRICS:
        np.testing.assert_array_equal(large[1][metric], whole[1][metric])
        np.testing.assert_array_equal(later[1][metric], whole[1][metric][:, 5:])


def test_the_sheet(experiment):
    models, positives, negatives = experiment
    upper = [m.score_samples(own.images) for m, own in zip(models, positives, strict=True)]
    lower = [m.score_samples(negatives.images) for m in models]
    line = float(np.median(np.r_[upper[0], lower[0]]))
    programs = conditions._similarities._cache_size()
    finished = []
    sheet = robustness_sheet(
        models, positives, negatives, [line, None], resamples=100, progress=finished.append
    )
    # One program serves all conditions, folds and batches.
    assert conditions._similarities._cache_size() <= programs + 1
    assert sum(finished) == 7 + 5 + 2 * 11
    assert json.loads(json.dumps(sheet)) == sheet
    assert sheet["images"]["positives"] == [7, 5] and sheet["images"]["negatives"] == 11
    assert set(sheet["axes"]) == {*CORRUPTIONS, "mask_position", "mask_size"}

    areas = [
        roc_auc_score([1] * len(a) + [0] * len(b), np.r_[a, b]) for a, b in zip(upper, lower, strict=True)
    ]
    plain = sheet["plain"]
    assert plain["auroc"]["folds"] == pytest.approx(areas)
    assert plain["auroc"]["mean"] == pytest.approx(np.mean(areas))
    assert plain["missed"]["folds"] == [np.mean(upper[0] <= line), None]
    assert plain["missed"]["mean"] == plain["missed"]["folds"][0]
    assert plain["false_alarms"]["folds"] == [np.mean(lower[0] > line), None]
    assert 0 < plain["missed"]["mean"] < 1 and 0 < plain["false_alarms"]["mean"] < 1

    for axis in sheet["axes"].values():
        assert axis["unit"] and len(axis["strengths"]) == len(axis["entries"]) == 5
        for entry in axis["entries"]:
            area = entry["auroc"]
            assert area["mean"] == pytest.approx(np.mean(area["folds"]))
            assert 0 <= area["low"] <= area["mean"] + 1e-9 and area["mean"] - 1e-9 <= area["high"] <= 1
    # Each entry belongs to its strength: two entries of the first fold, scored separately.
    drawn = [
        score_conditions(models[:1], side.images, CASES, key=jax.random.key(0), first=first)[0]
        for side, first in ((positives[0], len(negatives.images)), (negatives, 0))
    ]
    for name, place, case in (("noise", 2, 1), ("mask_size", 3, 6)):
        a, b = (scores["ssim_hbd"][case] for scores in drawn)
        area = sheet["axes"][name]["entries"][place]["auroc"]["folds"][0]
        assert area == pytest.approx(roc_auc_score([1] * len(a) + [0] * len(b), np.r_[a, b]))
    # Noise hides the only difference between the two sides, and no image can be inpainted any more.
    noise = sheet["axes"]["noise"]["entries"]
    assert noise[-1]["auroc"]["mean"] < plain["auroc"]["mean"] - 0.2
    assert noise[-1]["missed"]["mean"] == 1 and noise[-1]["false_alarms"]["mean"] == 0
    # The smaller the pasted part of the patch, the more similar every image is to its original.
    smaller = [plain, *sheet["axes"]["mask_size"]["entries"]]
    alarms = [entry["false_alarms"]["mean"] for entry in smaller]
    assert alarms == sorted(alarms) and smaller[-1]["missed"]["mean"] == 0 and alarms[-1] == 1


def test_a_sheet_on_a_sample_of_the_images_says_so(experiment):
    models, positives, negatives = experiment
    options = {"limit": 6, "resamples": 20}
    sheet = robustness_sheet(models, positives, negatives, [0.7, 0.7], **options, seed=1)
    assert sheet["limit"] == 6 and sheet["images"] == {
        "positives": [6, 5],
        "negatives": 6,
        "of_positives": [7, 5],
        "of_negatives": 11,
    }
    assert sheet == robustness_sheet(models, positives, negatives, [0.7, 0.7], **options, seed=1)
    other = robustness_sheet(models, positives, negatives, [0.7, 0.7], **options, seed=2)
    assert sheet["plain"]["auroc"]["folds"] != other["plain"]["auroc"]["folds"]


def test_a_score_on_the_threshold_is_missed():
    scores = [np.array([0.5, 0.7, 0.4]), np.array([0.9])]
    assert _shares(scores, [0.5, None], above=False) == {"mean": 2 / 3, "folds": [2 / 3, None]}
    assert _shares(scores, [0.5, 0.5], above=True) == {"mean": 2 / 3, "folds": [1 / 3, 1.0]}
    assert _shares(scores, [None, None], above=True) == {"mean": None, "folds": [None, None]}


def test_every_image_has_its_own_noise(experiment):
    (model, _), positives, negatives = experiment
    same = [positives[0], positives[0]]
    first, second = score_folds([model, model], same, negatives, CASES, seed=0)[0]
    np.testing.assert_array_equal(first["mae"][0], second["mae"][0])
    assert np.all(first["mae"][1] != second["mae"][1])


def test_the_clinical_test(experiment):
    models, positives, negatives = experiment
    finished = []
    result, scored = clinical_test(
        models, positives, negatives, sigma=0.1, resamples=100, seed=3, progress=finished.append
    )
    assert json.loads(json.dumps(result)) == result
    assert result["images"] == {"positives": 11, "negatives": 11, "of_positives": [7, 5]}
    assert sum(finished) == 4 * 11
    folds = [auroc(fold.similarities["mae"], fold.positive) for fold in scored]
    assert result["auroc"]["mae"]["folds"] == folds
    assert list(result["auroc"]) == list(METRICS)
    sweep = result["noise_sweep"]
    assert sweep["sigmas"] == list(SIGMAS) and len(sweep["positives"]) == len(sweep["both"]) == 7
    # The test itself is one point of its sweep; without noise, both sweeps are the same.
    assert result["auroc"]["ssim_hbd"] == sweep["positives"][SIGMAS.index(0.1)]
    assert sweep["positives"][0] == sweep["both"][0]
    # Noise on mpox alone reverses the order; on both sides it only hides the difference.
    assert sweep["positives"][0]["mean"] > 0.7
    assert sweep["positives"][-1]["mean"] == 0 and 0.1 < sweep["both"][-1]["mean"] < 0.9


def test_images_get_the_noise_of_the_clinical_test(experiment):
    """Inside the program (MIM) and outside it (classifiers) the noise is the same."""
    (model, _), positives, negatives = experiment
    drawn = sheet.draw_clinical(positives, 11, seed=3)
    noisy = sheet.add_noise(drawn[1].images, sigma=0.1, seed=3, first=2 * 11)
    _, scored = clinical_test([model, model], positives, negatives, sigma=0.1, resamples=5, seed=3)
    expected = scored[1].similarities["mae"][scored[1].positive]
    np.testing.assert_allclose(model.similarities(noisy)["mae"][0], expected, atol=1e-6)


def test_the_clinical_draw_takes_every_image_about_equally_often(experiment, monkeypatch):
    models, positives, negatives = experiment
    drawn, take = [], GroupedImages.take
    monkeypatch.setattr(GroupedImages, "take", lambda own, index: drawn.append(index) or take(own, index))
    clinical_test(models, positives, negatives, resamples=5)
    for own, index in zip(positives, drawn, strict=True):
        counts = np.bincount(index, minlength=len(own.images))
        assert counts.sum() == len(negatives.images) and counts.max() - counts.min() == 1


def test_copies_of_one_image_are_one_group(experiment):
    models, positives, negatives = experiment
    one = GroupedImages(positives[0].images, np.repeat("patient", 7))
    options = {"resamples": 200}
    apart = clinical_test(models[:1], positives[:1], negatives, **options)[0]["auroc"]["mae"]
    together = clinical_test(models[:1], [one], grouped(negatives.images), **options)[0]["auroc"]["mae"]
    assert together["mean"] == apart["mean"]
    assert apart["low"] < apart["mean"] < apart["high"]
    assert together["low"] is together["high"] is None  # one patient says nothing of how patients vary


def test_errors_name_what_is_wrong(experiment):
    models, positives, negatives = experiment
    none = GroupedImages(negatives.images[:0], negatives.groups[:0])
    with pytest.raises(ValueError, match="there are no negatives"):
        clinical_test(models, positives, none)
    with pytest.raises(ValueError, match="there are no positives of fold 1"):
        clinical_test(models, [positives[0], none], negatives)


def test_a_detector_without_a_hole_is_scored_on_corrupted_images():
    """Each condition gives the detector's own scores of the corrupted images, fold by fold."""
    rng = np.random.default_rng(0)
    contrasts = rng.uniform(0.1, 1, (25, 1, 1, 3))  # so that their histograms differ
    pictures = (contrasts * rng.integers(0, 256, (25, SIZE, SIZE, 3))).astype(np.uint8)
    pictures, others = pictures[:20], pictures[20:]
    backbone = Backbone("mine", lambda weights, images: {"halves": images[:, ::2, ::2]}, SIZE)
    training = [np.arange(15), np.arange(5, 20)]
    whole = fit_detector(backbone, pictures, groups=np.arange(20), training=training, kinds=("nearest",))
    models = [whole.of_fold(fold) for fold in range(2)]
    cases = [Condition(), Condition("brightness", 0.3), Condition("jpeg", 10)]
    found = score_conditions(models, others, cases, key=jax.random.key(0))
    worse = [
        CORRUPTIONS[case.corruption](
            jax.random.key(0), others.astype(np.float32) / 255, case.strength, index=np.arange(5)
        )
        for case in cases
    ]
    for fold, scores in enumerate(found):
        for row, images in zip(scores["features"], worse, strict=True):
            expected = whole.similarities(np.asarray(images))["features"][fold]
            np.testing.assert_allclose(row, expected, atol=2e-3)


def test_folds_and_experiments_share_the_programs_of_a_detector_without_a_hole():
    """The network is traced once for a single fold and once for all folds, not again for each fold."""
    traced = []

    def halves(weights, images):
        traced.append(images.shape)
        return {"halves": images[:, ::2, ::2]}

    rng = np.random.default_rng(1)
    pictures = (rng.uniform(0.1, 1, (18, 1, 1, 3)) * rng.integers(0, 256, (18, 8, 8, 3))).astype(np.uint8)
    training = [np.arange(12), np.arange(3, 15), np.arange(6, 18)]
    whole = fit_detector(
        Backbone("mine", halves, 8), pictures, groups=np.arange(18), training=training, kinds=("nearest",)
    )
    models, sides = [whole.of_fold(fold) for fold in range(3)], [grouped(pictures[:4])] * 3
    traced.clear()
    for seed in range(2):
        _, scored = clinical_test(models, sides, grouped(pictures[4:9]), resamples=40, seed=seed)
    assert len(traced) == 2
    clean = [images.similarities["features"][-5:] for images in scored]
    np.testing.assert_allclose(clean, whole.similarities(pictures[4:9])["features"], atol=1e-6)
