"""What trained classifiers are worth: MIM's test images scored, by the fold that never saw their mpox.

Trains nothing, and never lets a test image choose anything: what scores need is fitted on training images.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mim_jax.classifiers import ood_scores
from mim_jax.classifiers.classifier import Classifier
from mim_jax.classifiers.protocol import Split, class_names, make_network, make_splits
from mim_jax.classifiers.train import trainings
from mim_jax.data.dataset import Dataset
from mim_jax.evaluate import decisions, metadata
from mim_jax.evaluate.comparison import compare
from mim_jax.evaluate.robustness import clinical as clinical_test
from mim_jax.evaluate.robustness.conditions import areas
from mim_jax.evaluate.saved_run import Run, read_run
from mim_jax.evaluate.scores import ScoredImages, two_sides
from mim_jax.evaluate.test_set import grouped, make_bank, scored_images, tested
from mim_jax.train import trainer, workdir
from mim_jax.train.config import Config
from mim_jax.train.metric_writer import Recorder, read_events


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedFold:
    """One fold: its split, its classifier, and what the scores know of its training images."""

    split: Split
    classifier: Classifier
    fitted: ood_scores.Fitted


def evaluate(
    config: Config,
    path: Path,
    dataset: Dataset,
    clinical: Dataset | None,
    recorder: Recorder,
    *,
    began: float,
) -> tuple[dict[str, Any], list[Run]]:
    """Scores and tables.

    Writes `fold_k/scores.csv`, `fold_k/clinical.csv` and `results.json`.

    Args:
      config: the run's.
      path: its workdir.
      dataset: its images.
      clinical: those of the clinical test; None = no such test.
      recorder: shows the progress.
      began: when the run began, by `time.perf_counter`.

    Returns:
      The comparison of this run with nothing but the paper, and the run.

    Raises:
      ValueError: a fold is not trained to its end.
    """
    started = time.perf_counter()
    method, settings = config["classifier"]["name"], config["evaluation"]
    bank = make_bank(dataset, mode=settings["augmentation"], seed=config["seed"])
    splits = make_splits(config, dataset)
    parts = [tested(bank, dataset, split.positives) for split in splits]
    recorder.start("scoring", total=sum(map(len, parts)))
    folds, rows = load_folds(config, path, dataset), []
    for fold, part in zip(folds, parts, strict=True):
        scores = fold.classifier.scores(bank.images[part], fold.fitted)
        scored, seen = scored_images(dataset, bank, part, scores), np.isin(bank.index[part], fold.split.seen)
        index = fold.split.positives.index
        _write_scores(path / f"fold_{index}" / "scores.csv", index, method, scored, seen)
        rows.append(_describe_split(config, dataset, fold.split, scored, seen))
        recorder.advance(len(part))
    recorder.finish()
    history = [event for event in read_events(path / "metrics.jsonl") if event["event"] == "epoch"]
    variables = [fold.classifier.variables for fold in folds]
    pretrained = config["classifier"]["pretrained"]
    results = {
        **metadata.describe_run(method, config, dataset),
        "kind": "classifier",
        "method": method,
        "classes": list(class_names(config)),
        "known": list(config["data"]["known"]),
        "merged": config["classifier"]["merged"],
        "splits": rows,
        "training": {
            "epochs": config["training"]["epochs"],
            "parameters": {method: metadata.count_parameters(variables[0]["params"])},
            "parameter_hash": [metadata.parameter_hash(each) for each in variables],
            "pretrained": Path(pretrained).name,
            "image_size": config["data"]["image_size"],
        },
        "clinical": None if clinical is None else _clinical(config, path, dataset, clinical, folds, recorder),
        "scores_sha256": workdir.hash_scores(path),
        "wall_time": {
            "train": metadata.training_seconds(history, len(folds)),
            "evaluate": time.perf_counter() - started,
            "total": time.perf_counter() - began,
        },
    }
    workdir.write_json(path / "results.json", results, sealed=True)
    runs = [read_run(path)]
    return compare(runs, resamples=settings["resamples"], seed=config["seed"]), runs


def load_folds(config: Config, path: Path, dataset: Dataset) -> list[TrainedFold]:
    """Restores what was trained, and fits the scores on the images that each fold trained on.

    Raises:
      ValueError: a fold is not trained to its end, or its checkpoint is missing or damaged.
    """
    network, epochs = make_network(config, dtype=jnp.float32), config["training"]["epochs"]
    folds = []
    for training, split in zip(trainings(config, path, dataset), make_splits(config, dataset), strict=True):
        state = trainer.restore(training.folder, updates=training.updates * epochs, init=training.init)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        classifier = Classifier(network, variables, config["data"]["image_size"])
        _, features = classifier.outputs(dataset.images[split.train])
        fitted = ood_scores.fit(features, split.labels, len(class_names(config)))
        folds.append(TrainedFold(split, classifier, fitted))
    return folds


def _write_scores(path: Path, fold: int, method: str, scored: ScoredImages, seen: np.ndarray) -> None:
    rows = decisions.rows(fold, method, scored, scores=ood_scores.SCORES)
    table = [{**row, "seen": bool(flag)} for row, flag in zip(rows, seen, strict=True)]
    decisions.write_csv(path, table)


def _describe_split(
    config: Config, dataset: Dataset, split: Split, scored: ScoredImages, seen: np.ndarray
) -> dict[str, Any]:
    """A fold's row of Table 3."""
    labels, counts = np.unique(dataset.labels[split.train], return_counts=True)
    known = np.isin(scored.classes, config["data"]["known"])
    return {
        "fold": split.positives.index,
        "train": dict(zip(labels.tolist(), counts.tolist(), strict=True)),
        "test": len(split.positives.test),
        "augmented": int(np.sum(scored.positive & scored.augmented)),
        "known": int(np.sum(~scored.positive & known & ~seen)),
        "unknown": int(np.sum(~scored.positive & ~known & ~seen)),
        "seen": int(np.sum(seen)),
    }


