"""One-class scores against scikit-learn and plain loops, and what they must not depend on."""

import functools

import jax
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from mim_jax.features import one_class
from mim_jax.measure import histogram

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RNG = np.random.default_rng(0)
LAYERS = {"shallow": 12, "deep": 40}  # fewer and more channels than there are training images
GROUPS = np.arange(36) // 2
TRAINING = [np.arange(24), np.arange(12, 36)]


@functools.cache
def histograms(count=36, seed=0):
    """Random histograms for each layer, `[count, channels]`, each summing to 1."""
    rng = np.random.default_rng(seed)
    masses = {layer: rng.gamma(3.0, size=(count, channels)) for layer, channels in LAYERS.items()}
    return {layer: (m / m.sum(axis=1, keepdims=True)).astype(np.float32) for layer, m in masses.items()}


@functools.cache
def fitted(*kinds):
    return one_class.fit(histograms(), GROUPS, TRAINING, kinds=kinds)


def raw(kind):
    """Raw scores, [layers, folds, images], of images that are not in the fit."""
    reference = fitted(kind)
    return np.asarray(one_class._raw_scores(reference.gallery, reference.kinds, histograms(7, seed=1)))


def roots(layer, **given):
    return np.sqrt(histograms(**given)[layer].astype(np.float64))


def test_coefficients_are_those_of_the_measure():
    p, q = histograms(7, seed=1)["deep"], histograms()["deep"]
    pairs = [[float(histogram.coefficient(a, b)) for b in q] for a in p]
    np.testing.assert_allclose(one_class.coefficients(p, q), pairs, atol=1e-6)


def test_the_nearest_is_hellingers():
    for number, layer in enumerate(sorted(LAYERS)):
        for fold, own in enumerate(TRAINING):
            neighbours = NearestNeighbors(n_neighbors=1).fit(roots(layer)[own])
            distances, _ = neighbours.kneighbors(roots(layer, count=7, seed=1))
            np.testing.assert_allclose(raw("nearest")[number, fold], -distances[:, 0] / np.sqrt(2), atol=1e-5)


def test_the_cosine_is_that_of_the_five_nearest():
    for number, layer in enumerate(sorted(LAYERS)):
        for fold, own in enumerate(TRAINING):
            neighbours = NearestNeighbors(n_neighbors=5, metric="cosine").fit(histograms()[layer][own])
            distances, _ = neighbours.kneighbors(histograms(7, seed=1)[layer])
            np.testing.assert_allclose(raw("cosine")[number, fold], 1 - distances.mean(axis=1), atol=1e-5)


def test_mahalanobis_is_that_of_a_shrunk_covariance():
    for number, layer in enumerate(sorted(LAYERS)):
        for fold, own in enumerate(TRAINING):
            model = LedoitWolf().fit(roots(layer)[own])
            expected = -np.sqrt(model.mahalanobis(roots(layer, count=7, seed=1)))
            np.testing.assert_allclose(raw("mahalanobis")[number, fold], expected, rtol=2e-4)


def test_units_are_those_of_held_out_training_images():
    # Refitted on four fifths of a fold's training images, the held-out fifth scores as it did in the fit;
    # over all inner folds these scores have median 0 and interquartile range 1.
    from mim_jax.data.folds import make_folds

    own = TRAINING[0]
    scores = np.full(len(own), np.nan)
    whole = fitted("nearest")
    for fold in make_folds(GROUPS[own], folds=one_class.INNER_FOLDS, seed=0):
        inner = one_class.fit(histograms(), GROUPS, [own[fold.train]], kinds=("nearest",))
        part = {layer: rows[own[fold.test]] for layer, rows in histograms().items()}
        values = np.asarray(one_class._raw_scores(inner.gallery, inner.kinds, part))[:, 0]
        units = [np.asarray(each)[0][:, None] for each in whole.units]
        joined = ((values - units[0]) / units[1]).mean(axis=0)
        scores[fold.test] = (joined - whole.joined.median[0]) / whole.joined.spread[0]
    assert np.median(scores) == pytest.approx(0, abs=1e-4)
    assert np.subtract(*np.percentile(scores, [75, 25])) == pytest.approx(1, abs=1e-3)


def test_a_fold_sees_its_own_training_images_alone():
    both, alone = fitted("nearest", "mahalanobis"), one_class.fit(histograms(), GROUPS, TRAINING[1:])
    images = histograms(7, seed=1)
    expected = np.asarray(one_class.score(alone, images))[0]
    np.testing.assert_allclose(one_class.score(both, images)[1], expected, atol=1e-5)
    # Matrix products of other shapes are summed in another order.
    np.testing.assert_allclose(one_class.score(both.of_fold(1), images)[0], expected, atol=1e-5)


def test_compiled_it_is_the_same():
    # jit sorts dictionaries by their keys; the units must stay with their layers.
    reference, images = fitted("nearest", "mahalanobis", "cosine"), histograms(7, seed=1)
    plain = one_class.score(reference, images)
    np.testing.assert_allclose(jax.jit(one_class.score)(reference, images), plain, atol=2e-4)


def test_the_order_of_kinds_does_not_matter():
    images = histograms(7, seed=1)
    np.testing.assert_array_equal(
        one_class.score(fitted("nearest", "mahalanobis"), images),
        one_class.score(fitted("mahalanobis", "nearest"), images),
    )


def test_a_training_image_is_nearer_than_a_stranger():
    strangers = {layer: rows[:, ::-1] ** 4 for layer, rows in histograms(7, seed=2).items()}
    strangers = {layer: rows / rows.sum(axis=1, keepdims=True) for layer, rows in strangers.items()}
    own = one_class.score(fitted("nearest", "mahalanobis"), histograms())[0, TRAINING[0]]
    assert float(own.min()) > float(one_class.score(fitted("nearest", "mahalanobis"), strangers)[0].max())


@pytest.mark.parametrize(
    ("kinds", "count", "words"),
    [
        (("nearest", "closest"), 36, "unknown kind of score 'closest'.*nearest, mahalanobis, cosine"),
        (("cosine",), 6, "a fold has 6 training images.*fewer than the 6 that cosine need"),
        (("nearest",), 3, "3 images.*cannot fill 5 folds"),
    ],
)
def test_mistakes_are_named(kinds, count, words):
    with pytest.raises(ValueError, match=words):
        one_class.fit(histograms(), np.arange(36), [np.arange(count)], kinds=kinds)
