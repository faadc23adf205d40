"""What a trained workdir is worth: every test image scored by the fold that never saw it; tables and report.

Reads the configuration as `experiment` does, trains nothing, and never lets a test image choose anything.
"""

import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mim_jax import decisions, detector, experiment, masks, training, workdir
from mim_jax.checkpoints import FoldCheckpoints
from mim_jax.controls import CONTROLS
from mim_jax.data import augment, datasets, folds, lesions
from mim_jax.evaluation import ScoredImages, summarize
from mim_jax.figures import Panels
from mim_jax.recorder import Recorder, read_events
from mim_jax.report import write_report
from mim_jax.similarity import METRICS

NOTICE = "These are procedural images. They prove that the machinery runs and say nothing about mpox."
# Table 2 of the paper: mean and population standard deviation over five folds, on its own images.
PAPER_AUROC = {
    "ssim_hbd": (0.8237, 0.0101),
    "ssim": (0.7582, 0.0455),
    "hbd": (0.7979, 0.0243),
    "mae": (0.7214, 0.0312),
    "mse": (0.6984, 0.0286),
}
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "dm-pix",
    "numpy",
    "pillow",
    "scikit-learn",
    "mim-jax",
)


@dataclass(frozen=True, eq=False)
class Bank:
    """Every image that is ever tested, with its augmented copies, once. Arrays of length n.

    Attributes:
      images: uint8 `[n, S, S, 3]`.
      index: position in the dataset.
      copy: 0 = untouched, 1, 2, ... = augmented copies.
      augmented: bool, belongs to the augmented test sets.
      plain: bool, belongs to the plain test sets.
    """

    images: np.ndarray
    index: np.ndarray
    copy: np.ndarray
    augmented: np.ndarray
    plain: np.ndarray


def make_bank(dataset: datasets.Dataset, *, mode: str, seed: int) -> Bank:
    """Positives with their five copies each, then all negatives (see `augment.augment_test`)."""
    positives, negatives = dataset.positives, dataset.negatives
    copies, origin, number = augment.augment_test(dataset.images[positives], mode=mode, seed=seed)
    # The random mode has no untouched original among its five: it stands beside them, for the plain
    # table alone.
    apart = positives if not np.any(number == 0) else positives[:0]
    images = np.concatenate((copies, dataset.images[apart], dataset.images[negatives]))
    copy = np.concatenate((number, np.zeros(len(apart) + len(negatives), int)))
    augmented = np.ones(len(images), bool)
    augmented[len(copies) : len(copies) + len(apart)] = False
    return Bank(images, np.concatenate((positives[origin], apart, negatives)), copy, augmented, copy == 0)


def evaluate(
    config: experiment.Config, path: Path, dataset: datasets.Dataset, recorder: Recorder, *, began: float
) -> Path:
    """Scores, tables, figures, report.

    Writes `fold_k/scores.csv`, `calibration.json`, `results.json`, `figures/` and `report.html`.

    Returns:
      The report's path.

    Raises:
      ValueError: a fold is not trained to its end.
    """
    started = time.perf_counter()
    splits = experiment.make_folds(config, dataset)
    measure = detector.Measure(**experiment.measure_options(config))
    models = [_load_fold(config, path, dataset, fold) for fold in splits]
    bank = make_bank(dataset, mode=config["evaluation"]["augmentation"], seed=config["seed"])
    parts = [np.flatnonzero(_tested(bank, dataset, fold)) for fold in splits]

    recorder.start("scoring", total=sum(map(len, parts)) + len(CONTROLS) * len(bank.images))
    generator, size = models[0].generator, config["mask"]["size"]
    methods: dict[str, list[ScoredImages]] = {"mim": []}
    for model, part in zip(models, parts, strict=True):
        scores = detector.measure_all(
            generator, model.variables[0], bank.images[part], mask_size=size, measure=measure
        )
        methods["mim"].append(_scored(dataset, bank, part, scores))
        recorder.advance(len(part))
    for name, fill in CONTROLS.items():
        # A control is the same in every fold: score the bank once and deal it out.
        scores = detector.measure_filled(fill, bank.images, mask_size=size, measure=measure)
        methods[name] = [
            _scored(dataset, bank, part, {metric: values[part] for metric, values in scores.items()})
            for part in parts
        ]
        recorder.advance(len(bank.images))
    recorder.finish()

    settings = config["decision"]
    if settings["rule"] == "paper":
        thresholds = decisions.paper_thresholds(len(splits))
    else:
        thresholds = decisions.calibrate(
            methods["mim"], metric=measure.metric, miss_rate=settings["miss_rate"]
        )
    workdir.write_json(
        path / "calibration.json", {**asdict(thresholds), "measure": experiment.measure_options(config)}
    )
    table = [
        row
        for method, many in methods.items()
        for fold, scored in enumerate(many)
        for row in decisions.rows(fold, method, scored, thresholds if method == "mim" else None)
    ]
    for fold in range(len(splits)):
        decisions.write_csv(
            path / f"fold_{fold}" / "scores.csv", (row for row in table if row["fold"] == fold)
        )
    summary = summarize(
        methods,
        metrics=METRICS,
        primary=measure.metric,
        resamples=config["evaluation"]["resamples"],
        seed=config["seed"],
        class_groups=_class_groups(dataset),
    )
    history = [event for event in read_events(path / "metrics.jsonl") if event["event"] == "epoch"]
    results = {
        **_describe(config, dataset, splits, bank, models),
        **summary,
        "held_out": _held_out_error(config, dataset, splits, models),
        "decision": {
            "metric": thresholds.metric,
            "rule": thresholds.origin,
            "thresholds": thresholds.folds,
            "pooled": thresholds.pooled,
            "table": decisions.count_decisions(table),
        },
        "wall_time": {
            "train": _training_seconds(history, len(splits)),
            "evaluate": time.perf_counter() - started,
            "total": time.perf_counter() - began,
        },
    }
    workdir.write_json(path / "results.json", results)
    panels = _choose_panels(dataset, bank, models, methods["mim"], parts, measure.metric)
    return write_report(path, results=results, scores=table, history=history, panels=panels)


