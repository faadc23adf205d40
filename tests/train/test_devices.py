"""Parallel trainings, one training over several devices, several processes: same numbers as on one device."""

import json
import os
import shutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from launching import QUICKLY, finish, start
from small_training import (
    SETTINGS,
    build,
    configuration,
    counting,
    events_of,
    small_networks,
    steps_of,
    train,
)

import mim_jax.evaluate.mim
import mim_jax.report.report
from mim_jax.cli import main
from mim_jax.train import devices, metric_writer, mim, trainer, workdir
from mim_jax.train.checkpoints import FORMAT, FoldCheckpoints
from mim_jax.train.devices import DeviceGroup

pytestmark = pytest.mark.usefixtures("compiled_quickly", "with_small_networks")
FOLDS = ("fold_0", "fold_1", "fold_2")


def saved(path):
    """Arrays of each fold's last checkpoint; its description of the model is checked."""
    folds = []
    for one in mim.trainings(build(), path):
        with FoldCheckpoints(one.folder, read_only=True) as checkpoints:
            assert checkpoints.latest_step() == one.updates * 4
            folds.append(jax.tree.leaves(checkpoints.restore(jax.eval_shape(one.init))))
            assert checkpoints.model() == {"format": FORMAT, **one.model}
    return folds


def assert_same(path, other):
    assert events_of(path) == events_of(other)
    for one, two in zip(saved(path), saved(other), strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, compiled_quickly):
    """Workdir of a run with its folds in turn on one device."""
    path = tmp_path_factory.mktemp("alone")
    train(path, **{"training.devices": 1})
    return path


@pytest.fixture(scope="module")
def begun(alone, tmp_path_factory):
    """The same run as if killed in its second fold, after the first checkpoint."""
    path = shutil.copytree(alone, tmp_path_factory.mktemp("begun"), dirs_exist_ok=True)
    shutil.rmtree(path / "fold_1" / "checkpoints" / "12")
    shutil.rmtree(path / "fold_2")
    return path


def on_eight_devices(placed, split):
    """Train in a process with eight devices: one fold per device, then each fold over four."""
    used = []
    put = DeviceGroup.put
    with small_networks(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeviceGroup, "put", lambda group, tree: (used.append(group), put(group, tree))[1])
        train(Path(placed))
        assert len(set(used)) == 2 and {len(group.devices) for group in used} == {1}
        used.clear()
        train(Path(split), **{"training.shards": 4})
        assert len(set(used)) == 2 and {len(group.devices) for group in used} == {4}
        one, *_ = mim.trainings(build(), Path(split))
        with FoldCheckpoints(one.folder, read_only=True) as checkpoints:
            state = checkpoints.restore(jax.eval_shape(one.init), used[-1].whole)
        assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {used[-1].whole}


def call(function, *arguments, **changed):
    """Call a function of this file in a new process."""
    code = f"import sys; from tests.train import test_devices as t; t.{function.__name__}(*sys.argv[1:])"
    return start("-c", code, *arguments, **{"JAX_PLATFORMS": "cpu", **QUICKLY, **changed})


@pytest.fixture(scope="module")
def on_eight(begun, tmp_path_factory):
    """The two workdirs of `on_eight_devices`; the first was begun on one device."""
    placed, split = tmp_path_factory.mktemp("eight") / "placed", tmp_path_factory.mktemp("split")
    shutil.copytree(begun, placed)
    flags = "--xla_force_host_platform_device_count=8"
    finish(call(on_eight_devices, placed, split, XLA_FLAGS=f"{QUICKLY['XLA_FLAGS']} {flags}"))
    return placed, split


def test_folds_begun_on_one_device_and_ended_on_eight_are_those_of_one(alone, on_eight):
    assert_same(alone, on_eight[0])


def test_a_fold_over_four_devices_is_that_of_one_up_to_the_order_of_summation(alone, on_eight):
    """Batches of 4 have one image on each device; a short batch of 2 is computed whole on all.

    A separate mean or variance on each device would be off by some per cent. The tolerance covers float32
    rounding, 1e-7, which Adam magnifies where gradients are near zero.
    """
    for one, two in zip(events_of(on_eight[1]), events_of(alone), strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"event", "role"}:
            assert one[name] == pytest.approx(two[name], abs=1e-5), name
    for one, two in zip(saved(on_eight[1]), saved(alone), strict=True):
        assert [leaf.shape for leaf in one] == [leaf.shape for leaf in two]


