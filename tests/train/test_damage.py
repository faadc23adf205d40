"""Each file of a finished workdir in turn is truncated, changed in one bit, or deleted.

Loading the run then gives the original content or an error that names the workdir, never anything else.
"""

import functools
import gc
import json
import os
import shutil
from typing import Any, ClassVar

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from small_training import SHORT, build, configuration, small_networks

from mim_jax.cli import main
from mim_jax.detector import Detector
from mim_jax.evaluate import saved_run
from mim_jax.train import mim, workdir
from mim_jax.train.checkpoints import CheckpointError, FoldCheckpoints, parameter_hash

pytestmark = [
    pytest.mark.usefixtures("compiled_quickly"),
    # A read that Orbax abandoned may end after its event loop was closed; nothing can wait for it.
    pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning"),
]
FIELDS = {**SHORT, "evaluation.metric": "hbd"}
DAMAGES = {
    "truncated": lambda data, draw: data[: draw.integers(len(data))],
    "flipped": lambda data, draw: flipped(data, draw.integers(8 * len(data))),
    "deleted": lambda data, draw: None,
}


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_quickly):
    with small_networks():
        path = tmp_path_factory.mktemp("run")
        arguments = {"config": configuration(**FIELDS), "workdir": str(path), "device": "auto", "paths": []}
        assert main.execute("run", **arguments) == 0
        yield path


def seen_by_a_detector(path):
    found = Detector.load(path)
    described = (found.image_size, found.mask_size, found.measure, found.model, found.calibration)
    return jax.tree.leaves(jax.tree.map(np.asarray, list(found.variables))), repr(described)


@pytest.fixture(autouse=True)
def abandoned_readers_are_collected():
    """Python warns of what Orbax left behind here, where that is expected, and not in some later test."""
    yield
    gc.collect()


@functools.cache
def experiment():
    return build(**FIELDS)


def seen_by_training(path):
    one, *_ = mim.trainings(experiment(), path)
    with FoldCheckpoints(one.folder, read_only=True) as checkpoints:
        state = checkpoints.restore(jax.eval_shape(one.init))
    return jax.tree.leaves(jax.tree.map(np.asarray, state)), ""


def seen_by_a_comparison(path):
    found = saved_run.read_run(path)
    arrays = [np.asarray(array) for fold in found.folds for array in fold.similarities.values()]
    results = {name: value for name, value in found.results.items() if name != workdir.CLOCK}
    return arrays, repr((results, [fold.names.tolist() for fold in found.folds]))


def files_of(path):
    """Yield files and the function that reads them; of checkpoints only the newest of the first fold."""
    newest = max((path / "fold_0" / "checkpoints").iterdir(), key=lambda step: int(step.name))
    for name in ("config.json", "calibration.json", "results.json"):
        yield path / name, seen_by_a_detector
    for name in ("results.json", "fold_0/scores.csv"):
        yield path / name, seen_by_a_comparison
    for file in sorted(newest.rglob("*")):
        if file.is_file() and file.stat().st_size:
            # A resumed training reads the detector's files and the rest.
            yield file, seen_by_a_detector if "model" in file.parts else seen_by_training


# Orbax leaves event loops behind when it fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_refused_or_does_not_matter(how, finished, tmp_path):
    path = shutil.copytree(finished, tmp_path / "copy")
    whole = {read: read(path) for read in (seen_by_a_detector, seen_by_training, seen_by_a_comparison)}
    draw = np.random.default_rng(0)
    refused = set()
    for file, read in files_of(path):
        data = file.read_bytes()
        changed = DAMAGES[how](data, draw)
        file.unlink() if changed is None else file.write_bytes(changed)
        arrays, described = whole[read]
        try:
            found, said = read(path)
        except ValueError as error:
            assert str(path) in str(error), (file, error)
            refused.add(file.name)
        else:
            assert said == described, (file, read)
            for one, two in zip(found, arrays, strict=True):
                np.testing.assert_array_equal(one, two, err_msg=f"{file} {read}")
        file.write_bytes(data)
    assert {"config.json", "calibration.json", "scores.csv", "manifest.ocdbt"} <= refused


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_only_proven_damage_is_a_reason_to_delete(finished, tmp_path, monkeypatch):
    path = shutil.copytree(finished, tmp_path / "copy")
    folder = path / "fold_0" / "checkpoints"
    newest = max(folder.iterdir(), key=lambda step: int(step.name))
    closed = newest / "generator" / "manifest.ocdbt"
    closed.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cannot be read .* move its folder elsewhere") as raised:
        seen_by_a_detector(path)
    assert "delete" not in str(raised.value)
    access = os.access
    for what in (closed, folder):
        monkeypatch.setattr(os, "access", lambda name, mode, no=what: name != no and access(name, mode))
        with pytest.raises(CheckpointError) as raised:
            seen_by_a_detector(path)
        assert f"no permission to read {what}: give it to" in str(raised.value)
        assert "delete" not in str(raised.value)


