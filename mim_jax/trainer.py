"""The trainings of a run, one after the other: from the newest checkpoint, watched, stopped, saved.

What is trained is the caller's; here are only states, epochs and files.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
      begin: brings the examples to the device and gives the function that runs epochs.
      model: how to build the network that scores, for the checkpoints.
      shown: metrics that stand beside the progress bar.
      panel: state -> a picture for TensorBoard.
      panel_every: epochs between two of them; 0 = none.
    """

    role: str
    fold: int
    title: str
    folder: Path
    examples: int
    updates: int
    init: Callable[[], Any]
    begin: Callable[[], Run]
    model: Mapping[str, Any]
    shown: tuple[str, ...]
    panel: Callable[[Any], np.ndarray] | None = None
    panel_every: int = 0


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had; the message says how to go on."""


class NonFiniteLoss(Exception):
    """Training left the finite numbers; the message names the step and the metric."""


def train(trainings: Sequence[Training], settings: Mapping[str, Any], recorder: Recorder) -> None:
    """Runs every training that is not finished, from its newest checkpoint.

    Args:
      trainings: in the order in which they run.
      settings: "epochs", "checkpoint_every", "keep", "epochs_per_dispatch"; see configs/mim.py.
      recorder: what happens is told to it.

    Raises:
      Interrupted: on SIGINT or SIGTERM, after saving.
      NonFiniteLoss: a loss is infinite or not a number; the last good checkpoint stays.
    """
    # Orbax takes a second to import; mistakes should not wait.
    from mim_jax.checkpoints import FoldCheckpoints

    recorder.start("training", total=len(trainings) * settings["epochs"])
    with _stop_requested(recorder) as stop:
        for training in trainings:
            recorder.describe(training.title)
            with FoldCheckpoints(training.folder, keep=settings["keep"]) as checkpoints:
                _train_one(training, settings, checkpoints, recorder, stop)
    recorder.finish()


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
    settings: Mapping[str, Any],
    checkpoints: Any,
    recorder: Recorder,
    stop: threading.Event,
) -> None:
    updates, fold = training.updates, training.fold
    latest = checkpoints.latest_step()
    epoch = 0 if latest is None else latest // updates
    recorder.skip(epoch)
    if epoch == settings["epochs"]:
        return
    recorder.rewind(training.role, fold, epoch, epoch * updates)
    # 1. a checkpoint of this workdir; 2. a fresh network.
    state = training.init() if latest is None else checkpoints.restore(jax.eval_shape(training.init))
    run = training.begin()
    while epoch < settings["epochs"]:
        count = _epochs_until_look(settings, training.panel_every, epoch)
        began = time.perf_counter()
        state, metrics = run(state, jnp.arange(epoch, epoch + count))
        values = {name: np.asarray(column, np.float64) for name, column in metrics.items()}
        seconds = (time.perf_counter() - began) / count
        timing = {"images_per_s": training.examples / seconds, "seconds": seconds}
        for i in range(count):
            means = {name: float(column[i]) for name, column in values.items()}
            _check_finite(means, fold, epoch + i + 1, (epoch + i + 1) * updates, checkpoints)
            recorder.epoch(training.role, fold, epoch + i + 1, (epoch + i + 1) * updates, {**means, **timing})
        epoch += count
        recorder.advance(count, **{name: values[name][-1] for name in training.shown})
        if training.panel and training.panel_every and epoch % training.panel_every == 0:
            recorder.panel(training.role, fold, epoch * updates, training.panel(state))
        stopping = stop.is_set()
        if epoch % settings["checkpoint_every"] == 0 or epoch == settings["epochs"] or stopping:
            _check_state(state, fold, epoch, checkpoints)
            checkpoints.save(state, training.model)
        if stopping:
            raise Interrupted(
                f"stopped after epoch {epoch} of fold {fold + 1} and saved: the same command with the same "
                "--workdir goes on from there"
            )


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
                f"--workdir; the newest checkpoint is that of update {checkpoints.latest_step()}"
            )


def _check_state(state: Any, fold: int, epoch: int, checkpoints: Any) -> None:
    """Finite losses can leave parameters that are not: such a state must not push out the last good one."""
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state)):
        raise NonFiniteLoss(
            f"the parameters are not finite after epoch {epoch} of fold {fold + 1}: lower "
            "--config.optimizer.learning_rate in a new --workdir; the newest checkpoint is that of update "
            f"{checkpoints.latest_step()}"
        )


@contextmanager
def _stop_requested(recorder: Recorder) -> Iterator[threading.Event]:
    """Sets the event on the first SIGINT or SIGTERM, so that the epoch under way can be saved.

    A second one stops at once.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        recorder.say(
            "stopping: the epoch under way is finished and saved first; a second Ctrl-C stops at once"
        )

    for number in before:
        signal.signal(number, request)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
