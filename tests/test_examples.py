"""All of examples/ runs, at sizes that take seconds: notebooks cell by cell, scripts as modules."""

import json
import runpy
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from launching import TINY
from small_training import SHORT, Judge, small_networks

import mim_jax
from configs.mim import get_config
from mim_jax.cli import command, main
from mim_jax.data.dataset import from_lesions
from mim_jax.deploy.export import golden_images
from mim_jax.inpaint.networks import GENERATORS, register_generator
from mim_jax.inpaint.networks.unet import UNet
from mim_jax.train import mim
from mim_jax.train.config import parse
from mim_jax.train.workdir import read_json

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {**TINY, **SHORT, "training.panel_every": 0, "training.autoencoder": False}


def run(notebook, **parameters):
    """Run the cells of a notebook; `parameters` override the values set in its cell tagged "parameters"."""
    names = {"__name__": notebook}
    for cell in json.loads((EXAMPLES / notebook).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{notebook}, {cell['id']}", "exec"), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                assert parameters.keys() <= names.keys()
                names |= parameters
    return names


def launched(arguments, **_):
    """Replace `subprocess.run`: run the command in this process, which has already compiled its programs."""
    file, overrides, (workdir,) = command.split(arguments[2:])
    workdir = workdir.removeprefix("--workdir=")
    config = command.configure("run", workdir, [], file, overrides)
    status = main.execute("run", config=config, workdir=workdir, device="auto", paths=[])
    return subprocess.CompletedProcess(arguments, status, stdout="", stderr="")


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory, compiled_quickly):
    """Workdir and variables of the quickstart notebook, run with networks that compile quickly."""
    workdir = tmp_path_factory.mktemp("quickstart") / "run"
    sizes = {"image_size": 32, "positives": SMALL["data.procedural_positives"], "negatives": 18}
    flags = [f"--config.{name}={value}" for name, value in SMALL.items()]
    plt.switch_backend("agg")
    with small_networks(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", launched)
        yield workdir, run("quickstart.ipynb", workdir=str(workdir), flags=flags, **sizes)
        plt.close("all")


def test_quickstart_trains_scores_and_decides(quickstart):
    workdir, names = quickstart
    assert (workdir / "report.html").exists() and names["results"]["notice"]
    assert names["inpainted"].shape == (4, 32, 32, 3)
    outside = np.ones((32, 32), bool)
    outside[8:24, 8:24] = False
    np.testing.assert_array_equal(
        np.round(255 * names["inpainted"][:, outside]), names["originals"][:, outside]
    )


def test_scores_are_read_and_their_auroc_is_the_reported_one(quickstart):
    pytest.importorskip("pandas")
    names = run("read_scores.ipynb", workdir=str(quickstart[0]))
    assert names["reported"] == pytest.approx(names["again"].tolist(), abs=1e-12)
    assert len(plt.gca().patches) == 40  # two histograms


def test_the_scorer_in_a_jit_of_ones_own(quickstart, capsys):
    workdir, _ = quickstart
    found = runpy.run_path(str(EXAMPLES / "score_in_your_jit.py"))["main"](str(workdir), draws=2)
    detector = mim_jax.load(workdir)
    np.testing.assert_allclose(found["score"], detector.score_samples(golden_images(32)), atol=1e-6)
    assert np.all(found["spread"] > 0) and found["sensitivity"].shape == (8, 32, 32)
    assert np.all(found["sensitivity"].max((1, 2)) > 0)
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_a_backbone_of_ones_own(monkeypatch):
    names = runpy.run_path(str(EXAMPLES / "your_own_backbone.py"))
    monkeypatch.setitem(names["evaluate"].__globals__, "SIZE", 32)
    drawn = from_lesions(size=32, positives=30, negatives=18, seed=0)
    areas = names["evaluate"](drawn, folds=2)
    assert len(areas) == 2 and all(0 < each < 1 for each in areas)
    features = names["edges"]({"opponents": np.eye(3, dtype=np.float32)}, np.full((1, 32, 32, 3), 0.25))
    assert {name: each.shape[-1] for name, each in features.items()} == dict.fromkeys(features, 15)
    for each in features.values():  # a flat image has no edges
        np.testing.assert_array_equal(each[..., 3:], 0)


def test_a_generator_of_ones_own_is_trained_and_loaded(tmp_path, monkeypatch, compiled_quickly):
    monkeypatch.setattr(mim, "PatchDiscriminator", Judge)
    monkeypatch.setattr("mim_jax.inpaint.networks.GENERATORS", dict(GENERATORS))
    file = str(EXAMPLES / "your_own_generator.py")
    overrides = [(name, str(value)) for name, value in SMALL.items()]
    config = command.configure("train", str(tmp_path), [], file, overrides)
    assert config["generator"]["name"] == "mean_context" and config["training"]["epochs"] == 2
    assert main.execute("train", config=config, workdir=str(tmp_path), device="auto", paths=[]) == 0
    assert read_json(tmp_path / "config.json")["generator"]["name"] == "mean_context"
    detector = mim_jax.load(tmp_path)
    assert type(detector.generator).__name__ == "MeanContext" and detector.generator.width == 4
    assert np.ptp(detector.inpaint(golden_images(32))[:, 8:24, 8:24]) > 0


def test_names_of_the_package_stay_its_own():
    with pytest.raises(ValueError, match="'unet' is this package's own"):
        register_generator("unet", UNet)
    with pytest.raises(ValueError, match="no field dtype"):
        register_generator("mine", type("Mine", (), {}))
    config = get_config("quick")
    config.generator.name = "mine"
    with pytest.raises(ValueError, match="unknown generator 'mine'"):
        mim.check(parse(config.to_dict()))
