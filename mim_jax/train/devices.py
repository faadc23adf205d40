"""Device groups, the processes of a run, and barriers between the processes.

Each training is placed on a device of its own instead of being stacked along an axis of one program. Folds
differ by a few images, so a stack would pad the short batch, and BatchNorm would see the padding; it would
also tie a fold that is nearly done to one that was just resumed. `jit` runs where its operands are, so the
host places each training on its group and dispatches to the groups in turn. Results equal those of one
device bit for bit, because the program is the same; the cost is that every device compiles it (GPUs share
one entry of the compilation cache).

A group of several devices replicates a training's state and splits its batches. Under `jit` a mean over the
split axis is the mean over the whole batch: BatchNorm, losses and gradients need no special code, and differ
from one device only by the order of summation.

Several processes, one per host, divide the trainings among themselves. A group never spans processes: each
saves its own trainings, and they synchronise only at a `barrier`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from mim_jax.train.settings import TrainingSettings

T = TypeVar("T")


class FailedElsewhere(ValueError):
    """Another process of this run has stopped; its own output says why."""


@dataclass(frozen=True)
class DeviceGroup:
    """One device, or several that split the batches of one training."""

    devices: tuple[jax.Device, ...]

    @property
    def whole(self) -> Sharding:
        """Sharding of replicated arrays: parameters, images, keys."""
        if len(self.devices) == 1:
            return SingleDeviceSharding(self.devices[0])
        return NamedSharding(self._mesh, PartitionSpec())

    @property
    def split(self) -> NamedSharding | None:
        """Sharding of a batch, along its first axis; None for a single device."""
        return None if len(self.devices) == 1 else NamedSharding(self._mesh, PartitionSpec("batch"))

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), ("batch",))

    def put(self, tree: Any) -> Any:
        """Replicate arrays on every device of the group."""
        return jax.device_put(tree, self.whole)


def find_groups(settings: TrainingSettings) -> list[DeviceGroup]:
    """Divide `devices` devices of this process (0 = all) into groups of `shards`.

    ValueError if there are fewer devices, or `shards` does not divide their number or the batch size.
    """
    here = jax.local_devices()
    used, shards, batch_size = settings.devices or len(here), settings.shards, settings.batch_size
    if used > len(here):
        raise ValueError(
            f"config.training.devices (={used}) exceeds the number available ({len(here)} of "
            f"platform {here[0].platform}): set --config.training.devices=0 to use all"
        )
    if used % shards:
        raise ValueError(
            f"config.training.shards (={shards}) does not divide the {used} devices: set "
            "--config.training.shards to a divisor, or --config.training.devices to a multiple"
        )
    if batch_size % shards:
        raise ValueError(
            f"config.training.batch_size (={batch_size}) cannot be split over {shards} devices: set it to a "
            f"multiple of {shards}, or --config.training.shards to a divisor of {batch_size}"
        )
    return [DeviceGroup(tuple(here[first : first + shards])) for first in range(0, used, shards)]


def is_first() -> bool:
    """Whether this is the process that claims the workdir, evaluates and reports."""
    return jax.process_index() == 0


def shard(items: Sequence[T]) -> list[T]:
    """This process's share of the items."""
    return list(items[jax.process_index() :: jax.process_count()])


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Connect the processes of a run if there are several; call it before any computation.

    `coordinator` is the HOST:PORT where process 0 listens, `process` the index of this one of `processes`;
    None = from the scheduler, or a single process. ValueError if only some of the three are given, or the
    processes cannot connect to each other.
    """
    given = [value is not None for value in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise ValueError("--coordinator, --processes and --process belong together: give all three, or none")
    scheduled, alone_on_host = _scheduled()
    if not any(given) and scheduled == 1:
        return
    # Its SIGTERM handler would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if any(given):
            # Cluster detection would leave each process only one device.
            jax.distributed.initialize(coordinator, processes, process, cluster_detection_method="deactivate")
        else:
            jax.distributed.initialize()
            if alone_on_host:
                # Cluster detection leaves all devices but one to other processes on the host: there are none.
                jax.config.update("jax_cuda_visible_devices", "all")
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"the processes of this run cannot connect ({str(error).strip().splitlines()[0]}): name them "
            "with --coordinator=HOST:PORT --processes=N --process=K"
        ) from error


def _scheduled() -> tuple[int, bool]:
    """Number of processes that the scheduler started, and whether this one is alone on its host.

    SLURM sets these variables in a step (srun), not in the batch script or shell around it.
    """
    number = {name: int(value) for name, value in os.environ.items() if value.isdecimal()}
    slurm = number.get("SLURM_STEP_NUM_TASKS", 1)
    if slurm > 1:
        return slurm, slurm == number.get("SLURM_STEP_NUM_NODES")
    return number.get("OMPI_COMM_WORLD_SIZE", 1), number.get("OMPI_COMM_WORLD_LOCAL_SIZE") == 1


@contextmanager
def barrier() -> Iterator[None]:
    """Block that all processes leave together; `FailedElsewhere` if another process failed inside it."""
    try:
        yield
    except Exception:
        _failures(failed=True)
        raise
    failed = _failures(failed=False)
    if failed:
        raise FailedElsewhere(
            f"process {failed[0]} of {jax.process_count()} has stopped: its own output says why"
        )


def one_process_at_a_time(work: Callable[[], T]) -> T:
    """Run `work` in the first process, then in all others at once."""
    with barrier():
        done = work() if is_first() else None
    with barrier():
        return work() if done is None else done


def _failures(*, failed: bool) -> list[int]:
    """Indices of the processes that failed; waits until all processes have called it."""
    if jax.process_count() == 1:
        return []
    return np.flatnonzero(multihost_utils.process_allgather(np.array(failed))).tolist()