def _clinical(
    config: Config,
    path: Path,
    dataset: Dataset,
    clinical: Dataset,
    folds: Sequence[TrainedFold],
    recorder: Recorder,
) -> dict[str, Any]:
    """The clinical test: the images and the noise that MIM gets."""
    settings, seed, count = config["evaluation"], config["seed"], len(clinical)
    noise = {"sigma": settings["clinical_sigma"], "seed": seed}
    others = grouped(clinical, np.arange(count))
    positives = [grouped(dataset, dataset.positives[fold.split.positives.test]) for fold in folds]
    drawn = clinical_test.draw(positives, count, **noise)
    recorder.start("clinical test", total=2 * len(folds) * count)
    upper, lower = [], []
    for place, (fold, images) in enumerate(zip(folds, drawn, strict=True)):
        noisy = clinical_test.add_noise(images.images, first=(1 + place) * count, **noise)
        upper.append(fold.classifier.scores(noisy, fold.fitted))
        lower.append(fold.classifier.scores(others.images, fold.fitted))
        joined = {name: np.concatenate((upper[-1][name], lower[-1][name])) for name in ood_scores.SCORES}
        scored = two_sides(joined, images.groups, others.groups)
        index, method = fold.split.positives.index, config["classifier"]["name"]
        _write_scores(
            path / f"fold_{index}" / "clinical.csv", index, method, scored, np.zeros(len(scored), bool)
        )
        recorder.advance(2 * count)
    recorder.finish()
    own, other = (
        [np.stack([fold[name] for name in ood_scores.SCORES]) for fold in side] for side in (upper, lower)
    )
    found = areas(own, other, drawn, others, resamples=settings["resamples"], seed=seed)
    return {
        **clinical_test.describe(positives, count, **noise),
        "auroc": dict(zip(ood_scores.SCORES, found, strict=True)),
        **metadata.describe_clinical(clinical),
    }
