"""Benchmarks: all systems do the same work, it is counted correctly, and every result is reported."""

import dataclasses
import functools
import importlib
import json
import sys
import time
from pathlib import Path

import dm_pix
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import growth, on_gpu, speedrun, stand_ins, training
from configs import mim
from mim_jax.inpaint import convolution

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def tiny(*, batch=4, dtype="float32"):
    config = training.make_config("quick", batch=batch, dtype=dtype, image_size=32, width=4)
    config["generator"]["bottleneck_channels"] = 20
    return config


@functools.cache
def inputs():
    return training.make_inputs(tiny(), device="cpu", updates=6)


def test_pytorch_gets_the_images_holes_and_weights_that_our_own_program_draws(compiled_quickly):
    pytest.importorskip("torch")
    ours, theirs = (training.SYSTEMS[name](inputs()) for name in ("mim_jax", "torch_eager"))
    losses = [np.concatenate([s.update(start, 2) for start in (0, 2, 4)]) for s in (ours, theirs)]
    # With the images in another order, or rows and columns swapped, they differ by some percent.
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert len(set(losses[0].tolist())) == 6


def test_flops_are_those_of_the_published_layers():
    full = training.make_config("full")
    # Generator 3.51 GMAC, three times; discriminator 0.35 GMAC, eight times: 26.7 GFLOP, less three products
    # of first layers.
    assert training.training_flops(full) / 1e9 == pytest.approx(26.7, rel=0.01)
    large = training.make_config("full", image_size=448)
    assert training.training_flops(large) == 4 * training.training_flops(full)
    with pytest.raises(ValueError, match="unet"):
        training.training_flops({**full, "generator": {**full["generator"], "name": "unet"}})


