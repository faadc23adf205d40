"""The map of unlikeness is bright where an image differs from the training images, in units of the score."""

import jax
import numpy as np
import pytest

from mim_jax.features.backbone import Backbone
from mim_jax.features.detector import FEATURES, fit_detector
from mim_jax.features.unlikeness import MOST, _windows, unlikeness
from tests.deploy.small import SIZE, make_features, striped

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def spotted(count, seed=0):
    """Images of coloured squares, unlike the detector's training images."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (count, SIZE // 4, SIZE // 4, 3), dtype=np.uint8)
    return cells.repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize("axis", [1, 2])
def test_the_half_that_was_replaced_is_brighter(axis):
    detector = make_features(folds=2)
    images, half = striped(6, seed=5), SIZE // 2
    place = [slice(None)] * 3
    place[axis] = slice(half, None)
    images[tuple(place)] = spotted(6)[tuple(place)]
    maps = unlikeness(detector, images)
    assert maps.shape == (6, SIZE, SIZE) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    other = [slice(None)] * 3
    other[axis] = slice(0, half)
    replaced, kept = maps[tuple(place)].mean(axis=(1, 2)), maps[tuple(other)].mean(axis=(1, 2))
    assert (replaced > kept + 0.2).all()
    assert kept.mean() < unlikeness(detector, spotted(6)).mean() / 2


def window(place, side, half):
    first = min(max(place - half, 0), side - 2 * half - 1)
    return slice(first, first + 2 * half + 1)


def test_the_map_is_the_standardised_distance_of_every_window():
    """One layer and one fold, position by position."""
    backbone = Backbone("mine", lambda weights, images: {"halves": images[:, ::2, ::2] ** 2}, SIZE)
    training, image = striped(12), spotted(1)
    detector = fit_detector(backbone, training, groups=np.arange(12), training=[np.arange(12)])
    reference = detector.references[FEATURES]
    features = (image[0, ::2, ::2] / 255.0) ** 2
    side, half = SIZE // 2, 4
    expected = np.zeros((side, side))
    unit = reference.units.spread[0, 1], reference.units.median[0, 1]  # after "mahalanobis"
    for y in range(side):
        for x in range(side):
            rows, columns = (window(place, side, half) for place in (y, x))
            spread = features[rows, columns].std(axis=(0, 1))
            roots = np.sqrt(spread / spread.sum())
            nearest = max(roots @ np.sqrt(known) for known in reference.gallery["halves"])
            expected[y, x] = (np.sqrt(max(1 - nearest, 0)) + unit[1]) / unit[0]
    expected = jax.image.resize(np.float32(expected), (SIZE, SIZE), "linear")
    found = unlikeness(detector, image)[0]
    np.testing.assert_allclose(found, np.clip(expected / MOST, 0, 1), atol=1e-4)
    assert 0.1 < found.mean() < 1 and np.ptp(found) > 0.1


def test_windows_are_of_one_size_and_stay_inside():
    matrix = _windows(7)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
    assert [np.flatnonzero(row).tolist() for row in matrix[[0, 1, 2, 6]]] == [
        [0, 1, 2],
        [0, 1, 2],
        [1, 2, 3],
        [4, 5, 6],
    ]
    assert set((_windows(28) > 0).sum(axis=1)) == {7}
    np.testing.assert_array_equal(_windows(2), 0.5)


def test_a_map_does_not_depend_on_the_batch():
    detector, images = make_features(), spotted(9)
    np.testing.assert_array_equal(unlikeness(detector, images)[8], unlikeness(detector, images[8])[0])


def test_a_detector_without_nearest_distances_is_refused():
    images = striped(20)
    backbone = make_features().backbone
    cosine = fit_detector(backbone, images, groups=np.arange(20), training=[np.arange(20)], kinds=["cosine"])
    with pytest.raises(ValueError, match=r"the map needs the kind of score 'nearest', .* has cosine"):
        unlikeness(cosine, images)
    with pytest.raises(ValueError, match=r"images must be \[N, 64, 64, 3\]"):
        unlikeness(make_features(), images[:, :32])
