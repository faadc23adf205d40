"""From similarities to decisions: thresholds that see no image they judge, and rows of what was decided."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax import calibration
from mim_jax.evaluation import ScoredImages
from mim_jax.similarity import METRICS


@dataclass(frozen=True)
class Thresholds:
    """What decides: an image is mpox-like where its score is strictly greater.

    Attributes:
      metric: the score.
      folds: one for the test images of each fold; None = too few images to calibrate.
      alone: one for each fold's model used by itself on new images; None likewise.
      pooled: for images that no fold has seen, scored by all folds together; None likewise.
      origin: what they were fitted on, for people to read.
    """

    metric: str
    folds: list[float | None]
    alone: list[float | None]
    pooled: float | None
    origin: str


def paper_thresholds(folds: int) -> Thresholds:
    """The paper's fixed number for every fold."""
    value = calibration.PAPER_THRESHOLD
    origin = f"the paper's {value}, fitted by its authors on other data and another network"
    return Thresholds("ssim_hbd", [value] * folds, [value] * folds, value, origin)


def calibrate(scored: Sequence[ScoredImages], *, metric: str, miss_rate: float) -> Thresholds:
    """Thresholds from the plain positives of each fold's test set, which its model has not trained on.

    The test images of a fold are judged by the scores of the other folds' test images, so that none helps to
    set its own threshold; new images by the pooled scores of all folds, or, where one fold's model is used
    alone, by those of its own test images. The lowest score of each group stands for it: groups are
    independent, images of one patient are not. Only the last is split conformal as proven. The others are
    approximate: scores of different fold models are only roughly exchangeable, those models have trained on
    each other's test images, and new images are judged by the mean over folds.
    """
    lowest = []
    for fold in scored:
        own = fold.select(fold.plain & fold.positive)
        values = own.similarities[metric]
        lowest.append(np.array([values[own.groups == group].min() for group in np.unique(own.groups)]))

    def fit(parts: Sequence[np.ndarray]) -> float | None:
        try:
            threshold = calibration.miss_rate_threshold(np.concatenate(parts), miss_rate=miss_rate)
        except ValueError:
            return None
        # "At least the calibrated score", said with the strict comparison that every rule uses.
        return float(np.nextafter(threshold, -np.inf))

    pooled = fit(lowest)
    if pooled is None:
        count = sum(map(len, lowest))
        origin = f"none: {count} groups of the training class cannot promise a miss rate of {miss_rate:g}"
    else:
        origin = (
            f"calibrated to miss {miss_rate:.0%} of the training class in expectation, on the lowest score "
            "of "
            "each of its groups in test sets, by the fold that did not train on it; a fold's own test set "
            "is left out of its threshold"
        )
    others = [fit(lowest[:k] + lowest[k + 1 :]) for k in range(len(lowest))]
    return Thresholds(metric, others, [fit([own]) for own in lowest], pooled, origin)


def decide(score: float, threshold: float | None) -> str:
    """ "mpox_like", "not_mpox_like", or "no_threshold"."""
    if threshold is None:
        return "no_threshold"
    return "mpox_like" if score > threshold else "not_mpox_like"


def rows(
    fold: int,
    method: str,
    scored: ScoredImages,
    thresholds: Thresholds | None = None,
    *,
    scores: Sequence[str] = (*METRICS, "score"),
) -> list[dict[str, Any]]:
    """One dict an image, in the columns of scores.csv, `scores` among them; without thresholds nothing is
    decided.
    """
    table = []
    for i in range(len(scored)):
        own = {name: float(values[i]) for name, values in scored.similarities.items()}
        table.append(
            {
                "fold": fold,
                "method": method,
                "name": str(scored.names[i]),
                "class": str(scored.classes[i]),
                "group": str(scored.groups[i]),
                "copy": int(scored.copies[i]),
                "augmented": bool(scored.augmented[i]),
                "plain": bool(scored.plain[i]),
                "positive": bool(scored.positive[i]),
                **{name: own.get(name, "") for name in scores},
                "decision": "",
            }
        )
        if thresholds:
            table[-1]["decision"] = decide(own[thresholds.metric], thresholds.folds[fold])
    return table


def write_csv(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows, one or more, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    os.replace(temporary, path)


def count_decisions(table: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Per class, over the plain test images of all folds: decisions, and how many of them said mpox-like."""
    counts: dict[str, dict[str, int]] = {}
    for row in table:
        if row["plain"] and row["decision"] in ("mpox_like", "not_mpox_like"):
            count = counts.setdefault(row["class"], {"n": 0, "mpox_like": 0})
            count["n"] += 1
            count["mpox_like"] += row["decision"] == "mpox_like"
    return dict(sorted(counts.items()))
