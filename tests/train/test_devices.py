"""Several trainings at once, one over several devices, several processes: the numbers of one device."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import struct

from configs.mim import get_config
from mim_jax.cli import main
from mim_jax.train import config as protocol
from mim_jax.train import devices, metric_writer, mim, trainer, workdir
from mim_jax.train.checkpoints import FORMAT, FoldCheckpoints
from mim_jax.train.devices import Place

ROOT = Path(__file__).parent.parent
FIELDS = {
    "data.image_size": 32,
    "mask.size": 16,
    "data.folds": 3,
    "data.procedural_positives": 15,
    "data.procedural_negatives": 18,
    "training.epochs": 4,
    "training.batch_size": 4,
    "training.checkpoint_every": 2,
    "training.panel_every": 0,
    "training.autoencoder": False,
}
FOLDS = ("fold_0", "fold_1", "fold_2")


class Painter(nn.Module):
    """A generator that compiles in a moment; its BatchNorm sees the batch."""

    @nn.compact
    def __call__(self, masked, *, train):
        x = nn.Conv(4, (4, 4), strides=2)(masked)
        return jnp.tanh(nn.Dense(3)(nn.relu(nn.BatchNorm(use_running_average=not train)(x))))


class Judge(nn.Module):
    """A discriminator of the same kind."""

    @nn.compact
    def __call__(self, patches):
        return nn.Dense(1)(nn.relu(nn.Conv(4, (4, 4), strides=4)(patches)))


@contextlib.contextmanager
def small_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "make_generator", lambda *args, **options: Painter())
        patch.setattr(protocol, "PatchDiscriminator", lambda *args, **options: Judge())
        yield


@pytest.fixture(scope="module", autouse=True)
def small():
    with small_networks():
        yield


def configuration(**fields):
    config = get_config("quick")
    config.update_from_flattened_dict({**FIELDS, **fields})
    return config.to_dict()


def train(path, **fields):
    config = configuration(**fields)
    with metric_writer.Recorder(path) as own:
        mim.train(config, path, main.load(config), own)


def events_of(path):
    """What was recorded, less the times, by fold and epoch."""
    events = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        del event["seconds"], event["images_per_s"]
    return sorted(events, key=lambda event: (event["fold"], event["epoch"]))


def saved(path):
    """The arrays of the last checkpoint of each fold."""
    config, folds = configuration(), []
    for one in mim.trainings(config, path, main.load(config)):
        folds.append(jax.tree.leaves(trainer.restore(one.folder, updates=one.updates * 4, init=one.init)))
        with FoldCheckpoints(one.folder, read_only=True) as checkpoints:
            assert checkpoints.model() == {"format": FORMAT, **one.model}
    return folds


def assert_same(path, other):
    assert events_of(path) == events_of(other)
    for one, two in zip(saved(path), saved(other), strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folds in turn, on one device."""
    path = tmp_path_factory.mktemp("alone")
    train(path, **{"training.devices": 1})
    return path


@pytest.fixture(scope="module")
def begun(alone, tmp_path_factory):
    """The same run as it would be had it been killed in its second fold, after the first checkpoint."""
    path = shutil.copytree(alone, tmp_path_factory.mktemp("begun"), dirs_exist_ok=True)
    shutil.rmtree(path / "fold_1" / "checkpoints" / "12")
    shutil.rmtree(path / "fold_2")
    return path


def on_eight_devices(placed, split):
    """What a process with eight devices does: a fold a device, and each fold over four."""
    used = []
    put = Place.put
    with small_networks(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "put", lambda place, tree: (used.append(place), put(place, tree))[1])
        train(Path(placed))
        assert len(set(used)) == 2 and {len(place.devices) for place in used} == {1}
        used.clear()
        train(Path(split), **{"training.shards": 4})
        assert len(set(used)) == 2 and {len(place.devices) for place in used} == {4}
        config = configuration()
        one = next(mim.trainings(config, Path(split), main.load(config)))
        with FoldCheckpoints(one.folder, read_only=True) as checkpoints:
            state = checkpoints.restore(jax.eval_shape(one.init), used[-1].whole)
        assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {used[-1].whole}


def start(function, *arguments, **environment):
    """Calls a function of this file in a process of its own."""
    code = f"import sys; sys.path.insert(0, 'tests'); import test_devices as t; t.{function}(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes):
    """What they wrote, once all have ended well."""
    said = [process.communicate(timeout=300) for process in processes]
    assert not any(process.returncode for process in processes), [err[-3000:] for _, err in said]
    return [out for out, _ in said]


@pytest.fixture(scope="module")
def on_eight(begun, tmp_path_factory):
    """The folders that `on_eight_devices` leaves; the first was begun on one device."""
    placed, split = tmp_path_factory.mktemp("eight") / "placed", tmp_path_factory.mktemp("split")
    shutil.copytree(begun, placed)
    flags = "--xla_force_host_platform_device_count=8"
    finish([start("on_eight_devices", placed, split, XLA_FLAGS=flags)])
    return placed, split


