"""Was the promise kept? Promised rates against the folds' test images, none of which set what judges it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mim_jax.decide.decision import Decision
from mim_jax.evaluate.decisions import Cutoffs, Rule, calibrate, families, per_group
from mim_jax.evaluate.statistics.intervals import share_estimate
from mim_jax.evaluate.statistics.summary import ScoredImages

RATES = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


def reliability(
    scored: Sequence[ScoredImages],
    *,
    metric: str,
    positive: str,
    class_groups: Mapping[str, Sequence[str]],
    rates: Sequence[float] = RATES,
) -> list[dict[str, Any]]:
    """The rule "calibrated" at several rates, each promised for missed mpox and for false alarms alike.

    Every case and image is judged once, by the cutoffs that have not seen it (`decisions.calibrate`). A case
    is missed where its lowest score is refused and a false alarm where its highest is called mpox-like. The
    fewer are promised, the wider the band between the thresholds.

    Returns:
      One dict a rate that every fold can carry:
      "rate": the promised one;
      "missed": {"cases", "value", "low", "high"}: with the Clopper-Pearson interval, which counts the cases
        as independent although those of one fold share a model and a threshold;
      "false_alarms": the same for each group of classes, in the folds that can promise it for that group;
      "training", "others": {"images", "decided", "wrong"}: plain test images of the training class and of
        the others, those that were decided upon, and those of them that were decided wrongly.
    """
    found = []
    for rate in rates:
        rule = Rule(miss_rate=rate, false_alarm_rate=rate)
        options: dict[str, Any] = {"positive": positive, "class_groups": class_groups}
        cutoffs = calibrate(scored, metric=metric, rule=rule, **options).folds
        if all(each.lower is not None and each.upper is not None for each in cutoffs):
            found.append({"rate": rate, **_observed(scored, cutoffs, metric, class_groups)})
    return found


def _observed(
    scored: Sequence[ScoredImages],
    cutoffs: Sequence[Cutoffs],
    metric: str,
    class_groups: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    missed: list[bool] = []
    alarms: dict[str, list[bool]] = {}
    sides = {"training": [0, 0, 0], "others": [0, 0, 0]}
    for fold, cutoff in zip(scored, cutoffs, strict=True):
        judged = fold.select(fold.plain & cutoff.judges(fold))
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
        for score, positive in zip(values.tolist(), judged.positive.tolist(), strict=True):
            decision = cutoff.decide(score)
            wrong = Decision.NOT_MPOX_LIKE if positive else Decision.MPOX_LIKE
            count = sides["training" if positive else "others"]
            count[0] += 1
            count[1] += decision is not Decision.CANNOT_TELL
            count[2] += decision is wrong
    return {
        "missed": _share(missed),
        "false_alarms": {name: _share(hits) for name, hits in sorted(alarms.items())},
        **{
            name: dict(zip(("images", "decided", "wrong"), count, strict=True))
            for name, count in sides.items()
        },
    }


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    return {"cases": len(hits), **share_estimate(sum(hits), len(hits))._asdict()}
