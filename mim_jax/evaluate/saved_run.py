"""A finished run as it lies in its workdir: what it says of itself, and the scores of its test images."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax.classifiers import ood_scores
from mim_jax.classifiers.ood_scores import SCORE_NAMES
from mim_jax.evaluate.method_names import REFERENCE
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.measure import METRIC_NAMES, METRICS
from mim_jax.train import workdir

CONTROLS = ("autoencoder", "color_neighbors")  # of a MIM run, those that a classifier should meet too
_FLAGS = {"True": True, "False": False}
_SCORES = (*ood_scores.SCORES, *METRICS, "score")
_COLUMNS = ("method", "name", "class", "group", "copy", "augmented", "plain", "positive")


@dataclass(frozen=True, eq=False)
class Run:
    """A run of MIM or of a classifier.

    Attributes:
      path: its workdir, as it was given.
      method: "mim", or the classifier's name.
      results: what its results.json holds.
      primary: the score that stands for it: what a MIM run decides by, "probability" of a classifier.
      folds: its scored test images, one `ScoredImages` a fold.
      seen: for each fold bool `[n]`: did the fold train on the group of that negative? Never so for MIM.
      controls: of a MIM run, those of `CONTROLS` that it holds: name -> folds.
      clinical: the images of its clinical test, one `ScoredImages` a fold; None = there is none.
    """

    path: Path
    method: str
    results: Mapping[str, Any]
    primary: str
    folds: list[ScoredImages]
    seen: list[np.ndarray]
    controls: dict[str, list[ScoredImages]]
    clinical: list[ScoredImages] | None

    @property
    def is_mim(self) -> bool:
        return self.method == REFERENCE


def read_run(path: str | Path) -> Run:
    """Reads the workdir of a finished run.

    Raises:
      ValueError: no results, a file of scores that is missing or damaged, or a fold without scores.
    """
    path = Path(path)
    if not (path / "results.json").exists():
        raise ValueError(
            f"{path} holds no results.json: finish that run with launch.py --workdir={path} and its own "
            "configuration, or evaluate it with --mode=evaluate"
        )
    results = workdir.read_json(path / "results.json")
    workdir.check_scores(path, results)
    is_mim = results.get("kind") != "classifier"
    method = REFERENCE if is_mim else results["method"]
    primary = results["decision"]["metric"] if is_mim else "probability"
    wanted = (method, *(CONTROLS if is_mim else ()))
    needed = (*_COLUMNS, primary) if is_mim else (*_COLUMNS, "seen", *ood_scores.SCORES)
    tables = [
        _read_scores(path / f"fold_{split['fold']}" / "scores.csv", wanted, needed)
        for split in results["splits"]
    ]
    for split, table in zip(results["splits"], tables, strict=True):
        if method not in table:
            raise ValueError(
                f"{path} holds no scores by {method} in fold {split['fold']}: evaluate it again with "
                "--mode=evaluate"
            )
    return Run(
        path=path,
        method=method,
        results=results,
        primary=primary,
        folds=[table[method][0] for table in tables],
        seen=[table[method][1] for table in tables],
        controls={
            name: [table[name][0] for table in tables]
            for name in wanted[1:]
            if all(name in table for table in tables)
        },
        clinical=_read_clinical(path, results["splits"], method, needed),
    )


def describe_training(run: Run) -> dict[str, str]:
    """How the networks of a run were trained, item -> words; the same items for every run."""
    settings, training = workdir.flatten(run.results["config"]), run.results["training"]
    parameters = training["parameters"]
    if run.is_mim:
        classes = f"one: {run.results['data']['positive']}"
    elif run.results["merged"]:
        classes = f"two: {run.results['data']['positive']}, and {' with '.join(run.results['known'])}"
    else:
        names = (run.results["data"]["positive"], *run.results["known"])
        classes = f"{len(names)}: {', '.join(names)}"
    return {
        "workdir": run.path.as_posix(),
        "score": METRIC_NAMES[run.primary] if run.is_mim else SCORE_NAMES[run.primary],
        "classes in training": classes,
        "image size": str(settings["data.image_size"]),
        "weights at the start": training.get("pretrained") or "random",
        "parameters": ", ".join(
            f"{count:,}" if len(parameters) == 1 else f"{count:,} ({part})"
            for part, count in parameters.items()
        ),
        "epochs": f"{training['epochs']:,}",
        "batch": str(settings["training.batch_size"]),
        "learning rate": f"{settings['optimizer.learning_rate']:g}, {settings['optimizer.decay']} decay",
        "seed": str(run.results["seed"]),
        "device": str(run.results["environment"]["device"]),
        "training time, all folds": f"{sum(run.results['wall_time']['train']) / 60:,.1f} min",
    }


def _read_clinical(
    path: Path, splits: Sequence[Mapping[str, Any]], method: str, needed: Sequence[str]
) -> list[ScoredImages] | None:
    files = [path / f"fold_{split['fold']}" / "clinical.csv" for split in splits]
    if not any(file.exists() for file in files):
        return None
    found = []
    for file in files:
        table = _read_scores(file, (method,), needed)
        if method not in table:
            raise ValueError(f"{file} holds no scores by {method}: evaluate again with --mode=evaluate")
        found.append(table[method][0])
    return found


def _read_scores(
    path: Path, methods: Sequence[str], needed: Sequence[str]
) -> dict[str, tuple[ScoredImages, np.ndarray]]:
    """Those of the methods that the file holds: name -> images, and bool `[n]` from the column "seen"."""
    rows: dict[str, list[list[str]]] = {method: [] for method in methods}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            missing = [column for column in needed if column not in header]
            if missing:
                raise ValueError(f"it has no column {missing[0]!r}")
            place = header.index("method")
            for row in reader:
                if len(row) != len(header):
                    raise ValueError(f"line {reader.line_num} has {len(row)} columns of {len(header)}")
                if row[place] in rows:
                    rows[row[place]].append(row)
        return {
            method: _images(dict(zip(header, zip(*own, strict=True), strict=True)))
            for method, own in rows.items()
            if own
        }
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} does not exist, though the run says that it has this fold: evaluate it again with "
            "--mode=evaluate"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): evaluate that run again with --mode=evaluate"
        ) from error


def _images(table: Mapping[str, Sequence[str]]) -> tuple[ScoredImages, np.ndarray]:
    """The rows of one method, as column -> texts; a score that the method does not have is empty."""
    images = ScoredImages(
        names=np.array(table["name"]),
        classes=np.array(table["class"]),
        groups=np.array(table["group"]),
        copies=np.array([_number(text, "copy") for text in table["copy"]]).astype(int),
        positive=_flags(table, "positive"),
        augmented=_flags(table, "augmented"),
        plain=_flags(table, "plain"),
        similarities={
            name: np.array([_number(text, name) for text in table[name]])
            for name in _SCORES
            if name in table and table[name][0] != ""
        },
    )
    return images, _flags(table, "seen") if "seen" in table else np.zeros(len(images), bool)


def _flags(table: Mapping[str, Sequence[str]], column: str) -> np.ndarray:
    other = next((text for text in table[column] if text not in _FLAGS), None)
    if other is not None:
        raise ValueError(f"{column} is {other!r}, neither True nor False")
    return np.array([_FLAGS[text] for text in table[column]])


def _number(text: str, column: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{column} is {text!r}, which is no number") from error
