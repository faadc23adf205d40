"""The protocol up to the last checkpoint: data, splits, and for each fold train and save.

What follows is in `results`. These two are the modules that read a configuration.
"""

import functools
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
import optax

from mim_jax import detector, masks, training
from mim_jax.data import datasets, folds
from mim_jax.data.images import MIN_SIDE
from mim_jax.models import PatchDiscriminator, make_generator
from mim_jax.recorder import Recorder

if TYPE_CHECKING:
    from mim_jax.checkpoints import FoldCheckpoints

Config = Mapping[str, Any]


# Least and most of what a number in the configuration may be.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "data.folds": (2, 1000),
    "data.held_out": (0, 0.5),
    "data.procedural_positives": (1, 10**6),
    "data.procedural_negatives": (18, 10**6),
    "generator.width": (1, 4096),
    "generator.bottleneck_channels": (1, 10**6),
    "discriminator.width": (1, 4096),
    "training.epochs": (1, 10**9),
    "training.batch_size": (1, 10**9),
    "training.epochs_per_dispatch": (0, 10**6),
    "training.checkpoint_every": (1, 10**9),
    "training.keep": (1, 10**6),
    "training.panel_every": (0, 10**9),
    "evaluation.resamples": (1, 10**6),
    "decision.miss_rate": (1e-6, 1 - 1e-6),
}


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had; the message says how to go on."""


class NonFiniteLoss(Exception):
    """Training left the finite numbers; the message names the step and the metric."""


def load_data(config: Config, progress: Callable[[int, int], None] | None = None) -> datasets.Dataset:
    """The images that the configuration names: a folder, or the embedded procedural ones."""
    data = config["data"]
    if not data["root"]:
        return datasets.from_lesions(
            size=data["image_size"],
            positives=data["procedural_positives"],
            negatives=data["procedural_negatives"],
            seed=config["seed"],
        )
    return datasets.from_folder(
        data["root"],
        size=data["image_size"],
        positive=data["positive"],
        manifest=data["manifest"],
        group_pattern=data["group_pattern"],
        strict=data["strict"],
        min_side=max(MIN_SIDE, config["mask"]["size"]),
        progress=progress,
    )


def make_folds(config: Config, dataset: datasets.Dataset) -> list[folds.Fold]:
    """The splits of the positive images; indices count within `dataset.positives`."""
    data = config["data"]
    groups = dataset.groups[dataset.positives]
    return folds.make_folds(groups, folds=data["folds"], seed=config["seed"], grouped=data["grouped"])


def split_training(
    config: Config, dataset: datasets.Dataset, fold: folds.Fold
) -> tuple[np.ndarray, np.ndarray]:
    """Indices into `dataset` of the images to train on and of those held out of training, by group."""
    share = config["data"]["held_out"]
    indices = dataset.positives[fold.train]
    if not share:
        return indices, indices[:0]
    parts = max(2, round(1 / share))
    inner = folds.make_folds(
        dataset.groups[indices], folds=parts, seed=config["seed"], grouped=config["data"]["grouped"]
    )[0]
    return indices[inner.train], indices[inner.test]


def check(config: Config) -> None:
    """Raises ValueError for what can be known to be wrong before any image is read."""
    size, mask_size = config["data"]["image_size"], config["mask"]["size"]
    measure = detector.Measure(**measure_options(config))
    for field, (least, most) in RANGES.items():
        section, _, name = field.rpartition(".")
        value = config[section][name] if section else config[name]
        if not least <= value <= most:
            raise ValueError(f"config.{field} must lie between {least} and {most}, got {value}")
    if config["training"]["precision"] not in ("auto", "bfloat16", "float32"):
        raise ValueError(
            f"unknown precision {config['training']['precision']!r}: choose auto, bfloat16 or float32"
        )
    if config["evaluation"]["augmentation"] not in ("fixed", "random"):
        raise ValueError(
            f"unknown augmentation {config['evaluation']['augmentation']!r}: choose fixed or random"
        )
    if config["decision"]["rule"] not in ("calibrated", "paper"):
        raise ValueError(f"unknown decision rule {config['decision']['rule']!r}: choose calibrated or paper")
    if config["decision"]["rule"] == "paper" and measure != detector.Measure():
        raise ValueError(
            "config.decision.rule=paper is a threshold on SSIM+HBD of the whole image; with "
            f"{measure} it means nothing: use config.decision.rule=calibrated"
        )
    masks.check_sizes(size, mask_size)
    images, patches = (jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32) for side in (size, mask_size))
    jax.eval_shape(functools.partial(measure, mask_size=mask_size), images, patches)
    jax.eval_shape(functools.partial(training.init_state, game=make_game(config, steps=1)), jax.random.key(0))


def check_data(config: Config, dataset: datasets.Dataset, *, evaluation: bool) -> None:
    """Raises ValueError where the images cannot carry the protocol, before anything is claimed or trained."""
    smallest = min(len(split_training(config, dataset, fold)[0]) for fold in make_folds(config, dataset))
    batch_size = config["training"]["batch_size"]
    if batch_size > smallest:
        raise ValueError(
            f"config.training.batch_size (={batch_size}) exceeds the {smallest} training images of a fold: "
            f"set --config.training.batch_size={smallest} or less"
        )
    if evaluation and not len(dataset.negatives):
        raise ValueError(
            f"{dataset.source} holds nothing but {dataset.positive!r}: add folders of other classes to test "
            "against, or only train with --mode=train"
        )


def measure_options(config: Config) -> dict[str, Any]:
    """The fields of `detector.Measure`, from the section `evaluation`."""
    return {name: config["evaluation"][name] for name in ("metric", "window", "bins", "region")}


def make_game(config: Config, *, steps: int) -> training.Game:
    """Networks, optimiser and losses for a training of `steps` updates."""
    precision = config["training"]["precision"]
    fast = precision == "bfloat16" or (precision == "auto" and jax.default_backend() == "gpu")
    dtype = jnp.bfloat16 if fast else jnp.float32
    rates, loss = config["optimizer"], config["loss"]
    schedule = training.make_schedule(rates["decay"], learning_rate=rates["learning_rate"], steps=steps)
    return training.Game(
        generator=make_generator(config["generator"]["name"], config["generator"], dtype=dtype),
        discriminator=PatchDiscriminator(config["discriminator"]["width"], dtype=dtype),
        optimizer=optax.adam(schedule, b1=rates["b1"], b2=rates["b2"]),
        schedule=schedule,
        image_size=config["data"]["image_size"],
        mask_size=config["mask"]["size"],
        **loss,
    )


def train(config: Config, path: Path, dataset: datasets.Dataset, recorder: Recorder) -> None:
    """Trains every fold that is not finished, from its newest checkpoint.

    Raises:
      Interrupted: on SIGINT or SIGTERM, after saving.
      NonFiniteLoss: a loss is infinite or not a number; the last good checkpoint stays.
    """
    from mim_jax.checkpoints import (
        FoldCheckpoints,
    )  # Orbax takes a second to import; mistakes should not wait

    settings = config["training"]
    splits = [split_training(config, dataset, fold)[0] for fold in make_folds(config, dataset)]
    run_epochs = jax.jit(
        training.train_epochs, static_argnames=("game", "batch_size", "drop_last"), donate_argnames="state"
    )
    games: dict[int, training.Game] = {}
    recorder.start("training", total=len(splits) * settings["epochs"])
    with _stop_requested(recorder) as stop:
        for k, split in enumerate(splits):
            updates = training.steps_per_epoch(
                len(split), settings["batch_size"], drop_last=settings["drop_last"]
            )
            game = games.setdefault(updates, make_game(config, steps=updates * settings["epochs"]))
            recorder.describe(f"training fold {k + 1}/{len(splits)}")
            with FoldCheckpoints(path / f"fold_{k}" / "checkpoints", keep=settings["keep"]) as checkpoints:
                _train_fold(
                    config, k, game, run_epochs, dataset.images[split], updates, checkpoints, recorder, stop
                )
    recorder.finish()


def _train_fold(
    config: Config,
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
    recorder.rewind(fold, epoch, epoch * updates)
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
            batch_size=settings["batch_size"],
            drop_last=settings["drop_last"],
        )
        values = {name: np.asarray(column, np.float64) for name, column in metrics.items()}
        seconds = (time.perf_counter() - began) / count
        timing = {"images_per_s": len(images) / seconds, "seconds": seconds}
        for i in range(count):
            means = {name: float(column[i]) for name, column in values.items()}
            _check_finite(means, fold, epoch + i + 1, (epoch + i + 1) * updates, checkpoints)
            recorder.epoch(fold, epoch + i + 1, (epoch + i + 1) * updates, {**means, **timing})
        epoch += count
        recorder.advance(count, pixel=values["loss_pixel"][-1], d_fake=values["d_fake"][-1])
        if settings["panel_every"] and epoch % settings["panel_every"] == 0:
            recorder.panel(fold, epoch * updates, _panel(game, state, images[:4]))
        stopping = stop.is_set()
        if epoch % settings["checkpoint_every"] == 0 or epoch == settings["epochs"] or stopping:
            _check_state(state, fold, epoch, checkpoints)
            checkpoints.save(state, model)
        if stopping:
            raise Interrupted(
                f"stopped after epoch {epoch} of fold {fold + 1} and saved: the same command with the same "
                "--workdir goes on from there"
            )


def describe_model(config: Config) -> dict[str, Any]:
    """What a checkpoint must say so that its generator can be built without the configuration."""
    options = {name: value for name, value in config["generator"].items() if name != "name"}
    return {
        "generator": config["generator"]["name"],
        "options": options,
        "image_size": config["data"]["image_size"],
        "mask_size": config["mask"]["size"],
    }


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
    painted = detector.inpaint_all(game.generator, variables, images, mask_size=game.mask_size)
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
