"""Exports of feature and combined detectors score as the detectors do, and are not mixed up."""

import json
import shutil

import numpy as np
import pytest

import mim_jax
from mim_jax.data import weight_files
from mim_jax.deploy import export, format
from mim_jax.features.backbones import BACKBONES, Named
from mim_jax.measure import METRICS
from tests.deploy.exports import REMOVED, exchange, refused
from tests.deploy.small import SIZE, make_combined, make_features, small_network, striped

pytestmark = pytest.mark.usefixtures("compiled_quickly")

MAKERS = {
    "features": lambda: make_features(color=False, folds=2),
    "combined": lambda: make_combined(folds=2, size=2 * SIZE),
}


@pytest.fixture(scope="module", params=sorted(MAKERS))
def exported(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / request.param
    detector = MAKERS[request.param]()
    return detector, path, export.export(detector, path)


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported[1], tmp_path / "copy")


@pytest.fixture(autouse=True)
def named(monkeypatch):
    """Register the invented network as a named backbone."""
    monkeypatch.setitem(BACKBONES, "small", Named(None, small_network))


def test_both_ways_score_and_assess_as_the_detector(exported):
    detector, path, digest = exported
    images = np.concatenate(
        [striped(3, detector.image_size, seed=1), export.golden_images(detector.image_size)]
    )
    expected = detector.similarities(images)
    for loaded in (mim_jax.load(path, digest=digest), mim_jax.load_exported(path, digest=digest)):
        found = loaded.similarities(images)
        assert list(found) == list(expected) == list(detector.metrics)
        for name, scores in expected.items():
            assert found[name].shape == (2, 11)
            np.testing.assert_allclose(found[name], scores, rtol=1e-5, atol=1e-5, err_msg=name)
        assert (loaded.folds, loaded.image_size, loaded.metric) == (2, detector.image_size, detector.metric)
        np.testing.assert_array_equal(loaded.predict(images), detector.predict(images))
        assert loaded.assess(images)[0].similarities.keys() == set(detector.metrics)
    assert type(mim_jax.load(path)) is type(detector)
    assert np.ptp(expected[detector.metric].mean(axis=0)) > 0.1
    fn, variables = loaded.pure()
    assert fn(variables, images).keys() == set(detector.metrics)


def test_a_repr_names_both_networks(exported):
    detector, path, _ = exported
    text = repr(mim_jax.load_exported(path))
    assert "backbone='small', folds=2, image_size=" in text
    assert ("network='context_encoder'" in text) == (detector.metric == "combined")


def test_metrics_and_networks_are_in_the_configuration(exported):
    detector, path, _ = exported
    config = json.loads((path / format.CONFIG).read_text())
    assert config["kind"] == path.name and config["metrics"] == list(detector.metrics)
    assert config["features"] == {
        "backbone": "small",
        "digest": "0" * 64,
        "image_size": detector.image_size,
        "source": "invented",
        "metric": "features" if path.name == "features" else "features_color",
    }


def test_one_kind_is_not_taken_for_another(exported, copy):
    other = "mim" if exported[1].name == "combined" else "combined"
    exchange(copy, format.CONFIG, kind=other)
    refused(copy, "which does not name a weight of a fold|lacks model|expected uint8")
    exchange(copy, format.CONFIG, kind="ensemble")
    refused(copy, "kind is 'ensemble', expected one of mim, features, combined")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": REMOVED}, "lacks features"),
        ({"features__digest": None}, r"features\.digest is None, expected str"),
        ({"features__image_size": 0}, "which is impossible|expected uint8"),
        ({"metrics": ["features", 1]}, "scores by .* which is not one of features, 1"),
        ({"metrics": METRICS}, "scores by '(features|combined)', which is not one of ssim_hbd"),
        ({"folds": 3}, "expected (3|0 to 2)"),
    ],
)
def test_an_odd_configuration_is_named(copy, fields, message):
    exchange(copy, format.CONFIG, **fields)
    refused(copy, message, loaders=[export.load_detector])


def test_weights_that_are_nan_or_of_another_network_are_named(exported, copy):
    prefix = "features/" if exported[1].name == "combined" else ""
    name = f"{prefix}backbone/first"
    kernel = weight_files.load(copy / format.WEIGHTS)[name]
    exchange(copy, format.WEIGHTS, **{name: kernel + 0.1})
    refused(copy, "golden images differs by")
    exchange(copy, format.WEIGHTS, **{name: np.full_like(kernel, np.nan)})
    refused(copy, f"{name} contains NaN or infinity")
    exchange(copy, format.WEIGHTS, **{name: np.zeros((2, 3, 13), np.float32)})
    refused(copy, "cannot be used with jax")


def test_a_gallery_of_another_network_is_named(exported, copy):
    prefix = "features/" if exported[1].name == "combined" else ""
    name = f"{prefix}references/features/gallery/second"
    gallery = weight_files.load(copy / format.WEIGHTS)[name]
    exchange(copy, format.WEIGHTS, **{name: gallery[:, :-1]})
    message = r"small gives \[16\] channels for second, but the reference data have \[15\]"
    refused(copy, message, loaders=[export.load_detector])


def test_a_network_without_a_name_is_scored_by_its_program(exported, monkeypatch):
    detector, path, _ = exported
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"a network 'small', which .* cannot build: run .*load_exported"):
        mim_jax.load(path)
    images = striped(2, detector.image_size, seed=1)
    found = mim_jax.load_exported(path).score_samples(images)
    np.testing.assert_allclose(found, detector.score_samples(images), rtol=1e-5, atol=1e-5)


def test_what_is_not_finite_is_not_exported(tmp_path):
    detector = make_features()
    detector.backbone.weights["first"][0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="weights of small are not all finite"):
        export.export(detector, tmp_path / "new")
    with pytest.raises(ValueError, match="a int cannot be exported"):
        export.export(3, tmp_path / "new")
