"""Calibrations for new images, cutoffs for each fold's test images, and a check of the guarantee.

A case is a group of images (e.g. of one patient): groups are independent, images of one patient are not. A
group of the training class is represented by its lowest score, a group of another class by its highest, so
both guarantees hold for the worst image of a case.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mim_jax.decide import thresholds
from mim_jax.decide.decision import Calibration, Decision
from mim_jax.decide.thresholds import FittingScores, Rule
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import share_estimate

RATES = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
OTHERS = "other classes"  # the group of classes that belong to no other group


@dataclass(frozen=True)
class Cutoffs:
    """Thresholds for one fold's test images."""

    metric: str  # name of the score
    lower: float | None  # a score must be strictly greater to be like mpox; None = too few images
    upper: float | None  # and strictly greater than this to be called mpox-like; None = no such bound
    unseen: frozenset[str]  # image groups of other classes that these cutoffs were not fitted on
    carried: tuple[str, ...] = ()  # groups of classes whose false alarms `upper` bounds

    def decide(self, score: float) -> Decision:
        if self.lower is None:
            return Decision.CANNOT_TELL
        if score <= self.lower:
            return Decision.NOT_MPOX_LIKE
        return Decision.CANNOT_TELL if self.upper is not None and score <= self.upper else Decision.MPOX_LIKE

    def judges(self, scored: ScoredImages) -> np.ndarray:
        """Mask of the fold's test images that these cutoffs were not fitted on, bool `[n]`."""
        return scored.positive | np.isin(scored.groups, list(self.unseen))


@dataclass(frozen=True)
class Calibrations:
    """Calibrations for new images, by all folds or by one, and cutoffs for each fold's test images."""

    pooled: Calibration
    alone: list[Calibration]
    folds: list[Cutoffs]


def calibrate(
    scored: Sequence[ScoredImages],
    *,
    metric: str,
    rule: Rule,
    positive: str,
    class_groups: Mapping[str, Sequence[str]],
) -> Calibrations:
    """Fit calibrations and cutoffs on the plain test images, which each fold's model was not trained on.

    A fold's test images are judged by cutoffs fitted on the other folds' images of the training class and on
    the images of other classes outside the fold's own share: no group is judged by cutoffs it helped to set.
    New images are judged by the scores of all folds, or of a single fold if its model is used alone.

    The guarantees of `conformal.miss_rate_threshold` and `thresholds.certificate` are proven for one fold's
    model, the guarantee of `conformal.cross_p_values` for all folds together, and the bound on false alarms
    for both cases, because no model was trained on other classes. The folds' cutoffs, and any threshold on a
    mean score of several folds, are approximate: scores of different models are only roughly exchangeable.

    `scored` holds the test images of each fold, with the same images of other classes in the same order;
    `class_groups` maps names to classes, and false alarms are bounded in each of these groups. ValueError if
    the folds tested different images of other classes, or the rule is unknown.
    """
    if rule.name not in thresholds.LOWER:
        raise ValueError(f"unknown decision rule {rule.name!r}: choose one of {', '.join(thresholds.LOWER)}")
    own = [fold.select(fold.plain & fold.positive) for fold in scored]
    others = [fold.select(fold.plain & ~fold.positive) for fold in scored]
    if any(not np.array_equal(fold.names, others[0].names) for fold in others):
        raise ValueError("the folds tested different images of other classes: score all folds on the same")
    lowest = [per_group(fold, fold.similarities[metric], np.minimum) for fold in own]
    positives = [fold.similarities[metric] for fold in own]
    scores = [fold.similarities[metric] for fold in others]
    family = families(others[0].classes, class_groups)

    def fitting_scores(folds: Sequence[int], values: np.ndarray, kept: np.ndarray) -> FittingScores:
        return FittingScores(
            [lowest[k] for k in folds],
            np.concatenate([positives[k] for k in folds]),
            values[kept],
            {
                name: per_group(others[0].select(mask), values[mask], np.maximum)
                for name in dict.fromkeys(family.tolist())
                if np.any(mask := kept & (family == name))
            },
        )

    everything, numbers = np.ones(len(family), bool), range(len(scored))
    shares = _shares(others[0].groups, family, len(scored))
    cutoffs = []
    for k in numbers:
        outside = ~np.isin(others[0].groups, list(shares[k]))
        found = fitting_scores([j for j in numbers if j != k], scores[k], outside)
        lower, _ = thresholds.lower_threshold(found, rule)
        upper, left_out = thresholds.upper_threshold(found, rule)
        carried = tuple(name for name in found.highest if name not in left_out)
        cutoffs.append(Cutoffs(metric, lower, upper, shares[k], carried))
    return Calibrations(
        thresholds.describe(
            fitting_scores(list(numbers), np.mean(scores, axis=0), everything), metric, rule, positive
        ),
        [
            thresholds.describe(fitting_scores([k], scores[k], everything), metric, rule, positive)
            for k in numbers
        ],
        cutoffs,
    )