def _load_fold(
    config: experiment.Config, path: Path, dataset: datasets.Dataset, fold: folds.Fold
) -> detector.Detector:
    images = len(experiment.split_training(config, dataset, fold)[0])
    settings = config["training"]
    updates = training.steps_per_epoch(images, settings["batch_size"], drop_last=settings["drop_last"])
    with FoldCheckpoints(path / f"fold_{fold.index}" / "checkpoints", read_only=True) as checkpoints:
        done, wanted = checkpoints.latest_step() or 0, updates * settings["epochs"]
    if done != wanted:
        raise ValueError(
            f"fold {fold.index + 1} in {path} is trained for {done} of {wanted} updates: finish it with "
            "--mode=train"
        )
    return detector.Detector.load(path, fold=fold.index)


def _tested(bank: Bank, dataset: datasets.Dataset, fold: folds.Fold) -> np.ndarray:
    """bool [n]: the images of the bank that `fold` is tested on."""
    positive = dataset.labels[bank.index] == dataset.positive
    return ~positive | np.isin(bank.index, dataset.positives[fold.test])


def _scored(
    dataset: datasets.Dataset, bank: Bank, part: np.ndarray, scores: Mapping[str, np.ndarray]
) -> ScoredImages:
    index = bank.index[part]
    return ScoredImages(
        names=dataset.names[index],
        classes=dataset.labels[index],
        groups=dataset.groups[index],
        copies=bank.copy[part],
        positive=dataset.labels[index] == dataset.positive,
        augmented=bank.augmented[part],
        plain=bank.plain[part],
        similarities=dict(scores),
    )


def _class_groups(dataset: datasets.Dataset) -> dict[str, list[str]]:
    """The groups of classes of the paper's data that occur here."""
    present = dataset.class_counts()
    groups = {
        name: [label for label in labels if label in present and label != dataset.positive]
        for name, labels in lesions.CLASS_GROUPS.items()
    }
    return {name: labels for name, labels in groups.items() if labels}


def _held_out_error(
    config: experiment.Config,
    dataset: datasets.Dataset,
    splits: Sequence[folds.Fold],
    models: Sequence[detector.Detector],
) -> dict[str, Any] | None:
    """Inpainting error of the central hole on the images held out of training, per fold.

    What choices may be made by.
    """
    if not config["data"]["held_out"]:
        return None
    errors, counts = [], []
    for fold, model in zip(splits, models, strict=True):
        images = dataset.images[experiment.split_training(config, dataset, fold)[1]]
        similarities = detector.measure_all(
            model.generator,
            model.variables[0],
            images,
            mask_size=model.mask_size,
            measure=detector.Measure(region="mask"),
        )
        errors.append(
            {"mae": float(np.mean(1 - similarities["mae"])), "ssim": float(np.mean(similarities["ssim"]))}
        )
        counts.append(len(images))
    mean = {name: float(np.mean([error[name] for error in errors])) for name in ("mae", "ssim")}
    return {"images": counts, "folds": errors, "mean": mean}


