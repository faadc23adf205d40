"""The trainings of a run, one a place at a time: from the newest checkpoint, watched, stopped, saved.

What is trained is the caller's; here are only states, epochs and files. Each training is a generator that
pauses when its epochs are dispatched, so that one thread keeps every place busy; one place has them in turn.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax import heap, memory, stopping
from mim_jax.devices import Place, deal, find_places
from mim_jax.epochs import Metrics
from mim_jax.recorder import Recorder

# State and the numbers of the epochs, int32 [E] -> the state after them, and metrics, [E] each.
Run = Callable[[Any, jax.Array], tuple[Any, Metrics]]


@dataclass(frozen=True, eq=False)
class Training:
    """One training of one fold.

    Attributes:
      role: what is trained, for metrics.jsonl.
      fold: of the split.
      title: for the person waiting.
      folder: of its checkpoints.
      examples: trained on.
      updates: in an epoch.
      init: makes the state to begin with; its shapes are what is restored.
      begin: brings the examples to a place and gives the function that runs epochs there.
      model: how to build the network that scores, for the checkpoints.
      shown: metrics that stand beside the progress bar.
      panel: state -> a picture for TensorBoard.
      panel_every: epochs between two of them; 0 = none.
      recorder: of its own run, where those of several runs are trained together; None = that of `train`.
      smaller: the options that make it need less memory.
    """

    role: str
    fold: int
    title: str
    folder: Path
    examples: int
    updates: int
    init: Callable[[], Any]
    begin: Callable[[Place], Run]
    model: Mapping[str, Any]
    shown: tuple[str, ...]
    panel: Callable[[Any], np.ndarray] | None = None
    panel_every: int = 0
    recorder: Recorder | None = None
    smaller: tuple[str, ...] = ("training.batch_size", "data.image_size")


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had; the message says how to go on.

    Attributes:
      number: of the signal that asked.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


class NonFiniteLoss(Exception):
    """Training left the finite numbers; the message names the step and the metric."""


def train(trainings: Sequence[Training], settings: Mapping[str, Any], recorder: Recorder) -> None:
    """Runs every training of this process that is not finished, from its newest checkpoint.

    Args:
      trainings: of all processes, in the order in which they begin.
      settings: "epochs", "batch_size", "checkpoint_every", "keep", "epochs_per_dispatch", "devices" and
        "shards"; see configs/mim.py.
      recorder: what happens is told to it.

    Raises:
      Interrupted: on SIGINT or SIGTERM, after saving.
      NonFiniteLoss: a loss is infinite or not a number; the last good checkpoint stays.
      ValueError: as `devices.find_places` and `memory.check_program`.
    """
    places = deque(check_places(settings))
    waiting = deque(deal(trainings))
    recorder.start("training", total=len(waiting) * settings["epochs"])
    running: deque[tuple[Place, Generator[None, None, str | None]]] = deque()
    stopped: list[str] = []
    with stopping.requested(recorder.say) as stop:
        try:
            while running or (waiting and stop.number is None):
                while waiting and places and stop.number is None:
                    place = places.popleft()
                    running.append((place, _train_one(waiting.popleft(), place, settings, recorder, stop)))
                place, one = running.popleft()
                try:
                    next(one)
                    running.append((place, one))
                except StopIteration as end:
                    places.append(place)
                    stopped += [end.value] if end.value else []
        finally:
            for _, one in running:
                one.close()  # waits for what it is saving
    if stop.number is not None and (stopped or waiting):
        where = f"after {' and '.join(stopped)} and saved" if stopped else "between two trainings"
        raise Interrupted(f"stopped {where}: {stopping.GOES_ON}", stop.number)
    recorder.finish()


def check_places(settings: Mapping[str, Any]) -> list[Place]:
    """The places that the settings ask for; ValueError as `devices.find_places`."""
    return find_places(**{name: settings[name] for name in ("devices", "shards", "batch_size")})


def restore(folder: Path, *, updates: int, init: Callable[[], Any]) -> Any:
    """The state at the end of a training of `updates` updates.

    Raises:
      ValueError: it is not trained to its end, or its checkpoint is missing or damaged.
    """
    from mim_jax.checkpoints import FoldCheckpoints

    with FoldCheckpoints(folder, read_only=True) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done != updates:
            raise ValueError(
                f"{folder} is trained for {done} of {updates} updates: finish it with --mode=train"
            )
        return checkpoints.restore(jax.eval_shape(init))


def _train_one(
    training: Training,
    place: Place,
    settings: Mapping[str, Any],
    bar: Recorder,
    stop: stopping.Request,
) -> Generator[None, None, str | None]:
    """Trains to the end; pauses whenever the device has something to do. Returns where it was stopped."""
    # Orbax takes a second to import; mistakes should not wait.
    from mim_jax.checkpoints import FoldCheckpoints

    with FoldCheckpoints(training.folder, keep=settings["keep"]) as checkpoints:
        try:
            return (yield from _run_epochs(training, place, settings, checkpoints, bar, stop))
        finally:
            stop.rescues.pop(training, None)


def _run_epochs(
    training: Training,
    place: Place,
    settings: Mapping[str, Any],
    checkpoints: Any,
    bar: Recorder,
    stop: stopping.Request,
) -> Generator[None, None, str | None]:
    updates, fold, recorder = training.updates, training.fold, training.recorder or bar
    latest = checkpoints.latest_step()
    epoch = 0 if latest is None else latest // updates
    bar.describe(training.title)
    bar.skip(epoch)
    if epoch == settings["epochs"]:
        return None
    recorder.rewind(training.role, fold, epoch, epoch * updates)
    # 1. a checkpoint of this workdir; 2. a fresh network, made where nothing else is waiting to be computed.
    if latest is None:
        with jax.default_device(place.devices[0]):
            state = place.put(training.init())
    else:
        state = checkpoints.restore(jax.eval_shape(training.init), place.whole)
    run = training.begin(place)

    def rescue(state: Any, epoch: int) -> Callable[[], str]:
        """Saves the state after `epoch`; with no state there is only what is being saved to wait for."""

        def save() -> str:
            if state is not None:
                _check_state(state, fold, epoch, checkpoints)
                checkpoints.save(state, training.model)
            checkpoints.wait()
            return f"epoch {(checkpoints.latest_step() or 0) // updates} of fold {fold + 1}"

        return save

    saved, lasted, needed = epoch, 0.0, None
    while epoch < settings["epochs"]:
        count = _epochs_until_look(settings, training.panel_every, epoch)
        # From the host: a range made on the first device would wait for the training there.
        numbers = place.put(np.arange(epoch, epoch + count, dtype=np.int32))
        if needed is None:
            needed = memory.check_program(
                run, state, numbers, what=training.title, smaller=training.smaller, say=recorder.say
            )
        # The dispatch takes the state for its own. One that may outlast the time there is leaves a copy.
        at_risk = lasted > stopping.GRACE / 2 and epoch > saved
        stop.rescues[training] = rescue(jax.tree.map(jnp.copy, state) if at_risk else None, epoch)
        began = time.perf_counter()
        heap.make_room(needed)
        state, metrics = run(state, numbers)
        yield  # the others' turn: what they make it wait counts into its seconds
        values = {name: np.asarray(column, np.float64) for name, column in metrics.items()}
        lasted = time.perf_counter() - began
        seconds = lasted / count
        timing = {"images_per_s": training.examples / seconds, "seconds": seconds}
        for i in range(count):
            means = {name: float(column[i]) for name, column in values.items()}
            _check_finite(means, fold, epoch + i + 1, (epoch + i + 1) * updates, checkpoints)
            recorder.epoch(training.role, fold, epoch + i + 1, (epoch + i + 1) * updates, {**means, **timing})
        epoch += count
        stop.rescues[training] = rescue(state, epoch)
        bar.describe(training.title)
        bar.advance(count, **{name: values[name][-1] for name in training.shown})
        if training.panel and training.panel_every and epoch % training.panel_every == 0:
            recorder.panel(training.role, fold, epoch * updates, training.panel(state))
        asked = stop.number is not None
        if epoch % settings["checkpoint_every"] == 0 or epoch == settings["epochs"] or asked:
            _check_state(state, fold, epoch, checkpoints)
            with stop.lock:
                checkpoints.save(state, training.model)
            saved = epoch
        if asked:
            return f"epoch {epoch} of fold {fold + 1}"
    return None


def _epochs_until_look(settings: Mapping[str, Any], panel_every: int, epoch: int) -> int:
    """Epochs to dispatch at once: never across a checkpoint, a panel or the end."""
    most = settings["epochs_per_dispatch"] or (1 if jax.default_backend() == "cpu" else 10)
    stops = [settings["checkpoint_every"], panel_every or settings["checkpoint_every"]]
    return min([most, settings["epochs"] - epoch, *(every - epoch % every for every in stops)])


def _check_finite(means: Mapping[str, float], fold: int, epoch: int, step: int, checkpoints: Any) -> None:
    for name, value in means.items():
        if not np.isfinite(value):
            raise NonFiniteLoss(
                f"{name} is {value} in epoch {epoch} (update {step}) of fold {fold + 1}: lower "
                "--config.optimizer.learning_rate or use --config.training.precision=float32 in a new "
                f"--workdir; {_newest(checkpoints)}"
            )


def _check_state(state: Any, fold: int, epoch: int, checkpoints: Any) -> None:
    """Finite losses can leave parameters that are not: such a state must not push out the last good one."""
    # By NumPy, which needs no device: that may be busy with what is being given up.
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state)):
        raise NonFiniteLoss(
            f"the parameters are not finite after epoch {epoch} of fold {fold + 1}: lower "
            f"--config.optimizer.learning_rate in a new --workdir; {_newest(checkpoints)}"
        )


def _newest(checkpoints: Any) -> str:
    step = checkpoints.latest_step()
    return "there is no checkpoint yet" if step is None else f"the newest checkpoint is that of update {step}"
