"""The decision rule: an image's similarities and a calibration -> a decision with its reasons.

The calibration is saved with the model, so an export decides exactly like its workdir;
`mim_jax.evaluate.decisions` fits it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

import numpy as np

from mim_jax.decide.conformal import allowed_rank, check_share, counts_not_above, least_count, proven_rate
from mim_jax.measure import METRIC_NAMES

# Every score that may decide: the similarities, the scores of `mim_jax.features`, and all combined.
SCORE_NAMES = METRIC_NAMES | {
    "features": "frozen features",
    "color": "colours",
    "features_color": "features and colours",
    "combined": "MIM, features and colours",
}
RULES = ("calibrated", "certified", "paper", "youden", "sensitivity")


class Decision(StrEnum):
    """The four possible decisions on an image."""

    MPOX_LIKE = "mpox_like"
    NOT_MPOX_LIKE = "not_mpox_like"
    CANNOT_TELL = "cannot_tell"  # between the thresholds, or there is no calibration
    UNUSABLE = "unusable"  # not decoded, refused by the input gate, or without a finite score


@dataclass(frozen=True)
class Assessment:
    """The decision on one image, with the scores and reasons behind it.

    Attributes:
      score: the deciding metric, mean over folds; high = mpox-like. None if the image is unusable.
      similarities: every metric, mean over folds; empty if the image is unusable.
      p_value: conformal p-value against the mpox calibration cases; None if not calibrated.
      decision: see `Decision`.
      reasons: plain sentences: what was found, which threshold decided, what it was fitted on, what it
        guarantees.
    """

    score: float | None
    similarities: dict[str, float]
    p_value: float | None
    decision: Decision
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Calibration:
    """The rule and thresholds for new images, and the scores behind them; saved by `dataclasses.asdict`.

    Attributes:
      metric: the deciding score.
      positive: the training class.
      rule: one of `RULES`. "calibrated" decides by the p-value, every other rule by `lower`.
      miss_rate: the share of missed mpox that the calibration was made for.
      scores: for each fold of the detector, ascending scores of mpox that the fold's model was not
        trained on, one per group.
      lower: a score must be strictly greater to be like mpox; None = too few images for the rule.
      upper: a score must also be strictly greater than this to be called mpox-like; None = no such bound.
      origin: a phrase that names the threshold and the data it was fitted on.
      promise: sentences on the guarantee for missed mpox.
      band: sentences on the guarantee for false alarms.
    """

    metric: str
    positive: str
    rule: str
    miss_rate: float
    scores: tuple[tuple[float, ...], ...]
    lower: float | None
    upper: float | None
    origin: str
    promise: str
    band: str

    def __post_init__(self) -> None:
        if self.metric not in SCORE_NAMES or self.rule not in RULES:
            raise ValueError(
                f"a calibration's metric must be one of {', '.join(SCORE_NAMES)} and its rule one of "
                f"{', '.join(RULES)}, got {self.metric!r:.60} and {self.rule!r:.60}"
            )
        for name in ("positive", "origin", "promise", "band"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} of a calibration must be text, got {getattr(self, name)!r:.60}")
        check_share("miss_rate of a calibration", self.miss_rate)
        for name in ("lower", "upper"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} of a calibration must be finite or None, got {value!r:.60}")
        scores = tuple(tuple(map(float, fold)) for fold in self.scores)
        if not scores or not all(
            np.all(np.isfinite(fold)) and np.all(np.diff(fold) >= 0) for fold in map(np.array, scores)
        ):
            raise ValueError("scores of a calibration must be finite, ascending, one list per fold")
        object.__setattr__(self, "scores", scores)

    @classmethod
    def from_json(cls, content: Any) -> "Calibration":
        """Restore a calibration from the JSON of its `dataclasses.asdict`; ValueError if a field is wrong."""
        names = {item.name for item in fields(cls)}
        if not isinstance(content, Mapping) or content.keys() != names:
            found = ", ".join(content) if isinstance(content, Mapping) else f"{content!r:.60}"
            raise ValueError(f"a calibration has the fields {', '.join(sorted(names))}, got {found}")
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"a calibration cannot be read ({error})") from error

    @property
    def count(self) -> int:
        """Number of calibration cases."""
        return sum(map(len, self.scores))

    def guarantee_at(self, alpha: float) -> str:
        """The guarantee on missed mpox if the p-value decides at `alpha`."""
        if self.rule != "calibrated" or alpha == self.miss_rate:
            return self.promise
        return conformal_guarantee(self.positive, alpha, count=self.count, folds=len(self.scores))


def conformal_guarantee(positive: str, alpha: float, *, count: int, folds: int) -> str:
    """The guarantee of rejecting p-values of at most `alpha`, in sentences; a case is a group of images."""
    if not allowed_rank(alpha, count):
        return (
            f"{count} cases of {positive} cannot guarantee a miss rate of {percent(alpha)}: at least "
            f"{least_count(alpha)} are needed."
        )
    rate, source = f"at most {percent(alpha)}", "split conformal"
    if folds > 1:
        proven = percent(round(proven_rate(alpha, count=count, folds=folds), 3))
        rate = f"about {percent(alpha)}"
        source = f"cross-conformal, {folds} folds; the proven bound is {proven}"
    return (
        f"The expected miss rate is {rate} for {positive} cases exchangeable with the {count} calibrated on "
        f"({source}). The guarantee does not transfer to other cameras, clinics or populations."
    )


def percent(share: float) -> str:
    """Share as text, `12.5 %`."""
    return f"{100 * share:g} %"


def unusable(reason: str) -> Assessment:
    """The assessment of an image that cannot be scored.

    >>> unusable("no such file").decision
    <Decision.UNUSABLE: 'unusable'>
    """
    return Assessment(None, {}, None, Decision.UNUSABLE, (reason,))


def assess(
    similarities: Mapping[str, np.ndarray],
    calibration: Calibration | None,
    *,
    metric: str,
    alpha: float = 0.1,
    notice: str = "",
) -> list[Assessment]:
    """Decide on images by their similarities, one assessment per image.

    Under the rule "calibrated", an image is not like mpox if its cross-conformal p-value is at most `alpha`;
    under every other rule, if its score is not above `lower`. Any other image is called mpox-like if its
    score is also above `upper` or there is no such bound, and is undecided otherwise. Without a calibration,
    or with one that is too small for `alpha`, every image is undecided.

    >>> assess({"ssim": np.array([[0.5]])}, None, metric="ssim")[0].decision
    <Decision.CANNOT_TELL: 'cannot_tell'>

    Args:
      similarities: metric -> float64 `[folds, N]`.
      calibration: calibration of the detector that scored the images; None = not calibrated.
      metric: name of the deciding metric.
      alpha: the share of mpox that may be missed, between 0 and 1.
      notice: a last reason added to every scored image; "" = none.

    Raises:
      ValueError: an alpha outside (0, 1), or a calibration for another metric or number of folds.
    """
    check_share("alpha", alpha)
    own = np.asarray(similarities[metric], np.float64)
    if calibration and (calibration.metric, len(calibration.scores)) != (metric, len(own)):
        raise ValueError(
            f"the calibration is for {calibration.metric} by {len(calibration.scores)} folds, the scores are "
            f"{metric} by {len(own)}: evaluate the workdir again with --mode=evaluate"
        )
    means = {name: np.mean(values, axis=0) for name, values in similarities.items()}
    finite = np.all([np.isfinite(values) for values in means.values()], axis=0)
    counts = np.zeros(own.shape[1], int)
    if calibration:
        counts[finite] = counts_not_above(calibration.scores, list(own[:, finite]))
    found = []
    for index, (usable, count) in enumerate(zip(finite.tolist(), counts.tolist(), strict=True)):
        if not usable:
            found.append(
                unusable("The image has no finite score: its pixels or the network's weights contain NaN.")
            )
            continue
        values = {name: float(column[index]) for name, column in means.items()}
        one = _assess_one(values, metric, calibration, count, alpha)
        found.append(replace(one, reasons=(*one.reasons, notice)) if notice else one)
    return found


def _assess_one(
    values: dict[str, float], metric: str, calibration: Calibration | None, count: int, alpha: float
) -> Assessment:
    score = values[metric]
    fact = f"{SCORE_NAMES[metric]} is {score:.4f}"
    if calibration is None:
        why = "Cannot tell: nothing was calibrated. Evaluate the workdir with --mode=evaluate."
        return Assessment(score, values, None, Decision.CANNOT_TELL, (f"{fact}.", why))
    p_value = None
    if total := calibration.count:
        p_value = (1 + count) / (total + 1)
        fact += (
            f"; {count} of {total} {calibration.positive} cases held out of training score no higher, "
            f"p-value {p_value:.3f}"
        )
    decision, words = _decide(score, calibration, count, alpha)
    reasons = [f"{fact}.", words, f"Rule: {calibration.origin}.", calibration.guarantee_at(alpha)]
    if decision is not Decision.NOT_MPOX_LIKE:
        reasons.append(calibration.band)
    return Assessment(score, values, p_value, decision, tuple(dict.fromkeys(reasons)))


def _decide(score: float, calibration: Calibration, count: int, alpha: float) -> tuple[Decision, str]:
    positive, lower, upper = calibration.positive, calibration.lower, calibration.upper
    if calibration.rule == "calibrated":
        rank = allowed_rank(alpha, calibration.count)
        carried, like = rank > 0, 1 + count > rank  # the p-value exceeds alpha, in whole numbers
        words = f"the p-value {'exceeds' if like else 'is at most'} {alpha:g}"
    else:
        carried, like = lower is not None, lower is not None and score > lower
        words = f"the score {'exceeds' if like else 'does not exceed'} the threshold {lower or 0:.4f}"
    if not carried:
        return Decision.CANNOT_TELL, "Cannot tell: there are too few calibration images for a threshold."
    if not like:
        return Decision.NOT_MPOX_LIKE, f"Not like {positive}: {words}."
    if upper is None:
        return Decision.MPOX_LIKE, f"Like {positive}: {words}."
    if score > upper:
        return Decision.MPOX_LIKE, f"Like {positive}: {words}, and the score exceeds {upper:.4f}."
    other = f"other diseases often reach scores up to {upper:.4f}"
    return Decision.CANNOT_TELL, f"Cannot tell: could be {positive} ({words}), but {other}."
