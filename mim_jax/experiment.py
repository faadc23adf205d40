"""Training: every fold that is not finished, from its newest checkpoint, with and without the adversary."""

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax import detector, training
from mim_jax.data.datasets import Dataset
from mim_jax.protocol import Config, describe_model, make_folds, make_game, split_training
from mim_jax.recorder import Recorder

if TYPE_CHECKING:
    from mim_jax.checkpoints import FoldCheckpoints

# The trainings of a fold: where their checkpoints lie, and whether there is an adversary.
ROLES = {"mim": ("checkpoints", True), "autoencoder": ("autoencoder", False)}


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had; the message says how to go on."""


class NonFiniteLoss(Exception):
    """Training left the finite numbers; the message names the step and the metric."""


def train(config: Config, path: Path, dataset: Dataset, recorder: Recorder) -> None:
    """Trains every fold that is not finished, from its newest checkpoint.

    Raises:
      Interrupted: on SIGINT or SIGTERM, after saving.
      NonFiniteLoss: a loss is infinite or not a number; the last good checkpoint stays.
    """
    # Orbax takes a second to import; mistakes should not wait.
    from mim_jax.checkpoints import FoldCheckpoints

    settings = config["training"]
    splits = [split_training(config, dataset, fold)[0] for fold in make_folds(config, dataset)]
    roles = [role for role in ROLES if role == "mim" or settings["autoencoder"]]
    run_epochs = jax.jit(
        training.train_epochs, static_argnames=("game", "batch_size", "drop_last"), donate_argnames="state"
    )
    games: dict[int, training.Game] = {}
    recorder.start("training", total=len(roles) * len(splits) * settings["epochs"])
    with _stop_requested(recorder) as stop:
        for role in roles:
            folder, adversary = ROLES[role]
            for k, split in enumerate(splits):
                updates = training.steps_per_epoch(
                    len(split), settings["batch_size"], drop_last=settings["drop_last"]
                )
                game = games.setdefault(updates, make_game(config, steps=updates * settings["epochs"]))
                recorder.describe(
                    f"training fold {k + 1}/{len(splits)}" + ("" if adversary else ", no adversary")
                )
                with FoldCheckpoints(path / f"fold_{k}" / folder, keep=settings["keep"]) as checkpoints:
                    images = dataset.images[split]
                    _train_fold(
                        config, role, k, game, run_epochs, images, updates, checkpoints, recorder, stop
                    )
    recorder.finish()


def _train_fold(
    config: Config,
    role: str,
    fold: int,
    game: training.Game,
    run_epochs: Callable[..., tuple[training.AdversarialState, training.Metrics]],
    images: np.ndarray,
    updates: int,
    checkpoints: "FoldCheckpoints",
    recorder: Recorder,
    stop: threading.Event,
) -> None:
    settings = config["training"]
    key = jax.random.fold_in(jax.random.key(config["seed"]), fold)
    model = describe_model(config)
    latest = checkpoints.latest_step()
    epoch = 0 if latest is None else latest // updates
    recorder.skip(epoch)
    if epoch == settings["epochs"]:
        return
    recorder.rewind(role, fold, epoch, epoch * updates)
    # 1. a checkpoint of this workdir; 2. fresh networks.
    init = jax.jit(training.init_state, static_argnames="game")
    state = init(key, game=game) if latest is None else checkpoints.restore(init.eval_shape(key, game=game))
    on_device = jnp.asarray(images)
    while epoch < settings["epochs"]:
        count = _epochs_until_look(settings, epoch)
        began = time.perf_counter()
        state, metrics = run_epochs(
            game=game,
            state=state,
            images=on_device,
            epochs=jnp.arange(epoch, epoch + count),
            key=key,
            adversary=jnp.float32(ROLES[role][1]),
            batch_size=settings["batch_size"],
            drop_last=settings["drop_last"],
        )
        values = {name: np.asarray(column, np.float64) for name, column in metrics.items()}
        seconds = (time.perf_counter() - began) / count
        timing = {"images_per_s": len(images) / seconds, "seconds": seconds}
        for i in range(count):
            means = {name: float(column[i]) for name, column in values.items()}
            _check_finite(means, fold, epoch + i + 1, (epoch + i + 1) * updates, checkpoints)
            recorder.epoch(role, fold, epoch + i + 1, (epoch + i + 1) * updates, {**means, **timing})
        epoch += count
        recorder.advance(count, pixel=values["loss_pixel"][-1], d_fake=values["d_fake"][-1])
        if settings["panel_every"] and epoch % settings["panel_every"] == 0:
            recorder.panel(role, fold, epoch * updates, _panel(game, state, images[:4]))
        stopping = stop.is_set()
        if epoch % settings["checkpoint_every"] == 0 or epoch == settings["epochs"] or stopping:
            _check_state(state, fold, epoch, checkpoints)
            checkpoints.save(state, model)
        if stopping:
            raise Interrupted(
                f"stopped after epoch {epoch} of fold {fold + 1} and saved: the same command with the same "
                "--workdir goes on from there"
            )


def parameter_hash(variables: Any) -> str:
    """SHA-256 over a generator's parameters and statistics, in the order of their names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(jax.tree_util.tree_leaves_with_path(variables), key=lambda item: str(item[0])):
        digest.update(str(name).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _epochs_until_look(settings: Config, epoch: int) -> int:
    """Epochs to dispatch at once: never across a checkpoint, a panel or the end."""
    most = settings["epochs_per_dispatch"] or (1 if jax.default_backend() == "cpu" else 10)
    stops = [settings["checkpoint_every"], settings["panel_every"] or settings["checkpoint_every"]]
    return min([most, settings["epochs"] - epoch, *(every - epoch % every for every in stops)])


def _check_finite(
    means: Mapping[str, float], fold: int, epoch: int, step: int, checkpoints: "FoldCheckpoints"
) -> None:
    for name, value in means.items():
        if not np.isfinite(value):
            raise NonFiniteLoss(
                f"{name} is {value} in epoch {epoch} (update {step}) of fold {fold + 1}: lower "
                "--config.optimizer.learning_rate or use --config.training.precision=float32 in a new "
                f"--workdir; the newest checkpoint is that of update {checkpoints.latest_step()}"
            )


def _check_state(
    state: training.AdversarialState, fold: int, epoch: int, checkpoints: "FoldCheckpoints"
) -> None:
    """Finite losses can leave parameters that are not: such a state must not push out the last good one."""
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state)):
        raise NonFiniteLoss(
            f"the parameters are not finite after epoch {epoch} of fold {fold + 1}: lower "
            "--config.optimizer.learning_rate in a new --workdir; the newest checkpoint is that of update "
            f"{checkpoints.latest_step()}"
        )


def _panel(game: training.Game, state: training.AdversarialState, images: np.ndarray) -> np.ndarray:
    """Rows of original | inpainted, uint8."""
    variables = {"params": state.generator_params, "batch_stats": state.batch_stats}
    sizes = {"mask_size": game.mask_size, "margin": game.margin}
    painted = detector.inpaint_all(game.generator, variables, images, **sizes)
    rows = np.concatenate((images / 255.0, painted), axis=2)
    return np.round(255 * np.concatenate(rows, axis=0)).astype(np.uint8)


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