def as_one_of_two(path, coordinator, process):
    """Run in each of two processes, with an evaluation that only lists the checkpoints."""

    def write_report(path, found):
        (path / "report.html").write_text(json.dumps(found))
        return path / "report.html"

    with small_networks(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(mim_jax.evaluate.mim, "evaluate", lambda experiment, path, *_, **__: steps_of(path))
        patch.setattr(mim_jax.report.report, "write_report", write_report)
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


def two(path, function=as_one_of_two):
    workdir.write_json(path / "config.json", configuration(), sealed=True)  # of the run in this folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [call(function, path, address, k) for k in range(2)]


def save_often(path, coordinator, process):
    """Run in each of two processes."""
    jax.distributed.initialize(coordinator, 2, int(process))
    with small_networks():
        one = mim.trainings(build(), Path(path))[int(process)]
        state = one.init()
    with FoldCheckpoints(one.folder) as checkpoints:
        for step in range(1, 11):
            checkpoints.save(state.replace(step=state.step + step), one.model)
    jax.distributed.shutdown()


def test_two_processes_may_save_at_the_same_time(tmp_path):
    finish(*two(tmp_path, save_often))
    for fold in range(2):
        with FoldCheckpoints(tmp_path / f"fold_{fold}" / "checkpoints", read_only=True) as checkpoints:
            assert checkpoints.latest_step() == 10


def test_two_processes_train_and_report_as_one(alone, begun, tmp_path):
    """The second process continues the fold that a single process began."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    said = finish(*two(tmp_path))
    assert ["report: " in out for out, _ in said] == [True, False]
    assert_same(alone, tmp_path)
    # Everything was trained when the first process evaluated.
    assert json.loads((tmp_path / "report.html").read_text()) == {fold: [6, 12] for fold in FOLDS}
    assert steps_of(tmp_path) == {fold: [6, 12] for fold in FOLDS}
    assert not list(tmp_path.glob("metrics.process_*"))


def test_where_one_process_fails_the_other_ends_too(alone, tmp_path):
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "fold_1")
    (tmp_path / "fold_1").write_text("")  # a file where process 1 wants a folder
    said = [err for _, err in finish(*two(tmp_path), expect=1)]
    assert "mim_jax: process 1 of 2 has stopped: its own output says why" in said[0]
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


@pytest.fixture
def two_groups(monkeypatch):
    group = DeviceGroup((jax.devices()[0],))
    monkeypatch.setattr(trainer, "find_groups", lambda settings: [group, group])


def test_all_that_are_under_way_are_saved_when_asked_to_stop(two_groups, tmp_path):
    class Stop(metric_writer.Recorder):
        def epoch(self, role, fold, epoch, step, metrics):
            super().epoch(role, fold, epoch, step, metrics)
            if (fold, epoch) == (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)

    trainings = [counting(tmp_path, fold) for fold in range(3)]
    with (
        Stop(tmp_path) as own,
        pytest.raises(trainer.Interrupted, match="epoch 2 of fold 1 and epoch 3 of fold 0 and saved"),
    ):
        trainer.train(trainings, SETTINGS, own)
    assert steps_of(tmp_path) == {"fold_0": [3], "fold_1": [2]}
    with metric_writer.Recorder(tmp_path) as own:
        trainer.train(trainings, SETTINGS, own)
    assert steps_of(tmp_path) == {fold: [4] for fold in FOLDS}
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sorted((e["fold"], e["epoch"]) for e in events) == [(f, e) for f in range(3) for e in range(1, 5)]


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_saved(two_groups, tmp_path):
    trainings = [counting(tmp_path, 0), counting(tmp_path, 1, broken_at=3)]
    settings = replace(SETTINGS, checkpoint_every=2)
    with (
        metric_writer.Recorder(tmp_path) as own,
        pytest.raises(trainer.NonFiniteLoss, match=r"epoch 3 \(update 3\) of fold 1.*from update 2"),
    ):
        trainer.train(trainings, settings, own)
    assert steps_of(tmp_path) == {"fold_0": [2], "fold_1": [2]}


def test_seeds_train_at_once_where_there_is_more_than_one_device(monkeypatch, tmp_path):
    order = []

    class Record(metric_writer.Recorder):
        def epoch(self, role, fold, epoch, step, metrics):
            super().epoch(role, fold, epoch, step, metrics)
            order.append((self.path.parent.name, fold, epoch))

    monkeypatch.setattr(metric_writer, "Recorder", Record)
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    group = DeviceGroup((jax.devices()[0],))
    monkeypatch.setattr(trainer, "find_groups", lambda settings: [group] * 4)
    monkeypatch.setattr(mim, "trainings", lambda experiment, path: [counting(path, k) for k in range(2)])
    config = configuration(seeds=(5, 7), **{"training.batch_size": 1, "training.epochs_per_dispatch": 1})
    given = {"config": config, "workdir": str(tmp_path), "device": "auto", "paths": []}
    assert main.execute("train", **given) == 0
    assert order[:4] == [("seed_5", 0, 1), ("seed_5", 1, 1), ("seed_7", 0, 1), ("seed_7", 1, 1)]
    assert len(order) == 16
    for seed in (5, 7):
        assert steps_of(tmp_path / f"seed_{seed}") == {"fold_0": [2, 4], "fold_1": [2, 4]}


def test_groups_share_out_the_devices(monkeypatch):
    here = [SimpleNamespace(platform="gpu", id=i) for i in range(8)]
    monkeypatch.setattr(jax, "local_devices", lambda: here)

    def find(**options):
        return devices.find_groups(replace(SETTINGS, batch_size=12, **options))

    assert [group.devices for group in find(devices=0, shards=1)] == [(device,) for device in here]
    assert [group.devices for group in find(devices=4, shards=2)] == [tuple(here[:2]), tuple(here[2:4])]
    for options, sentence in (
        ({"devices": 9, "shards": 1}, r"devices \(=9\) exceeds the number available \(8 of platform gpu\)"),
        ({"devices": 0, "shards": 3}, r"shards \(=3\) does not divide the 8 devices"),
        ({"devices": 0, "shards": 8}, r"batch_size \(=12\) cannot be split over 8 devices"),
    ):
        with pytest.raises(ValueError, match=sentence):
            find(**options)


def test_trainings_are_sharded_over_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    sharded = []
    for k in range(3):
        monkeypatch.setattr(jax, "process_index", lambda k=k: k)
        sharded.append(devices.shard(range(10)))
    assert sharded == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]


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