def families(classes: np.ndarray, class_groups: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Group that each class belongs to, `OTHERS` if none; str `[n]`."""
    groups = {name: group for group, names in class_groups.items() for name in names}
    return np.array([groups.get(name, OTHERS) for name in classes.tolist()])


def per_group(images: ScoredImages, values: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """The lowest or the highest score of each group, ascending."""
    groups, numbers = np.unique(images.groups, return_inverse=True)
    found = np.full(len(groups), np.inf if extreme is np.minimum else -np.inf)
    extreme.at(found, numbers, values)
    return np.sort(found)


def _shares(groups: np.ndarray, family: np.ndarray, count: int) -> list[frozenset[str]]:
    """Divide the image groups of other classes among the folds, round-robin through each group of classes."""
    order = dict.fromkeys(group for _, group in sorted(zip(family.tolist(), groups.tolist(), strict=True)))
    return [frozenset(list(order)[k::count]) for k in range(count)]


def judge(scored: ScoredImages, cutoffs: Cutoffs) -> ScoredImages:
    """Add the decisions to the images.

    An image of another class is decided only in the fold whose cutoffs were not fitted on its group
    (`Cutoffs.judges`), so each image is decided once.
    """
    values = scored.similarities[cutoffs.metric].tolist()
    judged = zip(values, cutoffs.judges(scored).tolist(), strict=True)
    return replace(scored, decisions=np.array([str(cutoffs.decide(v)) if own else "" for v, own in judged]))


def count_decisions(folds: Iterable[ScoredImages]) -> dict[str, dict[str, int]]:
    """Count the decided plain test images ("n") and each decision, per class over all folds."""
    kinds = (Decision.MPOX_LIKE, Decision.CANNOT_TELL, Decision.NOT_MPOX_LIKE)
    counts: dict[str, dict[str, int]] = {}
    for fold in folds:
        decided = fold.select(fold.plain & (fold.decisions != ""))
        for name, decision in zip(decided.classes.tolist(), decided.decisions.tolist(), strict=True):
            count = counts.setdefault(name, {"n": 0, **{str(kind): 0 for kind in kinds}})
            count["n"] += 1
            count[decision] += 1
    return dict(sorted(counts.items()))


def reliability(
    scored: Sequence[ScoredImages],
    *,
    metric: str,
    positive: str,
    class_groups: Mapping[str, Sequence[str]],
    rates: Sequence[float] = RATES,
) -> list[dict[str, Any]]:
    """Check the rule "calibrated" at several rates, each guaranteed for missed mpox and for false alarms.

    Every case and image is judged once, by cutoffs that were not fitted on it (`calibrate`). A case is missed
    if its lowest score is called not mpox-like, and a false alarm if its highest score is called mpox-like.
    The lower the rate, the wider the band between the thresholds.

    Returns:
      One dict for each rate that every fold has enough images for:
      "rate": the guaranteed rate;
      "missed": {"cases", "value", "low", "high"}: share of missed cases, with the Clopper-Pearson interval,
        which treats cases as independent although cases of one fold share a model and a threshold;
      "false_alarms": the same for each group of classes, over the folds that guarantee it for that group;
      "training", "others": {"images", "decided", "wrong"}: number of plain test images of the training class
        and of other classes, of decided images, and of wrong decisions.
    """
    found = []
    for rate in rates:
        rule = Rule(miss_rate=rate, false_alarm_rate=rate)
        made = calibrate(scored, metric=metric, rule=rule, positive=positive, class_groups=class_groups)
        if all(each.lower is not None and each.upper is not None for each in made.folds):
            found.append({"rate": rate, **_observed(scored, made.folds, metric, class_groups)})
    return found


def _observed(
    scored: Sequence[ScoredImages],
    cutoffs: Sequence[Cutoffs],
    metric: str,
    class_groups: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    missed: list[bool] = []
    alarms: dict[str, list[bool]] = {}
    sides = {"training": np.zeros(3, int), "others": np.zeros(3, int)}
    for fold, cutoff in zip(scored, cutoffs, strict=True):
        decided = judge(fold.select(fold.plain), cutoff)
        judged = decided.select(decided.decisions != "")
        values = judged.similarities[metric]
        own = judged.select(judged.positive)
        lowest = per_group(own, values[judged.positive], np.minimum)
        missed += [cutoff.decide(score) is Decision.NOT_MPOX_LIKE for score in lowest.tolist()]
        family = np.where(judged.positive, "", families(judged.classes, class_groups))
        for name in cutoff.carried:
            if np.any(mask := family == name):
                highest = per_group(judged.select(mask), values[mask], np.maximum)
                alarms.setdefault(name, [])
                alarms[name] += [cutoff.decide(score) is Decision.MPOX_LIKE for score in highest.tolist()]
        for decision, positive in zip(judged.decisions.tolist(), judged.positive.tolist(), strict=True):
            wrong = Decision.NOT_MPOX_LIKE if positive else Decision.MPOX_LIKE
            count = sides["training" if positive else "others"]
            count += (1, decision != Decision.CANNOT_TELL, decision == wrong)
    return {
        "missed": _share(missed),
        "false_alarms": {name: _share(hits) for name, hits in sorted(alarms.items())},
        **{
            name: dict(zip(("images", "decided", "wrong"), count.tolist(), strict=True))
            for name, count in sides.items()
        },
    }


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    return {"cases": len(hits), **share_estimate(sum(hits), len(hits))._asdict()}