def _describe(
    config: experiment.Config,
    dataset: datasets.Dataset,
    splits: Sequence[folds.Fold],
    bank: Bank,
    models: Sequence[detector.Detector],
) -> dict[str, Any]:
    procedural = not config["data"]["root"]
    name = "procedural lesions" if procedural else Path(config["data"]["root"]).name
    game = experiment.make_game(config, steps=1)
    state = jax.eval_shape(lambda key: training.init_state(key, game), jax.random.key(0))
    groups = dataset.groups[dataset.positives]
    rows = []
    for fold in splits:
        trained, held_out = experiment.split_training(config, dataset, fold)
        tested = _tested(bank, dataset, fold) & (dataset.labels[bank.index] == dataset.positive)
        rows.append(
            {
                "fold": fold.index,
                "train": len(trained),
                "held_out": len(held_out),
                "test": len(fold.test),
                "augmented": int(np.sum(tested & bank.augmented)),
                "negatives": len(dataset.negatives),
                "train_groups": len(np.unique(dataset.groups[trained])),
                "test_groups": len(np.unique(groups[fold.test])),
            }
        )
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "title": f"MIM on {name}",
        "notice": NOTICE if procedural else None,
        "data": {
            "source": dataset.source,
            "digest": dataset.digest(),
            "positive": dataset.positive,
            "grouped": dataset.grouped and config["data"]["grouped"] and not dataset.group_problems,
            "classes": dataset.class_counts(),
            "class_groups": _class_groups(dataset),
            "unusable": [list(item) for item in dataset.unusable],
        },
        "splits": rows,
        "paper": {metric: list(values) for metric, values in PAPER_AUROC.items()},
        "training": {
            "epochs": config["training"]["epochs"],
            "parameters": {
                "generator": sum(leaf.size for leaf in jax.tree.leaves(state.generator_params)),
                "discriminator": sum(leaf.size for leaf in jax.tree.leaves(state.discriminator_params)),
            },
            "parameter_hash": [experiment.parameter_hash(model.variables[0]) for model in models],
        },
        "environment": {
            "versions": versions,
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "cpu_count": os.cpu_count(),
            "python": platform.python_version(),
        },
        "seed": config["seed"],
        "config": dict(config),
    }


def _training_seconds(history: Sequence[Mapping[str, Any]], count: int) -> list[float]:
    """Seconds inside the epochs of each fold (compilation included), resumed or not."""
    seconds = [0.0] * count
    for event in history:
        seconds[event["fold"]] += event["seconds"]
    return seconds


def _choose_panels(
    dataset: datasets.Dataset,
    bank: Bank,
    models: Sequence[detector.Detector],
    scored: Sequence[ScoredImages],
    parts: Sequence[np.ndarray],
    metric: str,
    extremes: int = 4,
) -> Panels:
    """Figure 5: test images of median score in their fold or class, and the best and worst of both sides."""
    chosen: list[tuple[int, int, str]] = []  # fold, position within its test set, kind
    for fold, test in enumerate(scored):
        own = np.flatnonzero(test.positive & test.plain)
        order = own[np.argsort(test.similarities[metric][own], kind="stable")]
        chosen.append((fold, int(order[len(order) // 2]), "typical"))
    first = scored[0]
    for label in sorted(set(first.classes[~first.positive].tolist())):
        own = np.flatnonzero(first.classes == label)
        order = own[np.argsort(first.similarities[metric][own], kind="stable")]
        chosen.append((0, int(order[len(order) // 2]), "typical"))
    for side in (True, False):
        pool = [
            (float(test.similarities[metric][i]), fold, int(i))
            for fold, test in enumerate(scored)
            if side or fold == 0
            for i in np.flatnonzero((test.positive == side) & test.plain)
        ]
        pool.sort()
        few = min(extremes, len(pool) // 2)
        chosen += [(fold, i, "worst") for _, fold, i in pool[:few]]
        chosen += [(fold, i, "best") for _, fold, i in pool[len(pool) - few :]]
    position = np.array([i for _, i, _ in chosen])
    of_fold = np.array([fold for fold, _, _ in chosen])
    images = np.stack([bank.images[parts[fold][i]] for fold, i, _ in chosen])
    inpainted = np.zeros(images.shape, np.float32)
    for fold, model in enumerate(models):
        rows = np.flatnonzero(of_fold == fold)
        inpainted[rows] = model.inpaint(images[rows])
    pick = [scored[fold].select(np.array([i])) for fold, i in zip(of_fold, position, strict=True)]
    size = models[0].mask_size
    return Panels(
        images=images,
        inpainted=inpainted,
        offset=masks.center_offset(images.shape[1], size),
        mask_size=size,
        names=np.array([item.names[0] for item in pick]),
        classes=np.array([item.classes[0] for item in pick]),
        scores=np.array([item.similarities[metric][0] for item in pick]),
        folds=of_fold,
        positive=np.array([item.positive[0] for item in pick]),
        kind=np.array([kind for _, _, kind in chosen]),
    )
