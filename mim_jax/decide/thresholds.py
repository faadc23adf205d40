"""From scores to what decides: thresholds by the named rules, with sentences on what each promises."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mim_jax.decide import alternatives
from mim_jax.decide.certificate import certificate, certified_rate
from mim_jax.decide.conformal import allowed_rank, false_alarm_threshold, just_below, miss_rate_threshold
from mim_jax.decide.decision import Calibration, conformal_promise, percent


@dataclass(frozen=True)
class Rule:
    """How thresholds are made.

    Attributes:
      name: one of `mim_jax.decide.decision.RULES`.
      miss_rate: share of the training class that may be missed.
      confidence: of a certificate.
      false_alarm_rate: share of each group of other classes that may be called mpox-like; 0 = no such bound.
        It counts for "calibrated" and "certified" alone.
    """

    name: str = "calibrated"
    miss_rate: float = 0.1
    confidence: float = 0.95
    false_alarm_rate: float = 0.1


@dataclass(frozen=True)
class Evidence:
    """The scores that thresholds are fitted on.

    Attributes:
      lowest: for each fold the lowest score of each group of the training class.
      positives: every plain score of the training class.
      negatives: every score of another class.
      highest: group of classes -> the highest score of each group of images.
    """

    lowest: list[np.ndarray]
    positives: np.ndarray
    negatives: np.ndarray
    highest: dict[str, np.ndarray]


def _calibrated(found: Evidence, rule: Rule) -> float:
    return just_below(miss_rate_threshold(np.concatenate(found.lowest), miss_rate=rule.miss_rate))


def _certified(found: Evidence, rule: Rule) -> float:
    values = np.sort(np.concatenate(found.lowest))
    rank = certificate(len(values), miss_rate=rule.miss_rate, confidence=rule.confidence)
    return just_below(float(values[rank - 1]))


def _youden(found: Evidence, rule: Rule) -> float:
    scores = np.concatenate((found.positives, found.negatives))
    return alternatives.youden_threshold(scores, np.arange(len(scores)) < len(found.positives))


LOWER: dict[str, Callable[[Evidence, Rule], float]] = {
    "calibrated": _calibrated,
    "certified": _certified,
    "paper": lambda found, rule: alternatives.PAPER_THRESHOLD,
    "youden": _youden,
    "sensitivity": lambda found, rule: alternatives.sensitivity_threshold(
        found.positives, sensitivity=1 - rule.miss_rate
    ),
}


def lower_threshold(found: Evidence, rule: Rule) -> tuple[float | None, str]:
    """The threshold, or None and why not."""
    try:
        return LOWER[rule.name](found, rule), ""
    except ValueError as error:
        return None, str(error)


def upper_threshold(found: Evidence, rule: Rule) -> tuple[float | None, list[str]]:
    """The threshold on false alarms, and the groups of classes that are too small for the promise."""
    if not rule.false_alarm_rate or rule.name not in ("calibrated", "certified"):
        return None, []
    return false_alarm_threshold(found.highest, false_alarm_rate=rule.false_alarm_rate)


def describe(found: Evidence, metric: str, rule: Rule, positive: str) -> Calibration:
    """The calibration with its sentences."""
    lower, trouble = lower_threshold(found, rule)
    upper, left_out = upper_threshold(found, rule)
    return Calibration(
        metric=metric,
        positive=positive,
        rule=rule.name,
        miss_rate=rule.miss_rate,
        scores=tuple(tuple(fold.tolist()) for fold in found.lowest),
        lower=lower,
        upper=upper,
        origin=_origin(found, rule, positive),
        promise=f"No promise: {trouble}." if trouble else _promise(found, rule, positive),
        band=_band(found, rule, lower, upper, left_out),
    )


def _origin(found: Evidence, rule: Rule, positive: str) -> str:
    folds, count = len(found.lowest), sum(map(len, found.lowest))
    by = "by a model that did not train on it" if folds == 1 else "by the fold that did not train on it"
    cases = f"the lowest score of each of {count} groups of {positive}, {by}"
    images = f"{len(found.positives)} test images of {positive}"
    return {
        "calibrated": (
            f"calibrated to miss {percent(rule.miss_rate)} of {positive} in expectation, on {cases}"
        ),
        "certified": (
            f"certified to miss at most {percent(rule.miss_rate)} of {positive} with "
            f"{percent(rule.confidence)} confidence, on {cases}"
        ),
        "paper": (
            f"the paper's {alternatives.PAPER_THRESHOLD}, fitted by its authors on other data and another "
            "network"
        ),
        "youden": f"Youden's index on {images} and {len(found.negatives)} of other classes",
        "sensitivity": f"sensitivity {percent(1 - rule.miss_rate)} on {images}",
    }[rule.name]


def _promise(found: Evidence, rule: Rule, positive: str) -> str:
    folds, count = len(found.lowest), sum(map(len, found.lowest))
    if rule.name == "calibrated":
        rate = certified_rate(count, allowed_rank(rule.miss_rate, count), confidence=rule.confidence)
        words = (
            f" The threshold misses at most {percent(round(rate, 3))} of {positive} like those calibrated "
            f"on, with {percent(rule.confidence)} confidence, from {count} cases"
        )
        promised = conformal_promise(positive, rule.miss_rate, count=count, folds=folds) + words
    elif rule.name == "certified":
        promised = (
            f"The threshold misses at most {percent(rule.miss_rate)} of {positive} like those calibrated on, "
            f"with {percent(rule.confidence)} confidence, from {count} cases"
        )
    else:
        return "It promises nothing about new images."
    return promised + ("." if folds == 1 else f", as if one model had scored them and not {folds}.")


def _band(
    found: Evidence, rule: Rule, lower: float | None, upper: float | None, left_out: Sequence[str]
) -> str:
    if upper is None:
        return "Nothing is promised about false alarms: many images of other classes may be called mpox-like."
    kept = ", ".join(name for name in found.highest if name not in left_out)
    words = (
        f"In expectation at most {percent(rule.false_alarm_rate)} of the cases of each group of other "
        f"classes ({kept}) are called mpox-like."
    )
    if left_out:
        words += f" Nothing is promised for {', '.join(left_out)}: too few images."
    if lower is not None and upper <= lower:
        words += " Both promises hold with one threshold, so that no image is left undecided."
    return words
