"""The score table: one layout for the scored test images of a fold, in memory and in scores.csv."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax.data.dataset import printable
from mim_jax.train import workdir

_FLAGS = {"True": True, "False": False}
# Field of `ScoredImages` -> its column; score columns are between "positive" and "decision".
COLUMNS = {
    "names": "name",
    "classes": "class",
    "groups": "group",
    "copies": "copy",
    "augmented": "augmented",
    "plain": "plain",
    "positive": "positive",
    "decisions": "decision",
    "seen": "seen",
}


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """The test images of one fold as scored by one method; every array has one entry per image."""

    names: np.ndarray  # str `[n]`
    classes: np.ndarray  # str `[n]`
    # str `[n]`: patient, near-duplicate cluster, or the image itself; the copies of one image share it
    groups: np.ndarray
    copies: np.ndarray  # int `[n]`: 0 = the original image, 1, 2, ... = its augmented copies.
    positive: np.ndarray  # bool `[n]`, True = mpox
    # bool `[n]`, True = in the augmented test set (the paper's 220 positives, and all negatives)
    augmented: np.ndarray
    plain: np.ndarray  # bool `[n]`, True = in the plain test set (the 44 positives, and all negatives)
    # score name -> float64 `[n]`; high = mpox-like. A baseline may have a single score.
    similarities: dict[str, np.ndarray]
    # str `[n]`: a `mim_jax.decide.decision.Decision`, or "" if not decided
    decisions: np.ndarray = field(default_factory=lambda: np.zeros(0, str))
    # bool `[n]`, True = the fold was trained on the group of this negative; always False for MIM
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        for name, empty in (("decisions", np.full(len(self), "")), ("seen", np.zeros(len(self), bool))):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, empty)
        for name, column in (self._columns() | self.similarities).items():
            if len(column) != len(self.names):
                raise ValueError(
                    f"{name} has {len(column)} entries for {len(self.names)} images: one per image is needed"
                )
        for metric, scores in self.similarities.items():
            finite = np.isfinite(scores)
            if not np.all(finite):
                first = int(np.argmin(finite))
                raise ValueError(
                    f"{metric} of {printable(self.names[first])} is {scores[first]} ({np.sum(~finite)} of "
                    f"{len(scores)} scores are not finite): check the image and the network that scored it"
                )

    def __len__(self) -> int:
        return len(self.names)

    def _columns(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in COLUMNS}

    def select(self, mask: np.ndarray) -> "ScoredImages":
        """Select the images at `mask` (bool `[n]`, or indices)."""
        columns = {name: column[mask] for name, column in self._columns().items()}
        similarities = {metric: scores[mask] for metric, scores in self.similarities.items()}
        return replace(self, **columns, similarities=similarities)

    def originals(self) -> "ScoredImages":
        """The plain test set, without augmented copies."""
        return self.select(self.plain)


def two_sides(
    similarities: dict[str, np.ndarray], positive_groups: np.ndarray, negative_groups: np.ndarray
) -> ScoredImages:
    """Table of positives, then negatives, for which only groups and scores are known; none is a copy."""
    groups = np.concatenate((np.asarray(positive_groups, str), np.asarray(negative_groups, str)))
    positive = np.arange(len(groups)) < len(positive_groups)
    return ScoredImages(
        names=np.array([f"image {i}" for i in range(len(groups))]),
        classes=np.where(positive, "positive", "negative"),
        groups=groups,
        copies=np.zeros(len(groups), int),
        positive=positive,
        augmented=np.ones(len(groups), bool),
        plain=np.ones(len(groups), bool),
        similarities=similarities,
    )


def write_scores(
    path: Path, fold: int, methods: Mapping[str, ScoredImages], *, scores: Sequence[str], seen: bool = False
) -> None:
    """Write the table of a fold, method -> its images, as CSV, atomically.

    `scores` lists the score columns in order; a score that a method lacks is left empty. The column "seen" is
    written if `seen` is true.
    """
    before = {name: column for name, column in COLUMNS.items() if name not in ("decisions", "seen")}
    after = {name: COLUMNS[name] for name in (("decisions", "seen") if seen else ("decisions",))}
    rows: list[Sequence[Any]] = [["fold", "method", *before.values(), *scores, *after.values()]]
    for method, images in methods.items():
        columns = [getattr(images, name).tolist() for name in before]
        columns += [
            images.similarities[name].tolist() if name in images.similarities else [""] * len(images)
            for name in scores
        ]
        columns += [getattr(images, name).tolist() for name in after]
        rows += [[fold, method, *row] for row in zip(*columns, strict=True)]
    path.parent.mkdir(exist_ok=True)  # a fold that trains nothing has no folder yet
    workdir.write_csv(path, rows)


def read_scores(path: Path, *, methods: Sequence[str], needed: Sequence[str]) -> dict[str, ScoredImages]:
    """Read the given methods from a file of `write_scores`; methods that are not in the file are left out.

    `needed` lists required score columns, or "seen"; every other score column is read if it has values.

    Raises:
      ValueError: the file is missing or damaged, or lacks a column.
    """
    rows: dict[str, list[list[str]]] = {method: [] for method in methods}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            always = [column for column in COLUMNS.values() if column not in ("decision", "seen")]
            for column in ("method", *always, *needed):
                if column not in header:
                    raise ValueError(f"it has no column {column!r}")
            method_column = header.index("method")
            for row in reader:
                if len(row) != len(header):
                    raise ValueError(f"line {reader.line_num} has {len(row)} columns, not {len(header)}")
                if row[method_column] in rows:
                    rows[row[method_column]].append(row)
        return {
            method: _images(dict(zip(header, zip(*own, strict=True), strict=True)))
            for method, own in rows.items()
            if own
        }
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} does not exist, although results.json lists this fold: evaluate the run again with "
            "--mode=evaluate"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): evaluate that run again with --mode=evaluate"
        ) from error


def _images(table: Mapping[str, Sequence[str]]) -> ScoredImages:
    """Table of one method from column -> texts; scores that the method lacks are empty."""
    known = {"fold", "method", *COLUMNS.values()}
    return ScoredImages(
        names=np.array(table["name"]),
        classes=np.array(table["class"]),
        groups=np.array(table["group"]),
        copies=np.array([_number(text, "copy") for text in table["copy"]]).astype(int),
        positive=_flags(table, "positive"),
        augmented=_flags(table, "augmented"),
        plain=_flags(table, "plain"),
        similarities={
            name: np.array([_number(text, name) for text in column])
            for name, column in table.items()
            if name not in known and any(column)
        },
        decisions=np.array(table.get("decision", ())),
        seen=_flags(table, "seen") if "seen" in table else np.zeros(0, bool),
    )


def _flags(table: Mapping[str, Sequence[str]], column: str) -> np.ndarray:
    other = next((text for text in table[column] if text not in _FLAGS), None)
    if other is not None:
        raise ValueError(f"{column} is {other!r}, neither True nor False")
    return np.array([_FLAGS[text] for text in table[column]])


def _number(text: str, column: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{column} is {text!r}, which is not a number") from error