def test_a_gpu_that_is_asked_for_and_absent_is_one_sentence(monkeypatch, tmp_path):
    """A real worker process, which says why it cannot start."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    absent = dataclasses.replace(inputs(), device="gpu")
    monkeypatch.setattr(training, "make_inputs", lambda *_, **__: absent)
    with pytest.raises(SystemExit, match="PyTorch finds no GPU"):
        training.main(["--device=gpu", "--systems", "torch_eager", f"--json={tmp_path / 'none.json'}"])
    assert not (tmp_path / "none.json").exists()


class Fake:
    """A fake worker that answers at once: 2 s for 10 updates, 1 s for a product."""

    def __init__(self, name, inputs, *, timeout=None):
        if name == "torch_tuned":
            raise training.Failed("no C++ compiler")
        self.name = f"device of {name}"
        self.slower = 3 if name == "torch_eager" else 1

    def ask(self, question, *, timeout=None):
        what, *arguments = question
        if what == "peak":
            return 5e6
        if what == "update":
            return 0.2 * self.slower * arguments[1], 0.5 / np.arange(1, arguments[1] + 1)
        return 1.0, arguments[0]

    def stop(self):
        pass


def test_switching_off_an_optimisation_keeps_the_losses(monkeypatch, compiled_quickly):
    product = convolution.product
    monkeypatch.setattr(convolution, "product", product)  # so that it is restored afterwards
    less = training.SYSTEMS["without_plain_gradient"](inputs())
    assert convolution.product is not product
    losses = less.update(0, 2)
    monkeypatch.undo()
    np.testing.assert_allclose(training.SYSTEMS["mim_jax"](inputs()).update(0, 2), losses, rtol=1e-4)
    apart = training.SYSTEMS["without_composition"](inputs())
    assert not apart._run.args[0].generator.compose


@pytest.fixture
def fake(monkeypatch):
    given = inputs()
    for module in (training, growth):
        monkeypatch.setattr(module, "Worker", Fake)
        monkeypatch.setattr(module, "make_inputs", lambda *_, **__: given)


def test_table_and_json_hold_a_row_for_every_system(fake, monkeypatch, tmp_path, capsys):
    config = tiny()
    monkeypatch.setattr(training, "make_config", lambda *_, **__: config)
    training.main(["--size=quick", "--batch=4", "--rounds=2", f"--json={tmp_path / 'a.json'}"])
    found = json.loads((tmp_path / "a.json").read_text())
    rows = {row["system"]: row for row in found["rows"]}
    assert list(rows) == list(training.SYSTEMS_COMPARED)
    assert rows["mim_jax"]["images_per_s"] == pytest.approx(4 / 0.2)
    assert rows["torch_eager"]["ms_per_step"] == pytest.approx(600)
    assert rows["torch_tuned"] == {"system": "torch_tuned", "error": "no C++ compiler"}
    flops = training.training_flops(config)
    assert rows["mim_jax"]["share_of_peak"] == pytest.approx(4 * flops / 0.2 / (2 * 2048**3))
    assert found["environment"]["batch"] == 4 and len(rows["mim_jax"]["losses"]) == training.PROOF
    table = capsys.readouterr().out
    assert "torch_tuned               not measured: no C++ compiler" in table
    assert "3.00" in next(line for line in table.splitlines() if line.startswith("torch_eager "))


def test_growth_reports_a_failed_point_and_skips_larger_ones(fake, monkeypatch, tmp_path, capsys):
    measured = growth.measure

    def measure(inputs, *, rounds, limit):
        calls.append(inputs)
        return {"error": "took longer"} if len(calls) == 3 else measured(inputs, rounds=rounds, limit=limit)

    calls = []
    monkeypatch.setattr(growth, "measure", measure)
    where = [f"--output={tmp_path / 'g.png'}", f"--json={tmp_path / 'g.json'}"]
    growth.main(["--size=quick", "--axes", "batch", "width", "--points=4", "--batch=8", *where])
    rows = json.loads((tmp_path / "g.json").read_text())["rows"]
    assert [row.get("error") for row in rows[:4]] == [None, None, "took longer", "not tried after 256"]
    assert len(rows) == 8 and not any("error" in row for row in rows[4:])
    assert len(calls) == 6, "the point that two axes share is measured once"
    assert "not measured: not tried after 256" in capsys.readouterr().out
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")


def test_the_speedrun_makes_a_table_of_stages(monkeypatch, tmp_path, capsys):
    stage = {"seconds": 2.0, "compiling": 0.5}
    row = {
        "total_s": 12.0,
        "stages": dict.fromkeys(speedrun.STAGES, stage),
        "auroc": 0.5,
        "scored": 9,
        "device": "cpu",
    }
    monkeypatch.setattr(speedrun, "run_child", lambda options, cache: row)
    speedrun.main(["--size=quick", "--epochs=1", f"--json={tmp_path / 's.json'}"])
    found = json.loads((tmp_path / "s.json").read_text())
    assert [row["system"] for row in found["rows"]] == ["cold", "warm"]
    assert found["environment"]["epochs"] == 1
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("all"))
    assert total.split() == ["all", "12.0", "3.0", "12.0", "3.0"]


def test_overlapping_times_count_once():
    assert speedrun.covered([(1, 2), (0, 3), (5, 6), (5.5, 7)]) == 5


@pytest.mark.parametrize(
    "arguments", (["--batch=0"], ["--systems", "keras"], ["--device=gpu", "--steps=7"], ["--rounds=x"])
)
def test_options_that_mean_nothing_are_refused(arguments):
    with pytest.raises(SystemExit) as error:
        training.main(arguments)
    assert error.value.code == 2


@pytest.mark.parametrize("variant", sorted(mim.VARIANTS))
def test_a_stand_in_gives_the_same_configuration(variant, monkeypatch):
    expected = mim.get_config(variant).to_dict()
    monkeypatch.setattr(mim, "ConfigDict", stand_ins.ConfigDict)
    assert mim.get_config(variant).to_dict() == expected


@pytest.mark.parametrize("factor", (0.0, 0.7, 1.0, 1.3, 40.0))
def test_a_stand_in_changes_colours_as_dm_pix(factor):
    image = np.random.default_rng(0).random((16, 24, 3), np.float32)
    image[0], image[1, :, 1:], image[2] = 0, 0, image[2, :, :1]  # black, pure red and grey
    for ours, theirs in (
        (stand_ins.flip_left_right(image), dm_pix.flip_left_right(image)),
        (stand_ins.flip_up_down(image), dm_pix.flip_up_down(image)),
        (stand_ins.adjust_saturation(image, factor), dm_pix.adjust_saturation(jnp.asarray(image), factor)),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_on_gpu_stays_within_its_minutes():
    assert sum(one.seconds for one in on_gpu.BENCHMARKS) <= 60 * on_gpu.MINUTES - 10


@pytest.mark.parametrize("one", on_gpu.BENCHMARKS, ids=lambda one: one.name)
@pytest.mark.parametrize("arguments", ("full", "small"))
def test_on_gpu_passes_only_options_that_each_benchmark_knows(one, arguments, capsys):
    if one.name == "classifiers":
        pytest.importorskip("torch")
    module = importlib.import_module(f"benchmarks.{one.name}")
    with pytest.raises(SystemExit):
        module.main(["--device=gpu", "--json=a.json", *getattr(one, arguments), "--no-such-option"])
    assert capsys.readouterr().err.endswith("error: unrecognized arguments: --no-such-option\n")


# Three fake benchmarks: one is slow and starts a child process, one fails, and one succeeds.
FAKES = """
import json, os, subprocess, sys, time
name, path = sys.argv[1], sys.argv[-1].removeprefix("--json=")
if name.endswith("training"):
    sys.exit("no GPU")