def test_folds_begun_on_one_device_and_ended_on_eight_are_those_of_one(alone, on_eight):
    assert_same(alone, on_eight[0])


def test_a_fold_over_four_devices_is_that_of_one_up_to_the_order_of_summation(alone, on_eight):
    """Batches of 4, one image on each device, and a short one of 2 that all compute whole.

    A mean or variance of its own on each device would miss by some per cent. The tolerance is rounding of
    float32, 1e-7, which Adam magnifies where gradients are near zero.
    """
    for one, two in zip(events_of(on_eight[1]), events_of(alone), strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"event", "role"}:
            assert one[name] == pytest.approx(two[name], abs=1e-5), name
    for one, two in zip(saved(on_eight[1]), saved(alone), strict=True):
        assert [leaf.shape for leaf in one] == [leaf.shape for leaf in two]


def as_one_of_two(path, coordinator, process):
    """What each of two processes does: a run, whose evaluation looks at what is trained."""

    def evaluate(config, path, dataset, clinical, own, *, began):
        (path / "report.html").write_text(json.dumps(steps_of(path)))
        return path / "report.html"

    with small_networks(), pytest.MonkeyPatch.context() as patch:
        kind = main.Kind(protocol.check, protocol.check_data, mim.trainings, evaluate)
        patch.setattr(main, "_kind", lambda config: kind)
        status = main.execute(
            "run",
            config=configuration(),
            workdir=path,
            device="cpu",
            paths=(),
            coordinator=coordinator,
            processes=2,
            process=int(process),
        )
    sys.exit(status)


