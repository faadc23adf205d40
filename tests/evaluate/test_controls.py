"""AUROC within sources and decisions by skin tone, against counts by hand."""

import numpy as np
import pytest
from skimage.color import rgb2lab
from sklearn.metrics import roc_auc_score

from mim_jax.data.dataset import Dataset
from mim_jax.evaluate.controls import OTHER, SAME, TONES, same_sources, skin_tone, tones
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.train.images import read_sources

NAMES = np.array([f"{i}.png" for i in range(24)])
POSITIVE = np.arange(24) < 8
SOURCES = np.where(np.arange(24) % 3 == 0, "clinic", "web")
SOURCES[POSITIVE] = "clinic"
SCORES = np.random.default_rng(0).normal(size=24) + POSITIVE


def dataset(sources=SOURCES, images=None):
    labels = np.where(POSITIVE, "mpox", "other")
    images = np.zeros((24, 4, 4, 3), np.uint8) if images is None else images
    return Dataset(images, labels, NAMES, NAMES, "here", "mpox", sources=sources)


def scored(decisions=None):
    return ScoredImages(
        names=NAMES,
        classes=np.where(POSITIVE, "mpox", "other"),
        groups=NAMES,
        copies=np.zeros(24, int),
        positive=POSITIVE,
        augmented=np.ones(24, bool),
        plain=np.ones(24, bool),
        similarities={"features": SCORES},
        decisions=np.full(24, "") if decisions is None else decisions,
    )


def test_auroc_within_the_sources_of_the_training_class():
    found = same_sources({"features": [scored()]}, dataset(), primary="features", resamples=40, seed=0)
    assert found["sources"] == ["clinic"]
    for side, kept in ((SAME, SOURCES == "clinic"), (OTHER, SOURCES == "web")):
        part = kept | POSITIVE
        expected = roc_auc_score(POSITIVE[part], SCORES[part])
        assert found["auroc"]["features"][side]["mean"] == pytest.approx(expected)
        assert found["auroc"]["features"][side]["n"] == np.sum(kept & ~POSITIVE)


def test_without_sources_there_is_no_such_table():
    how = {"primary": "features", "resamples": 40, "seed": 0}
    assert same_sources({"features": [scored()]}, dataset(None), **how) is None
    alone = np.where(POSITIVE, "clinic", "web")
    assert same_sources({"features": [scored()]}, dataset(alone), **how) is None


def test_a_tone_is_that_of_the_median_colour():
    for color in ([245, 220, 200], [190, 140, 110], [120, 80, 60], [60, 40, 30]):
        lightness, _, yellow = rgb2lab(np.array(color, np.uint8).reshape(1, 1, 3)).ravel()
        angle = np.degrees(np.arctan2(lightness - 50, yellow))
        expected = next((name for name, most in TONES if angle <= most), "very light")
        assert skin_tone(np.full((5, 5, 3), color, np.uint8)) == expected
    assert skin_tone(np.zeros((5, 5, 3), np.uint8)) == ""


def test_decisions_are_counted_by_tone():
    images = np.full((24, 4, 4, 3), [60, 40, 30], np.uint8)
    images[::2] = [240, 215, 195]
    decisions = np.where(np.arange(24) % 4 == 0, "not_mpox_like", "mpox_like")
    decisions[23] = ""  # not decided in this fold
    found = tones([scored(decisions)], dataset(images=images))
    light = found[skin_tone(images[0])]
    assert (light["missed"]["images"], light["missed"]["value"]) == (4, 0.5)
    assert (light["alarms"]["images"], light["alarms"]["value"]) == (8, 0.5)
    assert light["missed"]["low"] < 0.5 < light["missed"]["high"]
    dark = found[skin_tone(images[1])]
    assert (dark["missed"]["value"], dark["alarms"]["images"], dark["alarms"]["value"]) == (0, 7, 1)
    assert dark["undecided"]["images"] == 11


def test_sources_are_a_column_of_the_manifest(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("file,group,Repo\nmpox\\0.png,a,one\nmpox/1.png,b,two\n")
    assert read_sources(manifest, "repo", ["mpox/1.png", "mpox/0.png", "nv/2.png"]).tolist() == [
        "two",
        "one",
        "",
    ]
    with pytest.raises(ValueError, match=r"needs columns file and camera; found file, group, repo"):
        read_sources(manifest, "camera", ["mpox/1.png"])
    with pytest.raises(ValueError, match=r"gives a repo for none of the 1 images"):
        read_sources(manifest, "repo", ["elsewhere.png"])
    with pytest.raises(ValueError, match=r"there is no .*absent\.csv"):
        read_sources(tmp_path / "absent.csv", "repo", ["mpox/1.png"])
