"""Save, restore and verify the checkpoints of one fold; the only module that uses Orbax.

A step holds three items: the network that scores images, called `generator` or `classifier` (parameters and
statistics), `training` (everything else that training needs) and `model` (JSON: how to rebuild that
network). Orbax writes into a temporary directory and renames it, so a step is complete or absent. It does
not detect every bit flip in an array, so `model` also stores a hash of each item.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

FORMAT = 2  # of the model description; incremented when older versions could not read newer files
DESCRIPTIONS = 2**20  # most bytes that Orbax writes in addition to the arrays
UNHASHED = 1  # the format without hashes, still readable


class State(Protocol):
    """Training state: a dataclass that counts its updates."""

    # The network that scores images: its name, and collection -> field that holds it.
    SCORING: ClassVar[tuple[str, Mapping[str, str]]]
    step: jax.Array


S = TypeVar("S", bound=State)


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or belongs to another network."""


class FoldCheckpoints(contextlib.AbstractContextManager["FoldCheckpoints"]):
    """The checkpoints in one directory, newest last.

    Saving is asynchronous; leaving the `with` block waits for it. Until then Orbax's log lines are dropped;
    failures are raised as errors.
    """

    def __init__(self, directory: Path, *, keep: int = 2, read_only: bool = False):
        """Open `directory`, creating it unless `read_only`; keep the newest `keep` steps."""
        self.directory = directory.resolve()
        if read_only and not self.directory.is_dir():
            raise CheckpointError(f"{self.directory} does not exist: train this fold first")
        if not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
        if not os.access(self.directory, os.R_OK | os.X_OK):
            raise CheckpointError(f"no permission to read {self.directory}: give it to this user")
        with contextlib.ExitStack() as stack:
            stack.enter_context(_orbax_silenced())
            self._manager = self._open(keep, read_only)
            self._silence = stack.pop_all()

    def _open(self, keep: int, read_only: bool) -> ocp.CheckpointManager:
        # Each training belongs to one process. By default Orbax expects all processes at every save; with
        # `active_processes` it does not, but requires an existing folder.
        process = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})
        if jax.process_count() > 1:
            _write_alone(process)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            create=False,
            multiprocessing_options=alone,
            # Otherwise processes that save at once mix up their signals, numbered in each, kept in one place.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        # Orbax's default handlers would write their metadata only in the first process.
        handlers: dict[str, ocp.CheckpointHandler] = {
            name: ocp.StandardCheckpointHandler(multiprocessing_options=alone)
            for name in ("generator", "classifier", "training")
        }
        handlers["model"] = ocp.JsonCheckpointHandler(multiprocessing_options=alone)
        return ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self._manager.close()
        except Exception as failure:
            # An error already being raised says more than one from closing after it.
            if error is None:
                raise self._unwritable(failure) from failure
        finally:
            self._silence.close()

    def latest_step(self) -> int | None:
        """Number of updates at the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: State, model: Mapping[str, Any]) -> None:
        """Save `state` under its step, unless that step is saved already."""
        step = int(state.step)
        if step == self.latest_step():
            return
        parts = _split(state)
        hashes = dict(zip((state.SCORING[0], "training"), map(parameter_hash, parts), strict=True))
        hashes["model"] = _description_hash(model)
        network, rest = jax.tree.map(_seen_by_another, parts)
        items = ocp.args.Composite(
            **{state.SCORING[0]: ocp.args.StandardSave(network)},
            training=ocp.args.StandardSave(rest),
            model=ocp.args.JsonSave({"format": FORMAT, **model, "hashes": hashes}),
        )
        self._check_space(sum(leaf.nbytes for leaf in jax.tree.leaves(parts)) * 1.1 + DESCRIPTIONS)
        try:
            saved = self._manager.save(step, args=items)
        except Exception as failure:
            raise self._unwritable(failure) from failure
        if not saved:
            raise CheckpointError(
                f"step {step} was not saved in {self.directory}, whose newest step is {self.latest_step()}: "
                "the directory belongs to a longer run; use another workdir"
            )

    def wait(self) -> None:
        """Wait until pending saves are on disk."""
        try:
            self._manager.wait_until_finished()
        except Exception as failure:
            raise self._unwritable(failure) from failure

    def restore(self, abstract: S, sharding: jax.sharding.Sharding | None = None) -> S:
        """Restore the newest state in the structure, shapes and dtypes of `abstract` (`jax.eval_shape`).

        It is placed by `sharding`, or on the first device, regardless of where it was saved.
        """
        name, fields = abstract.SCORING
        network, rest = _split(abstract)
        found = self._restore(
            **{name: ocp.args.StandardRestore(_on_device(network, sharding))},
            training=ocp.args.StandardRestore(_on_device(rest, sharding)),
        )
        scoring = {field: found[name][collection] for collection, field in fields.items()}
        return type(abstract)(**scoring, **found["training"])

    def model(self) -> dict[str, Any]:
        """Read the description of the model saved with the newest step."""
        return self._restore()["model"]

    def network(self, name: str, abstract: Any) -> Any:
        """Restore only the network that scores images: {"params", "batch_stats"} as in `abstract`."""
        return self._restore(**{name: ocp.args.StandardRestore(_on_device(abstract))})[name]

    def _check_space(self, size: float) -> None:
        """Raise before writing if the disk is too full, because Orbax's background tasks would fail late.

        Old steps are removed only once the new one is complete, so both need space.
        """
        try:
            free = shutil.disk_usage(self.directory).free
        except OSError as failure:
            raise self._unwritable(failure) from failure
        if free < size:
            raise self._unwritable(f"{size / 2**20:.1f} MiB are needed, {free / 2**20:.1f} MiB are free")

    def _unwritable(self, failure: Exception | str) -> CheckpointError:
        """The error for a full, read-only or missing disk: Orbax and TensorStore raise various types."""
        if self.directory.is_dir():
            why = failure if isinstance(failure, str) else _first_line(failure)
            way_out = "free space on the disk"
        else:
            why, way_out = "the folder has been removed", "restore it"
        return CheckpointError(
            f"a checkpoint could not be written to {self.directory} ({why}): {way_out}, then start the same "
            "command again; it resumes from the newest complete checkpoint"
        )

    def _restore(self, **items: Any) -> dict[str, Any]:
        """Restore items and the model description of the newest step, and verify their hashes."""
        step = self.latest_step()
        if step is None:
            raise CheckpointError(f"{self.directory} holds no complete checkpoint: train this fold first")
        where = f"step {step} in {self.directory}"
        back = "to use an earlier step, or train again"
        try:
            found = dict(
                self._manager.restore(step, args=ocp.args.Composite(model=ocp.args.JsonRestore(), **items))
            )
            model = dict(found["model"])
        # Orbax and TensorStore raise many types for damaged or foreign files; the message must name the
        # step and the way out.
        except Exception as error:
            if closed := _unreadable(self.directory / str(step)):
                raise CheckpointError(
                    f"{where}: no permission to read {closed}: give it to this user"
                ) from error
            raise CheckpointError(
                f"{where} cannot be read ({_first_line(error)}): try again, the disk may be at fault; if the "
                f"step is damaged, move its folder elsewhere {back}"
            ) from error
        hashes = model.pop("hashes", {})
        if model.get("format") not in (FORMAT, UNHASHED):
            raise CheckpointError(
                f"{where} has format {model.get('format')!r}, this version reads {FORMAT} and {UNHASHED}: "
                "use the version of mim_jax that wrote it"
            )
        if model["format"] != UNHASHED:
            actual = {name: parameter_hash(found[name]) for name in items}
            actual["model"] = _description_hash({k: v for k, v in model.items() if k != "format"})
            for name, value in actual.items():
                if hashes.get(name) != value:
                    raise CheckpointError(
                        f"{where} is damaged: the SHA-256 of {name} is {value[:12]}, expected "
                        f"{str(hashes.get(name))[:12]}: delete its folder {back}"
                    )
        return {**found, "model": model}


def parameter_hash(variables: Any) -> str:
    """SHA-256 over a network's parameters and statistics, in the order of their names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(jax.tree_util.tree_leaves_with_path(variables), key=lambda item: str(item[0])):
        digest.update(str(name).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _unreadable(folder: Path) -> Path | None:
    """Find the first file or folder at or below `folder` that this user may not read."""
    return next((path for path in (folder, *folder.rglob("*")) if not os.access(path, os.R_OK)), None)


@contextlib.contextmanager
def _orbax_silenced() -> Iterator[None]:
    """Drop only Orbax's records from the absl log; the user's levels and handlers are unchanged."""
    logger, package = logging.getLogger("absl"), str(Path(ocp.__file__).parent)

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return not record.pathname.startswith(package)

    logger.addFilter(from_elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(from_elsewhere)


def _description_hash(model: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _split(state: State) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a state into the network that scores images, by collection, and the other fields."""
    collections = state.SCORING[1]
    rest = {
        field.name: getattr(state, field.name)
        for field in dataclasses.fields(state)  # type: ignore[arg-type]  # a protocol, not a dataclass
        if field.name not in collections.values()
    }
    return {name: getattr(state, field) for name, field in collections.items()}, rest


@functools.cache
def _write_alone(process: int) -> None:
    """Make Orbax write whole arrays: by default each process writes a part of a replicated array."""
    handler = ocp.type_handlers.ArrayHandler(primary_host=process, use_replica_parallel=False)
    ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)


def _seen_by_another(leaf: jax.Array) -> jax.Array:
    """Return the array with a fictitious copy on a device of another process, if there is one.

    With several processes, Orbax refuses arrays that only one of them holds, and writes NumPy arrays only in
    the first process. It writes the first copy, which is ours, and never reads the other.
    """
    others = [device for device in jax.devices() if device.process_index != jax.process_index()]
    if not others:
        return leaf
    ours = leaf.addressable_data(0)  # complete: each device holds the whole state of a training
    mesh = jax.sharding.Mesh(np.array([*ours.devices(), others[0]]), ("copy",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.make_array_from_single_device_arrays(leaf.shape, everywhere, [ours])


def _on_device(abstract: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
    """Add a sharding to every leaf: without one Orbax restores onto the devices named in the checkpoint."""
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract
    )
