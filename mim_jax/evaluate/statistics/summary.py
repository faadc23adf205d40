"""The paper's tables, computed from scores: every AUROC with intervals that respect dependent images.

There are two kinds of interval. "low" and "high" are percentiles of the cluster bootstrap, for random images
and fixed fold models (`auroc.AurocSamples`); "low_folds" and "high_folds" treat folds and their models as
random too (`auroc.fold_half_width`), and are None for a single fold. All are None if a side has fewer groups
than `auroc.LEAST_GROUPS`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mim_jax.data.folds import group_names
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import (
    AurocSamples,
    Resamples,
    draw_groups,
    percentile_interval,
    sample_aurocs,
)
from mim_jax.evaluate.statistics.operating_points import (
    LEVELS,
    OperatingPoints,
    operating_points,
    resampled_operating_points,
)

Folds = Sequence[ScoredImages]


def summarize(
    methods: Mapping[str, Folds],
    *,
    metrics: Sequence[str] | None = None,
    primary: str = "ssim_hbd",
    reference: str = "mim",
    resamples: int = 2000,
    seed: int = 0,
    class_groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Compute every AUROC of the report, with intervals, as plain values ready for JSON.

    A method that holds `primary` is reported by all of `metrics` that it holds. Any other method must hold a
    single score, under any name, which takes the place of `primary`.

    Args:
      methods: name -> one `ScoredImages` per fold, the same images in the same order for each method.
      metrics: the metrics to report; None = all that the reference holds.
      primary: the metric of the breakdowns and of the operating points.
      reference: the method that all others are compared with; it must hold `primary`.
      resamples, seed: number of bootstrap resamples, and their seed.
      class_groups: name -> classes, for the breakdown by group; None = no such breakdown.

    Returns:
      "auroc": {"augmented" | "plain": {method: {metric: {"folds": [{"value", "low", "high"}, ...], "mean",
        "std", "low", "high", "low_folds", "high_folds"}}}}: "std" is the population standard deviation over
        the folds, as in the paper's tables, and the intervals are those of the mean;
      "per_class": {method: {class: {"n", "mean", "std", "low", "high", "low_folds", "high_folds"}}}: the
        augmented positives against the images of that class alone, by `primary`;
      "per_group": {method: {group: the same}}, for groups of classes that have images;
      "differences": {method: {metric: {"mean", "low", "high", "low_folds", "high_folds"}}}: reference minus
        method on the augmented set, paired by resample; under `primary` for a method without `primary`;
      "operating": {method: {"average_precision": {"mean", "low", "high"}, "sensitivity_at_specificity" |
        "specificity_at_sensitivity": {"0.8" | "0.9" | "0.95": the same}}}: means over the folds on the
        augmented set, by `primary`; read off the test images, so only descriptive.

    Raises:
      ValueError: an unknown reference or metric, methods that scored different images or hold neither
        `primary` nor a single score, or input that `ScoredImages` or `draw_groups` rejects.
    """
    _check_methods(methods, reference)
    held = list(methods[reference][0].similarities)
    metrics = held if metrics is None else list(metrics)
    for metric in [*metrics, primary]:
        if metric not in held:
            raise ValueError(f"unknown metric {metric!r}: the images are scored by {', '.join(held)}")
    leading = {name: leading_metric(name, folds, primary) for name, folds in methods.items()}
    reported = {
        name: [metric for metric in metrics if metric in folds[0].similarities]
        if leading[name] == primary
        else [leading[name]]
        for name, folds in methods.items()
    }

    numbered = _number_groups(methods)
    augmented = {name: [fold.select(fold.augmented) for fold in folds] for name, folds in numbered.items()}
    plain = {name: [fold.originals() for fold in folds] for name, folds in numbered.items()}
    draws = draw_groups(augmented[reference], resamples=resamples, seed=seed)
    plain_draws = draw_groups(plain[reference], resamples=resamples, seed=seed)
    samples = {
        name: {
            metric: sample_aurocs(folds, metric, draws)
            for metric in dict.fromkeys([*reported[name], leading[name]])
        }
        for name, folds in augmented.items()
    }
    classes = np.unique(np.concatenate([fold.classes[~fold.positive] for fold in augmented[reference]]))
    members = {name: [name] for name in classes.tolist()}
    return {
        "auroc": {
            "augmented": {
                name: {metric: _summary(samples[name][metric]) for metric in reported[name]}
                for name in methods
            },
            "plain": {
                name: {
                    metric: _summary(sample_aurocs(folds, metric, plain_draws)) for metric in reported[name]
                }
                for name, folds in plain.items()
            },
        },
        "per_class": parts(augmented, members, leading, resamples=resamples, seed=seed),
        "per_group": parts(augmented, class_groups or {}, leading, resamples=resamples, seed=seed),
        "differences": {
            name: {
                key: _mean(samples[reference][key].minus(samples[name][own]), least=-1.0)
                for own in reported[name]
                for key in [own if leading[name] == primary else primary]
            }
            for name in methods
            if name != reference
        },
        "operating": {name: _operating(folds, leading[name], draws) for name, folds in augmented.items()},
    }


