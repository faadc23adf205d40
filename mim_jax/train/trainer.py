"""The training loop: run every training from its newest checkpoint, record and save it, stop on request.

It handles states, epochs and files, whatever the network. Each training is a generator that yields once its
epochs are dispatched, so that one thread keeps every device group busy; on one group they train in turn.
"""

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.train import heap, memory, preemption
from mim_jax.train.devices import DeviceGroup, find_groups, shard
from mim_jax.train.epochs import Metrics, Program, Task, init_state
from mim_jax.train.metric_writer import Recorder
from mim_jax.train.settings import TrainingSettings
from mim_jax.train.stored_programs import StoredPrograms

# State and epoch numbers, int32 [E] -> the state after those epochs, and metrics, [E] each.
RunEpochs = Callable[[Any, jax.Array], tuple[Any, Metrics]]


@dataclass(frozen=True, eq=False)
class Training:
    """One training of one fold."""

    role: str  # name of the trained network in metrics.jsonl
    fold: int  # index of the split
    title: str  # shown to the user
    folder: Path  # of the checkpoints
    task: Task  # the networks and their update
    examples: Mapping[str, np.ndarray]  # training arrays `[N, ...]` by name, on the host
    scalars: Mapping[str, np.ndarray]  # additional values of every batch
    key: jax.Array  # source of all randomness
    updates: int  # per epoch
    model: Mapping[str, Any]  # how to rebuild the network that scores, for checkpoints
    shown: tuple[str, ...]  # metrics shown next to the progress bar
    start: Callable[[], Any] | None = None  # makes the initial state; None = `task.init(key)`
    panel: Callable[[Any], np.ndarray] | None = None  # state -> picture for TensorBoard
    panel_every: int = 0  # epochs between two panels; 0 = no panels
    # recorder of this training's run if several runs train together; None = the one given to `train`
    recorder: Recorder | None = None
    smaller: tuple[str, ...] = ("training.batch_size", "data.image_size")  # options that reduce memory
    recipe: str = ""  # text that, with the code, determines `task`; "" = its program is not stored

    def init(self) -> Any:
        """Make the initial state."""
        return self.start() if self.start else init_state(self.task, self.key)

    def saved_epoch(self) -> int:
        """Epochs completed at the newest checkpoint; 0 = no checkpoint."""
        steps = [int(path.name) for path in self.folder.glob("*") if path.name.isdecimal()]  # complete ones
        return max(steps, default=0) // self.updates

    def begin(
        self, group: DeviceGroup, settings: TrainingSettings, programs: StoredPrograms | None = None
    ) -> Program:
        """Copy the examples to a device group, and return the program that runs epochs there.

        It comes from `programs` if the training has a recipe and the group a single device.
        """
        return Program(
            self.task,
            **group.put({"examples": self.examples, "scalars": self.scalars, "key": self.key}),
            programs=programs if self.recipe and group.split is None else None,
            recipe=self.recipe,
            batch_size=settings.batch_size,
            drop_last=settings.drop_last,
            split=group.split,
        )