def two(path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [start("as_one_of_two", path, address, k) for k in range(2)]


def test_two_processes_train_and_report_as_one(alone, begun, tmp_path):
    """The second goes on with what a single one began."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    said = finish(two(tmp_path))
    assert ["report: " in out for out in said] == [True, False]
    assert_same(alone, tmp_path)
    # Everything was trained when the first process evaluated.
    assert json.loads((tmp_path / "report.html").read_text()) == {fold: [6, 12] for fold in FOLDS}
    assert steps_of(tmp_path) == {fold: [6, 12] for fold in FOLDS}
    assert not list(tmp_path.glob("metrics.process_*"))


def test_where_one_process_fails_the_other_ends_too(alone, tmp_path):
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "fold_1")
    (tmp_path / "fold_1").write_text("")  # a file where process 1 wants a folder
    processes = two(tmp_path)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], said
    assert "launch.py: process 1 of 2 has stopped: its own output says why" in said[0]
    assert "fold_1" in said[1] and not (tmp_path / "report.html").exists()


def test_an_epoch_that_another_process_records_anew_replaces_the_old(tmp_path):
    for process, losses in ((0, {1: 0.1, 2: 0.2}), (1, {2: 0.3, 3: 0.4})):
        with metric_writer.Recorder(tmp_path, process=process) as own:
            own.rewind("mim", 0, 9, 9)
            for epoch, loss in losses.items():
                own.epoch("mim", 0, epoch, epoch, {"loss": loss})
    metric_writer.merge_events(tmp_path)
    events = metric_writer.read_events(tmp_path / "metrics.jsonl")
    assert {event["epoch"]: event["loss"] for event in events} == {1: 0.1, 2: 0.3, 3: 0.4}
    assert len(events) == 3 and not list(tmp_path.glob("metrics.process_*"))


class Count(struct.PyTreeNode):
    """A training that counts its updates, and stops counting where it is told to break."""

    SCORING: ClassVar = ("generator", {"params": "params"})
    step: jax.Array
    params: Any


def counting(path, fold, *, broken_at=10**6):
    @partial(jax.jit, donate_argnums=0)
    def run(state, numbers):
        after = Count(state.step + len(numbers), state.params + fold)
        return after, {"loss": jnp.where(numbers + 1 >= broken_at, jnp.nan, 0.0)}

    return trainer.Training(
        role="mim",
        fold=fold,
        title=f"fold {fold}",
        folder=path / f"fold_{fold}" / "checkpoints",
        examples=1,
        updates=1,
        init=lambda: Count(jnp.zeros((), jnp.int32), jnp.zeros(3)),
        begin=lambda place: run,
        model={},
        shown=("loss",),
    )


SETTINGS = {
    **dict.fromkeys(("epochs", "checkpoint_every"), 4),
    **dict.fromkeys(("batch_size", "devices", "shards", "epochs_per_dispatch", "keep"), 1),
}


def steps_of(path):
    """The checkpoints of each fold."""
    return {
        fold.name: sorted(int(step.name) for step in (fold / "checkpoints").iterdir())
        for fold in sorted(path.glob("fold_*"))
    }


@pytest.fixture
def two_places(monkeypatch):
    place = Place((jax.devices()[0],))
    monkeypatch.setattr(trainer, "check_places", lambda settings: [place, place])


def test_all_that_are_under_way_are_saved_when_asked_to_stop(two_places, tmp_path):
    class Stop(metric_writer.Recorder):
        def epoch(self, role, fold, epoch, step, metrics):
            super().epoch(role, fold, epoch, step, metrics)
            if (fold, epoch) == (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)

    trainings = [counting(tmp_path, fold) for fold in range(3)]
    with (
        Stop(tmp_path) as own,
        pytest.raises(trainer.Interrupted, match="epoch 2 of fold 2 and epoch 3 of fold 1 and saved"),
    ):
        trainer.train(trainings, SETTINGS, own)
    assert steps_of(tmp_path) == {"fold_0": [3], "fold_1": [2]}
    with metric_writer.Recorder(tmp_path) as own:
        trainer.train(trainings, SETTINGS, own)
    assert steps_of(tmp_path) == {fold: [4] for fold in FOLDS}
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sorted((e["fold"], e["epoch"]) for e in events) == [(f, e) for f in range(3) for e in range(1, 5)]


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_saved(two_places, tmp_path):
    trainings = [counting(tmp_path, 0), counting(tmp_path, 1, broken_at=3)]
    settings = {**SETTINGS, "checkpoint_every": 2}
    with (
        metric_writer.Recorder(tmp_path) as own,
        pytest.raises(trainer.NonFiniteLoss, match=r"epoch 3 \(update 3\) of fold 2.*that of update 2"),
    ):
        trainer.train(trainings, settings, own)
    assert steps_of(tmp_path) == {"fold_0": [2], "fold_1": [2]}


def test_seeds_train_at_once_where_there_is_more_than_one_device(monkeypatch, tmp_path):
    order = []

    class Record(metric_writer.Recorder):
        def epoch(self, role, fold, epoch, step, metrics):
            super().epoch(role, fold, epoch, step, metrics)
            order.append((self.path.parent.name, fold, epoch))

    class Nothing(list):
        def digest(self):
            return "0"

    def trainings(config, path, dataset):
        return [counting(path, fold) for fold in range(2)]

    def nothing(*args, **options):
        return Nothing()

    monkeypatch.setattr(metric_writer, "Recorder", Record)
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    monkeypatch.setattr(trainer, "check_places", lambda settings: [Place((jax.devices()[0],))] * 4)
    monkeypatch.setattr(main, "load", nothing)
    monkeypatch.setattr(main, "_kind", lambda config: main.Kind(nothing, nothing, trainings, nothing))
    config = {"seeds": (5, 7), "training": SETTINGS}
    assert main.run_seeds(config, str(tmp_path), training=True, evaluation=False, profile=False) == 0
    assert order[:4] == [("seed_5", 0, 1), ("seed_5", 1, 1), ("seed_7", 0, 1), ("seed_7", 1, 1)]
    assert len(order) == 16
    for seed in (5, 7):
        assert steps_of(tmp_path / f"seed_{seed}") == {"fold_0": [4], "fold_1": [4]}


def test_places_share_out_the_devices(monkeypatch):
    here = [SimpleNamespace(platform="gpu", id=i) for i in range(8)]
    monkeypatch.setattr(jax, "local_devices", lambda: here)
    find = partial(devices.find_places, batch_size=12)
    assert [place.devices for place in find(devices=0, shards=1)] == [(device,) for device in here]
    assert [place.devices for place in find(devices=4, shards=2)] == [tuple(here[:2]), tuple(here[2:4])]
    for options, sentence in (
        ({"devices": 9, "shards": 1}, r"devices \(=9\) exceeds what there is \(8 of platform gpu\)"),
        ({"devices": 0, "shards": 3}, r"shards \(=3\) does not divide the 8 devices"),
        ({"devices": 0, "shards": 8}, r"batch_size \(=12\) cannot be split over 8 devices"),
    ):
        with pytest.raises(ValueError, match=sentence):
            find(**options)


def test_trainings_are_dealt_to_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    dealt = []
    for k in range(3):
        monkeypatch.setattr(jax, "process_index", lambda k=k: k)
        dealt.append(devices.deal(range(10)))
    assert dealt == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]


def test_a_process_joins_where_flags_or_the_scheduler_say_so(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: asked.append(args))
    changed = {}
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    devices.join(None, None, None)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    devices.join(None, None, None)
    assert not asked and not changed
    devices.join("host:1", 2, 0)
    assert asked == [("host:1", 2, 0)] and "jax_cuda_visible_devices" not in changed
    for hosts, visible in (("1", None), ("4", "all")):  # four tasks on one host have a GPU each
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
        monkeypatch.setenv("SLURM_STEP_NUM_NODES", hosts)
        devices.join(None, None, None)
        assert asked[-1] == () and changed.get("jax_cuda_visible_devices") == visible
    with pytest.raises(ValueError, match="give all three, or none"):
        devices.join("host:1", None, 0)


def test_another_number_of_devices_is_no_other_configuration(tmp_path):
    workdir.claim(tmp_path, configuration(), {})
    workdir.check(tmp_path, configuration(**{"training.devices": 4, "training.shards": 2}))