def parts(
    methods: Mapping[str, Folds],
    named: Mapping[str, Sequence[str]],
    leading: Mapping[str, str],
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """AUROC of all positives against the negatives of each part, with separate bootstrap draws per part.

    A part without images in some fold is left out; "n" counts the distinct images over all folds.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in methods}
    first = next(iter(methods.values()))
    for part, classes in named.items():
        others = [~fold.positive & np.isin(fold.classes, list(classes)) for fold in first]
        if not all(map(np.any, others)):
            continue
        masks = [fold.positive | other for fold, other in zip(first, others, strict=True)]
        draws = draw_groups(_select(first, masks), resamples=resamples, seed=seed)
        n = len(set().union(*(fold.names[other].tolist() for fold, other in zip(first, others, strict=True))))
        for name, folds in methods.items():
            samples = sample_aurocs(_select(folds, masks), leading[name], draws)
            result[name][part] = {"n": n, "std": float(np.std(samples.values)), **_mean(samples, least=0.0)}
    return result


def _select(folds: Folds, masks: Sequence[np.ndarray]) -> list[ScoredImages]:
    return [fold.select(mask) for fold, mask in zip(folds, masks, strict=True)]


def _summary(samples: AurocSamples) -> dict[str, Any]:
    return {
        "folds": [estimate._asdict() for estimate in samples.folds()],
        "std": float(np.std(samples.values)),
        **_mean(samples, least=0.0),
    }


def _mean(samples: AurocSamples, *, least: float) -> dict[str, float | None]:
    mean, drawn = samples.mean(), samples.mean_over_drawn_folds(least=least, most=1.0)
    return {
        "mean": mean.value,
        "low": mean.low,
        "high": mean.high,
        "low_folds": drawn.low if drawn else None,
        "high_folds": drawn.high if drawn else None,
    }


def _operating(folds: Folds, metric: str, draws: Resamples) -> dict[str, Any]:
    values = [operating_points(fold.similarities[metric], fold.positive) for fold in folds]
    means = (np.mean(arrays, axis=0) for arrays in zip(*values, strict=True))
    resampled = (np.mean(array, axis=0) for array in resampled_operating_points(folds, metric, draws))

    def row(value: np.ndarray, column: np.ndarray) -> dict[str, float | None]:
        low, high = percentile_interval(column, draws.groups)
        return {"mean": float(value), "low": low, "high": high}

    def rows(values: Iterable[np.ndarray], table: np.ndarray) -> dict[str, dict[str, float | None]]:
        return {
            str(level): row(value, column)
            for level, value, column in zip(LEVELS, values, table.T, strict=True)
        }

    return {
        name: rows(mean, column) if np.ndim(mean) else row(mean, column)
        for name, mean, column in zip(OperatingPoints._fields, means, resampled, strict=True)
    }


def _number_groups(methods: Mapping[str, Folds]) -> dict[str, list[ScoredImages]]:
    """The same images with group names replaced by numbers in the same order, which sort faster."""
    first = next(iter(methods.values()))
    _, numbers = np.unique(np.concatenate([fold.groups for fold in first]), return_inverse=True)
    groups = np.split(numbers, np.cumsum([len(fold) for fold in first])[:-1])
    return {
        name: [replace(fold, groups=own) for fold, own in zip(folds, groups, strict=True)]
        for name, folds in methods.items()
    }


def leading_metric(name: str, folds: Folds, primary: str) -> str:
    """The score used for a method's breakdowns and comparisons: `primary`, or its only score."""
    held = list(folds[0].similarities)
    for index, fold in enumerate(folds):
        if list(fold.similarities) != held:
            raise ValueError(
                f"{name} is scored by {', '.join(fold.similarities)} in fold {index} and by "
                f"{', '.join(held)} in fold 0: score all folds by the same metrics"
            )
    if primary in held:
        return primary
    if len(held) != 1:
        raise ValueError(
            f"{name} is scored by {', '.join(held) or 'nothing'}: either {primary} or a single score of its "
            "own is needed"
        )
    return held[0]


def _check_methods(methods: Mapping[str, Folds], reference: str) -> None:
    if reference not in methods:
        raise ValueError(
            f"the reference method {reference!r} is not among the methods: {', '.join(methods) or 'none'}"
        )
    for fold in methods[reference]:
        group_names(dict.fromkeys(fold.groups.tolist()))
    for name, folds in methods.items():
        if len(folds) != len(methods[reference]):
            raise ValueError(
                f"{name} has {len(folds)} folds and {reference} has {len(methods[reference])}: pair them"
            )
        for index, (fold, other) in enumerate(zip(folds, methods[reference], strict=True)):
            for field in ("names", "classes", "groups", "copies", "positive", "augmented", "plain"):
                if not np.array_equal(getattr(fold, field), getattr(other, field)):
                    raise ValueError(
                        f"{name} and {reference} differ in {field} in fold {index}: paired differences need "
                        "the same images in the same order"
                    )


def summarize_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise runs that differ only in their seed: the spread of each mean over trainings.

    ValueError without results, or if they do not hold the same methods and metrics.

    Args:
      results: one result per seed, each with "auroc" and "differences" as `summarize` returns them.

    Returns:
      "auroc": {"augmented" | "plain": {method: {metric: {"mean", "min", "max", "std", "seeds"}}}} and
      "differences": {method: {metric: the same}}, where "seeds" holds each run's mean over its folds, in the
      given order, and "std" is their population standard deviation, as in all tables.
    """
    if not results:
        raise ValueError("no results were given: one for each seed is needed")
    return {
        "auroc": {
            kind: _distribution([result["auroc"][kind] for result in results], f"{kind} AUROCs")
            for kind in ("augmented", "plain")
        },
        "differences": _distribution([result["differences"] for result in results], "differences"),
    }


def _distribution(tables: Sequence[Mapping[str, Any]], what: str) -> dict[str, Any]:
    names = [{method: sorted(metrics) for method, metrics in table.items()} for table in tables]
    for index, found in enumerate(names):
        if found != names[0]:
            raise ValueError(
                f"result {index} holds other {what} than result 0 ({found} and {names[0]}): give runs "
                "that differ only in their seed"
            )
    return {
        method: {metric: _spread([table[method][metric]["mean"] for table in tables]) for metric in metrics}
        for method, metrics in names[0].items()
    }


def _spread(means: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": float(np.mean(means)),
        "min": min(means),
        "max": max(means),
        "std": float(np.std(means)),
        "seeds": list(means),
    }