def test_a_run_of_the_same_seed_has_the_same_hashes_profiled_or_not(finished, tmp_path, capsys):
    arguments = {"config": configuration(**FIELDS), "workdir": str(tmp_path), "device": "auto", "paths": []}
    assert main.execute("train", **arguments, profile=True) == 0
    assert f"profile: {tmp_path / 'profile'}" in capsys.readouterr().out
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    hashes = workdir.read_json(finished / "results.json")["training"]["parameter_hash"]
    assert [parameter_hash(each) for each in Detector.load(tmp_path).variables] == hashes
    assert len(set(hashes)) == 2


def test_the_seal_leaves_out_the_clock_alone(tmp_path):
    def seal(**content):
        workdir.write_json(tmp_path / "a.json", content, sealed=True)
        return json.loads((tmp_path / "a.json").read_text())[workdir.SEAL]

    assert seal(auroc=0.5, wall_time=1) == seal(auroc=0.5, wall_time=2) != seal(auroc=0.25, wall_time=1)


def test_another_network_than_the_calibrated_is_refused(finished, tmp_path):
    """For example if the newest step is deleted and the one before it takes its place."""
    path = shutil.copytree(finished, tmp_path / "copy")
    steps = sorted((path / "fold_1" / "checkpoints").iterdir(), key=lambda step: int(step.name))
    shutil.rmtree(steps[-1])
    for fold in (None, 1):
        with pytest.raises(ValueError, match="made for other networks than the workdir holds"):
            Detector.load(path, fold=fold)
    Detector.load(path, fold=0)


class Large(struct.PyTreeNode):
    """A state with arrays so large that Orbax keeps no checksum of them."""

    SCORING: ClassVar = ("generator", {"params": "params"})
    step: jax.Array
    params: Any
    moments: Any


@pytest.mark.parametrize("item", ["generator", "training"])
def test_a_bit_that_orbax_does_not_check_is_found(item, tmp_path):
    arrays = [{"w": jax.random.normal(jax.random.key(seed), (100, 100))} for seed in range(2)]
    state = Large(jnp.array(1), *arrays)
    with FoldCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {"margin": 0, "sizes": (1, 2)})
    (file,) = [f for f in (tmp_path / "1" / item).rglob("*") if f.is_file() and f.stat().st_size > 30_000]
    data = file.read_bytes()
    for bit in np.random.default_rng(0).integers(8 * len(data), size=5).tolist():
        file.write_bytes(flipped(data, bit))
        with FoldCheckpoints(tmp_path, read_only=True) as checkpoints:
            with pytest.raises(
                CheckpointError, match=r"step 1 in .* (is damaged: the SHA-256|cannot be read)"
            ):
                checkpoints.restore(jax.eval_shape(lambda: state))
            assert checkpoints.model() == {"format": 2, "margin": 0, "sizes": [1, 2]}


def test_orbax_is_silent_while_checkpoints_are_open_and_others_are_not(tmp_path, caplog):
    logger = absl.logging.get_absl_logger()
    before = (list(logger.filters), logger.level, list(logger.handlers))
    logger.addHandler(caplog.handler)
    try:
        with FoldCheckpoints(tmp_path) as checkpoints:
            checkpoints.save(Large(jnp.array(1), {"w": jnp.ones(3)}, {"w": jnp.ones(3)}), {})
        with FoldCheckpoints(tmp_path, read_only=True) as checkpoints:
            checkpoints.model()
            absl.logging.warning("of the user")
    finally:
        logger.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"of the user"}
    assert (logger.filters, logger.level, logger.handlers) == before
