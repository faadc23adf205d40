"""Open-set scores against scikit-learn and SciPy, and what they must not depend on."""

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from mim_jax.classifiers import ood_scores


def a_problem(*, classes=4, width=12, images=40, seed=0):
    """Training features with labels, then logits and features of other images."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    # Features of different spread, correlated and off the origin: assuming isotropy would show.
    mix = generator.normal(size=(width, width)) * np.linspace(0.1, 3, width)
    train = generator.normal(size=(images, width)) @ mix + 2 * generator.normal(size=(classes, width))[labels]
    return train, labels, generator.normal(size=(25, classes)), generator.normal(size=(25, width)) @ mix


@pytest.mark.parametrize("width", [12, 90])  # more images than features, and fewer
def test_distances_are_those_of_scikit_learn(width):
    train, labels, logits, features = a_problem(width=width)
    scores = ood_scores.score(logits, features, ood_scores.fit(train, labels, 4), positive=2)
    means = np.stack([train[labels == label].mean(axis=0) for label in range(4)])
    precision = LedoitWolf(assume_centered=True).fit(train - means[labels]).precision_
    apart = features[:, None] - means
    squared = np.einsum("mcf,fg,mcg->mc", apart, precision, apart)
    np.testing.assert_allclose(scores["mahalanobis"], -squared.min(axis=1), rtol=1e-8)
    np.testing.assert_allclose(scores["positive_mahalanobis"], -squared[:, 2], rtol=1e-8)
    for name, kept in (("neighbors", labels >= 0), ("positive_neighbors", labels == 2)):
        search = NearestNeighbors(n_neighbors=5).fit(normalize(train[kept]))
        expected = search.kneighbors(normalize(features))[0][:, 4]
        np.testing.assert_allclose(scores[name], -expected, rtol=1e-7)


def test_logit_scores_are_their_formulas():
    train, labels, logits, features = a_problem()
    scores = ood_scores.score(logits, features, ood_scores.fit(train, labels, 4), positive=1)
    assert tuple(scores) == ood_scores.SCORES and set(ood_scores.KNOWN) < set(ood_scores.SCORES)
    assert all(values.dtype == np.float64 and values.shape == (25,) for values in scores.values())
    np.testing.assert_allclose(scores["probability"], softmax(logits, axis=1)[:, 1])
    np.testing.assert_allclose(scores["msp"], np.exp(logits.max(axis=1) - logsumexp(logits, axis=1)))
    np.testing.assert_allclose(scores["energy"], np.log(np.exp(logits).sum(axis=1)))
    np.testing.assert_array_equal(scores["positive_energy"], logits[:, 1])


def test_scores_do_not_depend_on_order_batch_or_irrelevant_scales():
    train, labels, logits, features = a_problem()
    fitted = ood_scores.fit(train, labels, 4)
    scores = ood_scores.score(logits, features, fitted)
    shifted = ood_scores.score(logits + 700, features, fitted)
    for name in ("probability", "msp"):
        np.testing.assert_allclose(shifted[name], scores[name], rtol=1e-10)
    np.testing.assert_allclose(shifted["energy"], scores["energy"] + 700)
    order = np.random.default_rng(1).permutation(len(train))
    permuted = ood_scores.score(logits, features, ood_scores.fit(train[order], labels[order], 4))
    scaled = ood_scores.score(logits, 3 * features, ood_scores.fit(train, labels, 4))
    for name in ood_scores.SCORES:
        np.testing.assert_allclose(permuted[name], scores[name], rtol=1e-9)
        alone = ood_scores.score(logits[3:4], features[3:4], fitted)
        np.testing.assert_allclose(alone[name], scores[name][3:4], rtol=1e-10)
        if name.endswith("neighbors"):
            np.testing.assert_allclose(scaled[name], scores[name], rtol=1e-9)


def test_two_classes_few_images_and_saturated_probabilities():
    train, labels, logits, features = a_problem(classes=2, images=6)
    scores = ood_scores.score(logits, features, ood_scores.fit(train, labels, 2))
    p = scores["probability"]
    np.testing.assert_allclose(scores["msp"], np.maximum(p, 1 - p))
    own = normalize(train[labels == 0])
    farthest = np.linalg.norm(normalize(features)[:, None] - own, axis=2).max(axis=1)
    np.testing.assert_allclose(scores["positive_neighbors"], -farthest)
    logits[:2] = [[900.0, -900.0], [800.0, -800.0]]
    sure = ood_scores.score(logits, features, ood_scores.fit(train, labels, 2))
    assert sure["probability"][0] == sure["probability"][1] == 1
    assert sure["positive_energy"][0] > sure["positive_energy"][1]


def test_degenerate_features_have_finite_scores():
    train, labels, logits, features = a_problem(classes=2, images=4)
    train[:, 5:] = 0
    train[0] = 0
    features[0] = 0
    scores = ood_scores.score(logits, features, ood_scores.fit(train, labels, 2))
    assert all(np.isfinite(values).all() for values in scores.values())


def test_errors_name_what_is_wrong():
    train, labels, logits, features = a_problem()
    fitted = ood_scores.fit(train, labels, 4)
    with pytest.raises(ValueError, match="class 4 has none of the 40 training images"):
        ood_scores.fit(train, labels, 5)
    with pytest.raises(ValueError, match="labels run from 0 to 3"):
        ood_scores.fit(train, labels, 3)
    with pytest.raises(ValueError, match=r"40 rows of training features and labels of shape \[39\]"):
        ood_scores.fit(train, labels[:-1], 4)
    with pytest.raises(ValueError, match="do not vary within any"):
        ood_scores.fit(train[:4], labels[:4], 4)
    train[7, 3] = np.nan
    with pytest.raises(ValueError, match=r"training features of image 7 are not finite \(1 of 40"):
        ood_scores.fit(train, labels, 4)
    with pytest.raises(ValueError, match=r"logits \[24, 4\] and features \[25, 12\]"):
        ood_scores.score(logits[:-1], features, fitted)
    with pytest.raises(ValueError, match=r"features \[25, 11\]"):
        ood_scores.score(logits, features[:, 1:], fitted)
    with pytest.raises(ValueError, match="positive=4 is not a class"):
        ood_scores.score(logits, features, fitted, positive=4)
    logits[4, 0] = np.inf
    with pytest.raises(ValueError, match="logits of image 4"):
        ood_scores.score(logits, features, fitted)
