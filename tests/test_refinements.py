"""Refinements against scikit-learn, SciPy and formulas; what they take off and what they leave."""

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from mim_jax.decide.conformal import p_values
from mim_jax.refinements import (
    STRENGTHS,
    Correction,
    combine,
    fit_correction,
    neighbor_scores,
)


def table(seed: int, count: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of unlike units `[count, 6]`, and scores that two of them predict."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(count, 6))
    latent[:, 1] += 2 * latent[:, 0]
    scores = 0.8 + 0.05 * (latent[:, 0] - 0.5 * latent[:, 2] + noise * rng.normal(size=count))
    return latent * [1, 30, 0.2, 1, 5, 1e-3] + [0, 100, -4, 0.5, 0, 0], scores


def test_correction_is_the_ridge_regression_that_left_out_images_choose():
    features, scores = table(0, 40)
    correction = fit_correction(features, scores)
    rows = StandardScaler().fit(features)
    finite = [40 * strength for strength in STRENGTHS if np.isfinite(strength)]
    ridge = RidgeCV(alphas=finite).fit(rows.transform(features), scores)
    assert min(finite) < ridge.alpha_ < max(finite)
    np.testing.assert_allclose(40 * correction.strength, ridge.alpha_)
    new = table(1, 25)[0]
    np.testing.assert_allclose(correction.predict(new), ridge.predict(rows.transform(new)), rtol=1e-9)
    np.testing.assert_allclose(correction.residual(new, np.ones(25)), 1 - correction.predict(new))


def test_groups_are_left_out_whole():
    features, scores = table(2, 12)
    # Copies of an image, slightly changed: left out one by one, they would vouch for each other.
    rng = np.random.default_rng(3)
    features = np.repeat(features, 3, axis=0) + 0.01 * rng.normal(size=(36, 6)) * features.std(axis=0)
    scores = np.repeat(scores, 3) + 0.002 * rng.normal(size=36)
    groups = np.repeat([f"patient {i}" for i in range(12)], 3)
    order = rng.permutation(36)
    features, scores, groups = features[order], scores[order], groups[order]

    standard = StandardScaler().fit_transform(features)
    errors = {}
    for strength in STRENGTHS:
        missed = []
        for kept, left in LeaveOneGroupOut().split(standard, scores, groups):
            prediction = np.full(len(left), scores[kept].mean())
            if np.isfinite(strength):
                fit = Ridge(alpha=36 * strength).fit(standard[kept], scores[kept])
                prediction = fit.predict(standard[left])
            missed.append((scores[left] - prediction) ** 2)
        errors[strength] = np.mean(np.concatenate(missed))
    best = min(errors, key=errors.get)
    grouped, single = fit_correction(features, scores, groups=groups), fit_correction(features, scores)
    assert 0 < grouped.strength == best < np.inf
    np.testing.assert_allclose(grouped.explained, 1 - errors[best] / errors[np.inf], rtol=1e-7)
    assert single.strength < grouped.strength
    assert single.explained > grouped.explained + 0.1


def test_complexity_is_taken_off_and_the_rest_is_left():
    features, easy = table(4, 150, noise=0.0)
    known = fit_correction(features[:100], easy[:100])
    assert known.explained > 0.99
    like = np.linspace(-0.01, 0.01, 50)
    np.testing.assert_allclose(known.residual(features[100:], easy[100:] + like), like, atol=1e-4)


def test_scores_that_nothing_predicts_keep_their_order():
    # Each image has an opposite of the same score: no line fits better than a level one.
    features, scores = table(5, 30)
    features, scores = np.concatenate([features, -features]), np.tile(scores, 2)
    correction = fit_correction(features, scores)
    assert correction.strength == np.inf
    assert correction.explained == 0
    np.testing.assert_allclose(correction.residual(features, scores), scores - scores.mean())
    alike = fit_correction(features, np.full(60, 0.9))
    np.testing.assert_allclose(alike.residual(features, scores), scores - 0.9)


def test_a_constant_feature_changes_nothing():
    features, scores = table(6, 30)
    wider = np.concatenate([features, np.full((30, 1), 0.1)], axis=1)
    plain, more = fit_correction(features, scores), fit_correction(wider, scores)
    np.testing.assert_allclose(more.predict(wider), plain.predict(features), rtol=1e-9)
    wider[:, -1] = 0.2  # a test image may differ where no training image did
    np.testing.assert_allclose(more.predict(wider), plain.predict(features), rtol=1e-9)
    assert np.all(np.isfinite(neighbor_scores(wider, more.mean + 0 * wider)))


@pytest.mark.parametrize("k", [1, 3, 20])
def test_neighbors_are_those_of_scikit_learn(k):
    features, train = table(7, 30)[0], table(8, 20)[0]
    scaler = StandardScaler().fit(train)
    search = NearestNeighbors(n_neighbors=k).fit(scaler.transform(train))
    distances, _ = search.kneighbors(scaler.transform(features))
    scores = neighbor_scores(features, train, k=k)
    np.testing.assert_allclose(scores, -distances.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(neighbor_scores(features * 7 - 3, train * 7 - 3, k=k), scores, rtol=1e-6)


def test_images_like_the_training_images_are_near():
    features = table(9, 40)[0]
    scores = neighbor_scores(np.concatenate([features[20:], features[20:] * 1.5 + 1]), features[:20])
    assert np.mean(scores[:20, None] > scores[None, 20:]) > 0.8  # the AUROC
    np.testing.assert_array_equal(neighbor_scores(features, features, k=1), 0)


def test_combination_is_that_of_fisher():
    p = np.random.default_rng(12).uniform(0.01, 1, (4, 50))
    expected = [scipy.stats.combine_pvalues(column, method="fisher").statistic for column in p.T]
    np.testing.assert_allclose(combine(list(p)), -np.array(expected))
    better = p.copy()
    better[2] = (1 + p[2]) / 2
    assert np.all(combine(better) > combine(p))  # high = mpox-like in every part
    np.testing.assert_array_equal(combine([np.ones(3)]), 0)


def test_a_score_depends_on_its_own_image_alone():
    # Two dozen features: sums of so many round differently in another order.
    features, train = (
        np.concatenate([table(18 + 9 * i + j, n)[0] for i in range(4)], axis=1) for j, n in ((0, 37), (1, 21))
    )
    scores, known = table(14, 37)[1], table(15, 21)[1]
    correction = fit_correction(train, known)
    rest = {
        "residual": lambda own: correction.residual(features[own], scores[own]),
        "neighbors": lambda own: neighbor_scores(features[own], train),
        "p": lambda own: combine([p_values(known, scores[own]), p_values(known - 0.02, scores[own])]),
    }
    order = np.random.default_rng(16).permutation(37)
    for score in rest.values():
        whole = score(np.arange(37))
        assert whole.dtype == np.float64
        assert np.all(np.isfinite(whole))
        np.testing.assert_array_equal(score(order), whole[order])
        np.testing.assert_array_equal(score([20]), whole[20:21])
    turned = np.asfortranarray(features)
    np.testing.assert_array_equal(correction.predict(turned), correction.predict(features))


def test_errors_name_what_is_wrong():
    features, scores = table(17, 10)
    correction = fit_correction(features, scores)
    assert isinstance(correction, Correction)
    with pytest.raises(ValueError, match=r"scores must be \[10\], one number an image, got \[9\]"):
        fit_correction(features, scores[:9])
    with pytest.raises(ValueError, match=r"groups must be one a row of features, \[10\], got \[3\]"):
        fit_correction(features, scores, groups=np.arange(3))
    with pytest.raises(ValueError, match=r"10 images in 1 group\(s\) cannot choose a strength"):
        fit_correction(features, scores, groups=np.zeros(10))
    with pytest.raises(ValueError, match=r"features must be \[N, 6\], one row an image, got \[10, 5\]"):
        correction.residual(features[:, :5], scores)
    with pytest.raises(ValueError, match=r"features must be \[N, 6\].* got \[10, 5\]"):
        neighbor_scores(features[:, :5], features)
    for k in (0, 11):
        with pytest.raises(ValueError, match=f"k={k} neighbours.* among 10 training images"):
            neighbor_scores(features, features, k=k)
    broken = features.copy()
    broken[4, 2] = np.nan
    with pytest.raises(ValueError, match="features holds 1 numbers that are not finite, the first in row 4"):
        neighbor_scores(broken, features)
    with pytest.raises(ValueError, match="calibration_scores is empty"):
        p_values(np.zeros(0), scores)
    with pytest.raises(ValueError, match=r"p must hold at least one array.* got \[3, 4\] values"):
        combine([np.ones(3), np.ones(4)])
    with pytest.raises(ValueError, match="got \\[\\] values"):
        combine([])
    with pytest.raises(ValueError, match=r"p-values must lie in \(0, 1\], got 0 to 1"):
        combine([np.array([0.0, 1.0])])
