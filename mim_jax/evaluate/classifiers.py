"""Evaluation of a classifier on MIM's test images; mpox is scored by the fold that was not trained on it.

Nothing is trained, and no test image influences a choice: scores are fitted on training images alone.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.classifiers import ood_scores
from mim_jax.classifiers.ood_scores import Classifier
from mim_jax.classifiers.train import class_names, classifier_settings, make_network, trainings
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Split
from mim_jax.evaluate import metadata
from mim_jax.evaluate.comparison import compare
from mim_jax.evaluate.robustness import sheet
from mim_jax.evaluate.robustness.conditions import areas
from mim_jax.evaluate.saved_run import SavedRun, read_run
from mim_jax.evaluate.scores import ScoredImages, two_sides, write_scores
from mim_jax.evaluate.test_set import grouped, make_test_set
from mim_jax.train import trainer, workdir
from mim_jax.train.checkpoints import parameter_hash
from mim_jax.train.config import Experiment
from mim_jax.train.metric_writer import Recorder, read_events


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """One trained fold: its split, its network, and the training-image statistics that scores need."""

    split: Split
    network: Classifier
    fitted: ood_scores.Fitted


def evaluate(
    experiment: Experiment, path: Path, recorder: Recorder, *, began: float
) -> tuple[dict[str, Any], list[SavedRun]]:
    """Score the test images of a run and compute every table.

    Writes `fold_k/scores.csv`, `fold_k/clinical.csv` and `results.json` to the workdir `path`. `began` is the
    `time.perf_counter` at the start of the run. Returns `compare` of this run alone, and the run in a list;
    ValueError if a fold has not finished training.
    """
    started = time.perf_counter()
    settings, dataset = experiment.settings, experiment.dataset
    own, options = classifier_settings(settings), settings.evaluation
    test_set = make_test_set(dataset, experiment.splits, mode=options.augmentation, seed=settings.seed)
    recorder.start("scoring", total=sum(map(len, test_set.parts)))
    folds, scores, rows = load_folds(experiment, path), [], []
    for fold, part in zip(folds, test_set.parts, strict=True):
        scores.append(fold.network.scores(test_set.images[part], fold.fitted))
        recorder.advance(len(part))
    recorder.finish()
    for fold, part, scored in zip(folds, test_set.parts, test_set.scored(scores), strict=True):
        marked = dataclasses.replace(scored, seen=np.isin(test_set.index[part], fold.split.seen))
        _write(path, "scores.csv", fold.split.index, own.name, marked)
        rows.append(_describe_split(dataset, settings.data.known, fold.split, marked))
    history = [event for event in read_events(path / "metrics.jsonl") if event["event"] == "epoch"]
    variables = [fold.network.variables for fold in folds]
    clinical = experiment.clinical
    results = {
        **metadata.describe_run(own.name, experiment),
        "kind": "classifier",
        "method": own.name,
        "classes": list(class_names(settings)),
        "known": list(settings.data.known),
        "merged": own.merged,
        "splits": rows,
        "training": {
            "epochs": settings.training.epochs,
            "parameters": {own.name: metadata.count_parameters(variables[0]["params"])},
            "parameter_hash": [parameter_hash(each) for each in variables],
            "pretrained": Path(own.pretrained).name,
            "image_size": settings.data.image_size,
        },
        "clinical": None if clinical is None else _clinical(experiment, clinical, path, folds, recorder),
        "scores_sha256": workdir.hash_scores(path),
        "wall_time": metadata.wall_time(history, len(folds), started=started, began=began),
    }
    workdir.write_json(path / "results.json", results, sealed=True)
    runs = [read_run(path)]
    return compare(runs, resamples=options.resamples, seed=settings.seed), runs


def load_folds(experiment: Experiment, path: Path) -> list[TrainedClassifier]:
    """Restore the trained folds, and fit the scores on each fold's training images.

    ValueError if a checkpoint is missing, unfinished or damaged.
    """
    settings = experiment.settings
    network, folds = make_network(settings, dtype=jnp.float32), []
    for training, split in zip(trainings(experiment, path), experiment.splits, strict=True):
        updates = training.updates * settings.training.epochs
        state = jax.eval_shape(training.init)
        abstract = {"params": state.params, "batch_stats": state.batch_stats}
        variables = trainer.restore_network(
            training.folder, updates=updates, name="classifier", abstract=abstract
        )
        classifier = Classifier(network, variables, settings.data.image_size)
        _, features = classifier.outputs(training.examples["images"])
        fitted = ood_scores.fit(features, split.labels, len(class_names(settings)))
        folds.append(TrainedClassifier(split, classifier, fitted))
    return folds


def _write(path: Path, name: str, fold: int, method: str, scored: ScoredImages) -> None:
    table = {method: scored}
    write_scores(path / f"fold_{fold}" / name, fold, table, scores=ood_scores.SCORES, seen=True)


def _describe_split(
    dataset: Dataset, classes: Sequence[str], split: Split, scored: ScoredImages
) -> dict[str, Any]:
    """Row of Table 3 for a fold; `classes` are the known classes."""
    labels, counts = np.unique(dataset.labels[split.train], return_counts=True)
    known, seen = np.isin(scored.classes, classes), scored.seen
    return {
        "fold": split.index,
        "train": dict(zip(labels.tolist(), counts.tolist(), strict=True)),
        "test": len(split.test),
        "augmented": int(np.sum(scored.positive & scored.augmented)),
        "known": int(np.sum(~scored.positive & known & ~seen)),
        "unknown": int(np.sum(~scored.positive & ~known & ~seen)),
        "seen": int(np.sum(seen)),
    }


def _clinical(
    experiment: Experiment,
    clinical: Dataset,
    path: Path,
    folds: Sequence[TrainedClassifier],
    recorder: Recorder,
) -> dict[str, Any]:
    """Score the images of MIM's clinical test, with the same noise."""
    settings, count = experiment.settings, len(clinical)
    noise: dict[str, Any] = {"sigma": settings.evaluation.clinical_sigma, "seed": settings.seed}
    size = settings.data.image_size
    others = grouped(clinical, np.arange(count), size=size)
    positives = [grouped(experiment.dataset, fold.split.test, size=size) for fold in folds]
    drawn = sheet.draw_clinical(positives, count, seed=settings.seed)
    recorder.start("clinical test", total=2 * len(folds) * count)
    upper, lower = [], []
    for number, (fold, images) in enumerate(zip(folds, drawn, strict=True)):
        noisy = sheet.add_noise(images.images, first=(1 + number) * count, **noise)
        upper.append(fold.network.scores(noisy, fold.fitted))
        lower.append(fold.network.scores(others.images, fold.fitted))
        joined = {name: np.concatenate((upper[-1][name], lower[-1][name])) for name in ood_scores.SCORES}
        scored = two_sides(joined, images.groups, others.groups)
        _write(path, "clinical.csv", fold.split.index, classifier_settings(settings).name, scored)
        recorder.advance(2 * count)
    recorder.finish()
    own, other = (
        [np.stack([fold[name] for name in ood_scores.SCORES]) for fold in side] for side in (upper, lower)
    )
    resamples = settings.evaluation.resamples
    found = areas(own, other, drawn, others, resamples=resamples, seed=settings.seed)
    return {
        **sheet.describe_clinical(positives, count, **noise),
        "auroc": dict(zip(ood_scores.SCORES, found, strict=True)),
        **metadata.describe_clinical(clinical),
    }
