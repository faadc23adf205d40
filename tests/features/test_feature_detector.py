"""The feature detector on a small network: its histograms, and what every detector guarantees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.features import cache, saved
from mim_jax.features.backbone import Backbone
from mim_jax.features.detector import COLOR, FEATURES, FeatureDetector, describe_images, fit_detector
from mim_jax.features.histograms import channel_histograms, color_histogram, feature_hbd
from mim_jax.features.unlikeness import unlikeness
from mim_jax.inpaint.convolution import conv

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SIZE = 16


def apply(weights, images):
    # Not XLA's convolution: without AVX-512 it rounds an image differently by its place in the batch.
    first = conv(images, weights["kernel"], stride=2, padding=1)
    return {"first": jax.nn.relu(first), "second": jax.nn.relu(first[:, ::2, ::2] - 0.1)}


@functools.cache
def backbone():
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 10)).astype(np.float32)
    return Backbone("small", apply, SIZE, {"kernel": kernel}, digest="0" * 64)


@functools.cache
def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


@functools.cache
def detector():
    training = [np.arange(20), np.arange(10, 30)]
    return fit_detector(backbone(), pictures(30), groups=np.arange(30), training=training, color=True)


def test_a_histogram_is_the_spread_over_positions_and_mirror_images():
    image = pictures(1)[0] / np.float32(255)
    mirrored = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    maps = [np.asarray(apply(backbone().weights, each[None])["first"])[0] for each in mirrored]
    spread = np.mean([each.reshape(-1, 10).std(axis=0) for each in maps], axis=0)
    found = channel_histograms(backbone(), image[None])["first"][0]
    np.testing.assert_allclose(found, spread / spread.sum(), rtol=1e-4)


def test_colours_are_counted_exactly():
    levels = pictures(2, seed=3).astype(int) * 6 // 256
    joint = levels @ np.array([36, 6, 1])
    expected = [np.bincount(each.ravel(), minlength=216) / SIZE**2 for each in joint]
    np.testing.assert_allclose(color_histogram(jnp.asarray(pictures(2, seed=3))), expected, atol=1e-7)


def test_a_mirrored_image_scores_the_same():
    plain = detector().similarities(pictures(5, seed=4))
    for mirrored in (pictures(5, seed=4)[:, :, ::-1], pictures(5, seed=4)[:, ::-1]):
        np.testing.assert_allclose(detector().similarities(mirrored)[FEATURES], plain[FEATURES], atol=1e-3)


def test_a_score_does_not_depend_on_the_batch():
    images = pictures(11, seed=5)
    every = detector().similarities(images)
    order = np.random.default_rng(0).permutation(11)
    shuffled, single = detector().similarities(images[order]), detector().similarities(images[3])
    for name, scores in every.items():
        np.testing.assert_array_equal(shuffled[name], scores[:, order])
        np.testing.assert_array_equal(single[name][:, 0], scores[:, 3])
    streamed = detector().score_samples(iter(images))
    np.testing.assert_array_equal(streamed, every[detector().metric].mean(axis=0))


def test_the_pure_function_scores_as_the_detector():
    fn, variables = detector().pure()
    images = pictures(3, seed=6)
    found = jax.jit(fn)(variables, images)
    np.testing.assert_allclose(
        found[FEATURES], detector().similarities(images)[FEATURES].mean(axis=0), atol=1e-4
    )
    floats = jax.jit(fn)(variables, images / np.float32(255))
    np.testing.assert_allclose(floats[FEATURES], found[FEATURES], atol=1e-4)
    with pytest.raises(ValueError, match=r"\[B, 16, 16, 3\], got \[1, 8, 8, 3\]"):
        fn(variables, jnp.zeros((1, 8, 8, 3)))


def test_it_comes_back_from_its_files(tmp_path, monkeypatch):
    saved.save(tmp_path, detector(), weights="")
    with pytest.raises(ValueError, match="unknown backbone 'small'"):
        saved.load(tmp_path)
    monkeypatch.setattr(saved, "load_backbone", lambda name, weights: backbone())
    loaded = saved.load(tmp_path)
    images = pictures(3, seed=7)
    for name, scores in detector().similarities(images).items():
        np.testing.assert_array_equal(loaded.similarities(images)[name], scores)
        one = saved.load(tmp_path, fold=1).similarities(images)[name][0]
        np.testing.assert_allclose(one, scores[1], atol=1e-5)
    other = Backbone("small", apply, SIZE, backbone().weights, digest="1" * 64)
    monkeypatch.setattr(saved, "load_backbone", lambda name, weights: other)
    with pytest.raises(ValueError, match=r"fitted with small weights of SHA-256 0000.*found have 1111"):
        saved.load(tmp_path)
    with pytest.raises(ValueError, match=r"no features\.json: its features are not fitted yet"):
        saved.load(tmp_path / "elsewhere")


def test_histograms_are_kept_by_content(tmp_path, monkeypatch):
    images = np.concatenate((pictures(4, seed=8), pictures(4, seed=8)[:2]))  # two are duplicates
    expected = describe_images(backbone(), images)[FEATURES]
    counted = []
    original = cache.describe_images
    monkeypatch.setattr(cache, "describe_images", lambda b, x: counted.append(len(x)) or original(b, x))
    done = []
    for _ in range(2):
        found = cache.described(backbone(), images, folder=tmp_path, progress=done.append)
        for layer, rows in expected.items():
            np.testing.assert_array_equal(found[layer], rows)
    assert counted == [4]
    more = cache.described(backbone(), pictures(5, seed=9), folder=tmp_path)
    assert counted == [4, 5]
    fresh = describe_images(backbone(), pictures(5, seed=9))[FEATURES]
    np.testing.assert_array_equal(more["first"], fresh["first"])
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])  # cut short by a full disk
    np.testing.assert_array_equal(
        cache.described(backbone(), images, folder=tmp_path)["first"], expected["first"]
    )


def test_its_folds_are_detectors_of_their_own():
    images = pictures(3, seed=10)
    alone = detector().of_fold(1)
    assert alone.folds == 1 and alone.calibration is None
    for name, scores in detector().similarities(images).items():
        np.testing.assert_allclose(alone.similarities(images)[name][0], scores[1], atol=1e-5)
    joined = FeatureDetector.join([detector().of_fold(fold) for fold in range(2)])
    for name, scores in detector().similarities(images).items():
        np.testing.assert_array_equal(joined.similarities(images)[name], scores)


def test_the_names_of_its_scores():
    assert set(detector().similarities(pictures(1))) == set(detector().metrics)
    bare = FeatureDetector(backbone(), {FEATURES: detector().references[FEATURES]})
    assert bare.metrics == (FEATURES,) and COLOR not in bare.similarities(pictures(1))
    assert repr(detector()) == (
        "FeatureDetector(backbone='small', folds=2, image_size=16, metric='features_color', threshold=None)"
    )


def test_an_image_and_its_inpainting_are_compared_layer_by_layer():
    x, y = (pictures(2, seed=seed) / np.float32(255) for seed in (11, 12))
    expected = []
    for a, b in zip(x, y, strict=True):
        layers = []
        for layer in ("first", "second"):
            p, q = (np.asarray(apply(backbone().weights, image[None])[layer])[0] for image in (a, b))
            p, q = (maps.reshape(-1, 10).std(axis=0) for maps in (p, q))
            layers.append(1 + np.log(np.sum(np.sqrt(p / p.sum() * q / q.sum()))))
        expected.append(np.mean(layers))
    np.testing.assert_allclose(feature_hbd(backbone(), x, y), expected, atol=1e-5)
    np.testing.assert_array_equal(feature_hbd(backbone(), x, x), [1, 1])


def test_nothing_is_traced_again_for_more_images():
    traced = []

    def counted(weights, images):
        traced.append(images.shape)
        return apply(weights, images)

    network = Backbone("small", counted, SIZE, backbone().weights)
    model = fit_detector(network, pictures(30), groups=np.arange(30), training=[np.arange(30)])
    model.similarities(pictures(3))
    unlikeness(model, pictures(3))
    before = len(traced)
    model.similarities(pictures(9, seed=1))
    model.score_samples(pictures(2, seed=1))
    unlikeness(model, pictures(9, seed=1))
    describe_images(network, pictures(9, seed=1))
    assert len(traced) == before