class Interrupted(Exception):
    """The run was stopped by signal `number` and has saved its state; the message says how to resume."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


class NonFiniteLoss(Exception):
    """A loss or a parameter became infinite or NaN; the message names it and the epoch."""


def train(
    trainings: Sequence[Training],
    settings: TrainingSettings,
    recorder: Recorder,
    *,
    wrap: Callable[[RunEpochs], RunEpochs] = lambda run: run,
    programs: StoredPrograms | None = None,
) -> None:
    """Run every unfinished training of this process, from its newest checkpoint.

    `trainings` are those of all processes, in the order in which they begin; `wrap` may replace each function
    that runs epochs, as a profiler does; `programs` spares the tracing of trainings with a recipe.

    Raises:
      Interrupted: on SIGINT or SIGTERM, after saving.
      NonFiniteLoss: a loss or a parameter is infinite or NaN; the last good checkpoint is kept.
      ValueError: as in `devices.find_groups` and `memory.check_program`.
    """
    groups = deque(find_groups(settings))
    waiting = deque(shard(trainings))
    recorder.start("training", total=len(waiting) * settings.epochs)
    running: deque[tuple[DeviceGroup, Generator[None, None, str | None]]] = deque()
    stopped: list[str] = []
    with preemption.requested(recorder.say) as stop:
        try:
            while running or (waiting and stop.number is None):
                while waiting and groups and stop.number is None:
                    group = groups.popleft()
                    running.append(
                        (
                            group,
                            _train_one(waiting.popleft(), group, settings, recorder, stop, wrap, programs),
                        )
                    )
                group, one = running.popleft()
                try:
                    next(one)
                    running.append((group, one))
                except StopIteration as end:
                    groups.append(group)
                    stopped += [end.value] if end.value else []
        finally:
            for _, one in running:
                one.close()  # waits for pending saves
    if stop.number is not None and (stopped or waiting):
        where = f"after {' and '.join(stopped)} and saved" if stopped else "between two trainings"
        raise Interrupted(f"stopped {where}: {preemption.GOES_ON}", stop.number)
    recorder.finish()


def restore_network(folder: Path, *, updates: int, name: str, abstract: Any) -> Any:
    """Restore the network of a training as `FoldCheckpoints.network` does.

    ValueError if the training has not made all `updates`, or the checkpoint is damaged.
    """
    from mim_jax.train.checkpoints import FoldCheckpoints

    with FoldCheckpoints(folder, read_only=True) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done != updates:
            raise ValueError(
                f"{folder} is trained for {done} of {updates} updates: finish it with --mode=train"
            )
        return checkpoints.network(name, abstract)


def _train_one(
    training: Training,
    group: DeviceGroup,
    settings: TrainingSettings,
    bar: Recorder,
    stop: preemption.Request,
    wrap: Callable[[RunEpochs], RunEpochs],
    programs: StoredPrograms | None,
) -> Generator[None, None, str | None]:
    """Train to the end, yielding while the device is busy; return where it was stopped, if it was."""
    # Orbax takes a second to import; errors in the settings should not wait for it.
    from mim_jax.train.checkpoints import FoldCheckpoints

    updates, fold, recorder = training.updates, training.fold, training.recorder or bar
    with FoldCheckpoints(training.folder, keep=settings.keep) as checkpoints, contextlib.ExitStack() as over:
        over.callback(stop.rescues.pop, training, None)
        latest = checkpoints.latest_step()
        epoch = 0 if latest is None else latest // updates
        bar.describe(training.title)
        bar.skip(epoch)
        if epoch == settings.epochs:
            return None
        recorder.rewind(training.role, fold, epoch, epoch * updates)
        examples = len(next(iter(training.examples.values())))
        # Resume from a checkpoint, or make a fresh network, on this group's device because that one is idle.
        if latest is None:
            with jax.default_device(group.devices[0]):
                state = group.put(training.init())
        else:
            state = checkpoints.restore(jax.eval_shape(training.init), group.whole)
        program = training.begin(group, settings, programs)
        run = wrap(program)

        def rescue(state: Any, epoch: int) -> str:
            """Save `state`, from `epoch`, unless it is None; wait for pending saves; say what is saved."""
            if state is not None:
                _check_state(state, fold, epoch, checkpoints)
                checkpoints.save(state, training.model)
            checkpoints.wait()
            return f"epoch {(checkpoints.latest_step() or 0) // updates} of fold {fold}"

        saved, lasted, needed = epoch, 0.0, None
        while epoch < settings.epochs:
            count = _epochs_to_dispatch(settings, training.panel_every, epoch)
            # Made on the host: a range made on the first device would wait for the training there.
            numbers = group.put(np.arange(epoch, epoch + count, dtype=np.int32))
            if needed is None:
                needed = memory.check_program(
                    program, state, numbers, what=training.title, smaller=training.smaller, say=recorder.say
                )
            # The dispatch donates the state. Keep a copy if the dispatch may outlast the grace period.
            at_risk = lasted > preemption.GRACE / 2 and epoch > saved
            kept = jax.tree.map(jnp.copy, state) if at_risk else None
            stop.rescues[training] = functools.partial(rescue, kept, epoch)
            began = time.perf_counter()
            heap.make_room(needed)
            state, metrics = run(state, numbers)
            yield  # to the other trainings; waiting for them counts in this one's seconds
            values = {name: np.asarray(column, np.float64) for name, column in metrics.items()}
            lasted = time.perf_counter() - began
            timing = {"images_per_s": count * examples / lasted, "seconds": lasted / count}
            for i, done in enumerate(range(epoch + 1, epoch + count + 1)):
                means = {name: float(column[i]) for name, column in values.items()}
                _check_finite(means, fold, done, done * updates, checkpoints)
                recorder.epoch(training.role, fold, done, done * updates, {**means, **timing})
            epoch += count
            stop.rescues[training] = functools.partial(rescue, state, epoch)
            bar.describe(training.title)
            bar.advance(count, **{name: values[name][-1] for name in training.shown})
            if training.panel and training.panel_every and epoch % training.panel_every == 0:
                recorder.panel(training.role, fold, epoch * updates, training.panel(state))
            asked = stop.number is not None
            if epoch % settings.checkpoint_every == 0 or epoch == settings.epochs or asked:
                _check_state(state, fold, epoch, checkpoints)
                with stop.lock:
                    checkpoints.save(state, training.model)
                saved = epoch
            if asked:
                return f"epoch {epoch} of fold {fold}"
        return None


def _epochs_to_dispatch(settings: TrainingSettings, panel_every: int, epoch: int) -> int:
    """Number of epochs to dispatch at once: never across a checkpoint, a panel or the end."""
    most = settings.epochs_per_dispatch or (1 if jax.default_backend() == "cpu" else 10)
    stops = [settings.checkpoint_every, panel_every or settings.checkpoint_every]
    return min([most, settings.epochs - epoch, *(every - epoch % every for every in stops)])


def _check_finite(means: Mapping[str, float], fold: int, epoch: int, step: int, checkpoints: Any) -> None:
    for name, value in means.items():
        if not np.isfinite(value):
            raise NonFiniteLoss(
                f"{name} is {value} in epoch {epoch} (update {step}) of fold {fold}: lower "
                "--config.optimizer.learning_rate or use --config.training.precision=float32 in a new "
                f"--workdir; {_newest(checkpoints)}"
            )


def _check_state(state: Any, fold: int, epoch: int, checkpoints: Any) -> None:
    """Raise before a non-finite state, possible after finite losses, replaces the last good one."""
    # With NumPy, which needs no device: it may still be busy with an abandoned dispatch.
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state)):
        raise NonFiniteLoss(
            f"the parameters are not finite after epoch {epoch} of fold {fold}: lower "
            f"--config.optimizer.learning_rate in a new --workdir; {_newest(checkpoints)}"
        )


def _newest(checkpoints: Any) -> str:
    step = checkpoints.latest_step()
    return "there is no checkpoint yet" if step is None else f"the newest checkpoint is from update {step}"