row = {"axis": "width", "value": 16, "seconds": 0.5, "floor_s": 0.1, "memory_mb": None}
with open(path, "w") as file:
    json.dump({"environment": {}, "rows": [row, {"axis": "width", "value": 32, "error": "too large"}]}, file)
if name.endswith("speedrun"):
    print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
    time.sleep(1000)
"""


def test_on_gpu_keeps_results_measured_before_a_failure(monkeypatch, tmp_path, capsys):
    (tmp_path / "fake.py").write_text(FAKES)
    monkeypatch.setattr(on_gpu, "PROGRAM", (sys.executable, str(tmp_path / "fake.py")))
    known = {"date": "today", "device": "none", "jax": "1", "torch": "2", "python": "3", "cpus": 4}
    monkeypatch.setattr(on_gpu, "describe", lambda device: {**known, "load": 0.0, "stand_ins": ["dm_pix"]})
    growing = next(one.figures for one in on_gpu.BENCHMARKS if one.name == "growth")
    made = [
        dataclasses.replace(one, seconds=seconds, figures=growing)
        for one, seconds in zip(on_gpu.BENCHMARKS, (3, 60, 0, 0, 0, 0), strict=True)
    ]
    monkeypatch.setattr(on_gpu, "BENCHMARKS", made)
    began = time.monotonic()
    chosen = ["--only", "speedrun", "training", "growth"]
    assert on_gpu.main([f"--output={tmp_path / 'out'}", *chosen]) == 1
    assert time.monotonic() - began < 30
    found = json.loads((tmp_path / "out" / "on_gpu.json").read_text())["rows"]
    assert [one["ended"] for one in found] == ["stopped after 3 s", "failed: no GPU", "done"]
    assert [len(one["rows"]) for one in found] == [2, 0, 2]
    state = Path(f"/proc/{found[0]['output'].strip()}/stat")  # of the slow one's child process
    assert not state.exists() or state.read_text().split()[2] == "Z"
    table = (tmp_path / "out" / "on_gpu.md").read_text()
    assert "| speedrun | width 16 | 500.00 ms a step, 20.0% of the floor's speed |" in table
    assert "| speedrun | width 32 | not measured: too large |" in table
    assert "| speedrun | the rest | not measured: stopped after 3 s |" in table
    assert "| training | all | not measured: failed: no GPU |" in table
    assert table in capsys.readouterr().out
