"""AUROC with intervals that respect what is independent: the paper's tables, from scores alone.

Positive = mpox, score = similarity (high = mpox-like), float64 throughout, ties count half. Nothing is fitted
or normalised here. Augmented copies of an image, and images of one patient, are one *group*: the bootstrap
draws groups, never single images, so copies do not make an interval narrower (Field and Welsh, "Bootstrapping
clustered data", Journal of the Royal Statistical Society B, 2007).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

LEVEL = 0.95  # of every interval


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """The scored test images of one fold, one entry an image in every array.

    Attributes:
      names: str `[n]`.
      classes: str `[n]`.
      groups: str `[n]`: patient, near-duplicate cluster, or the image itself; the copies of one image share
        it.
      copies: int `[n]`: 0 = the untouched image, 1, 2, ... = its augmented copies.
      positive: bool `[n]`: is it mpox?
      augmented: bool `[n]`: belongs to the augmented test set (the paper's 220 positives); negatives do.
      plain: bool `[n]`: belongs to the plain test set (the 44); negatives do.
      similarities: metric name -> float64 `[n]`.
    """

    names: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    copies: np.ndarray
    positive: np.ndarray
    augmented: np.ndarray
    plain: np.ndarray
    similarities: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        columns = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "similarities"
        }
        for name, column in {**columns, **self.similarities}.items():
            if len(column) != len(self.names):
                raise ValueError(
                    f"{name} has {len(column)} entries for {len(self.names)} images: one an image is needed"
                )
        for metric, scores in self.similarities.items():
            finite = np.isfinite(scores)
            if not np.all(finite):
                first = int(np.argmin(finite))
                raise ValueError(
                    f"{metric} of {self.names[first]} is {scores[first]} ({np.sum(~finite)} of {len(scores)} "
                    "scores are not finite): check the image and the network that scored it"
                )

    def __len__(self) -> int:
        return len(self.names)

    def select(self, mask: np.ndarray) -> "ScoredImages":
        """The images where `mask` (bool `[n]`, or indices) holds."""
        columns = {
            field.name: getattr(self, field.name)[mask]
            for field in fields(self)
            if field.name != "similarities"
        }
        return ScoredImages(
            **columns, similarities={metric: scores[mask] for metric, scores in self.similarities.items()}
        )

    def originals(self) -> "ScoredImages":
        """The plain test set: no augmented copies."""
        return self.select(self.plain)


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


class Resamples(NamedTuple):
    """How often each group was drawn, shared by all metrics and methods so that their differences are paired.

    positive: for each fold int64 `[resamples, positive groups of the fold]`; negative: int64 `[resamples,
    negative groups]`, one for all folds. The groups are in the order of `np.unique`.
    """

    positive: tuple[np.ndarray, ...]
    negative: np.ndarray


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, a tie counting half.

    Raises:
      ValueError: lengths differ, a class is missing, or a score is not finite.
    """
    scores, positive = _checked(scores, positive)
    return float(roc_auc_score(positive, scores))


def roc(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve (Figure 6): false and true positive rates, from 0 to 1; errors as `auroc`."""
    scores, positive = _checked(scores, positive)
    false_rate, true_rate, _ = roc_curve(positive, scores)
    return false_rate, true_rate


def draw_groups(folds: Sequence[ScoredImages], *, resamples: int = 2000, seed: int = 0) -> Resamples:
    """Draws groups with replacement: positives within each fold, negatives once for all folds.

    The folds' positives are disjoint, while the same negatives are scored by every fold's model: what the
    folds share is shared here too.

    Raises:
      ValueError: no folds, a fold without positives or negatives, or folds whose negative groups differ.
    """
    if not folds:
        raise ValueError("no folds were given: at least one is needed")
    positives = [_groups(fold, index, positive=True) for index, fold in enumerate(folds)]
    negatives = [_groups(fold, index, positive=False) for index, fold in enumerate(folds)]
    for index, names in enumerate(negatives):
        if not np.array_equal(names, negatives[0]):
            raise ValueError(
                f"the {len(names)} negative groups of fold {index} are not the {len(negatives[0])} of fold "
                "0: test all folds on the same negatives"
            )
    generator = np.random.default_rng(seed)

    def draw(count: int) -> np.ndarray:
        return generator.multinomial(count, np.full(count, 1 / count), size=resamples)

    negative = draw(len(negatives[0]))
    return Resamples(positive=tuple(draw(len(names)) for names in positives), negative=negative)


def resampled_aurocs(folds: Sequence[ScoredImages], metric: str, draws: Resamples) -> np.ndarray:
    """AUROC of every fold in every resample: float64 `[folds, resamples]`.

    With C[p, n] = the sum over the pairs of group p and group n of [s_p > s_n] + [s_p = s_n] / 2, and weights
    w = how often a group was drawn, AUROC = w_p C w_n / ((w_p . sizes_p) (w_n . sizes_n)): matrix products
    instead of sorting every resample.
    """
    result = np.empty((len(folds), len(draws.negative)))
    negative_draws = draws.negative.astype(np.float64)
    for index, fold in enumerate(folds):
        positive_draws = draws.positive[index].astype(np.float64)
        scores = fold.similarities[metric].astype(np.float64)
        wins, positive_sizes, negative_sizes = _group_wins(scores, fold.positive, fold.groups)
        pairs = (positive_draws @ positive_sizes) * (negative_draws @ negative_sizes)
        result[index] = np.sum((positive_draws @ wins) * negative_draws, axis=1) / pairs
    return result


def cluster_bootstrap(
    folds: Sequence[ScoredImages], metric: str, *, resamples: int = 2000, seed: int = 0
) -> tuple[list[Estimate], Estimate]:
    """AUROC of each fold, and its mean over the folds, with percentile intervals of the cluster bootstrap.

    Returns:
      One `Estimate` a fold, and one of the mean.
    """
    resampled = resampled_aurocs(folds, metric, draw_groups(folds, resamples=resamples, seed=seed))
    return _estimates(_values(folds, metric), resampled)


def summarize(
    methods: Mapping[str, Sequence[ScoredImages]],
    *,
    metrics: Sequence[str] | None = None,
    primary: str = "ssim_hbd",
    reference: str = "mim",
    resamples: int = 2000,
    seed: int = 0,
    class_groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Every AUROC of the report, with intervals: plain floats, lists and dicts, ready for JSON.

    Args:
      methods: name -> one `ScoredImages` a fold, the same images in the same order for each method.
      metrics: the metrics to report; None = all that the first fold holds.
      primary: the metric of the breakdowns by class and by group.
      reference: the method that the others are compared with.
      resamples: bootstrap resamples.
      seed: of the resamples.
      class_groups: name -> classes, for the breakdown by group; None = no such breakdown.

    Returns:
      "auroc": {"augmented" | "plain": {method: {metric: {"folds": [{"value", "low", "high"}, ...], "mean",
      "std", "low", "high"}}}} with the
        population standard deviation over the folds, as the paper's tables have it, and the interval of the
        mean;
      "per_class": {method: {class: {"n", "mean", "std", "low", "high"}}}: augmented positives against the
      images of that class alone; "per_group": {method: {group: the same}}: groups of classes, those that have
      images; "differences": {method: {metric: {"mean", "low", "high"}}}: reference minus method on the
      augmented set, paired by resample.

    Raises:
      ValueError: an unknown reference or metric, methods that scored different images, or what `ScoredImages`
        and `draw_groups` refuse.
    """
    _check_methods(methods, reference)
    first = methods[reference][0]
    metrics = list(first.similarities) if metrics is None else list(metrics)
    for metric in [*metrics, primary]:
        if metric not in first.similarities:
            raise ValueError(
                f"unknown metric {metric!r}: the images are scored by {', '.join(first.similarities)}"
            )

    augmented = {name: [fold.select(fold.augmented) for fold in folds] for name, folds in methods.items()}
    plain = {name: [fold.originals() for fold in folds] for name, folds in methods.items()}
    draws = draw_groups(augmented[reference], resamples=resamples, seed=seed)
    resampled = {
        (name, metric): resampled_aurocs(folds, metric, draws)
        for name, folds in augmented.items()
        for metric in metrics
    }
    plain_draws = draw_groups(plain[reference], resamples=resamples, seed=seed)
    classes = np.unique(np.concatenate([fold.classes[~fold.positive] for fold in augmented[reference]]))
    members = {name: [str(name)] for name in classes.tolist()}
    groups = {
        name: list(names)
        for name, names in (class_groups or {}).items()
        if np.isin(classes, list(names)).any()
    }
    return {
        "auroc": {
            "augmented": {
                name: {
                    metric: _summary(_values(folds, metric), resampled[name, metric]) for metric in metrics
                }
                for name, folds in augmented.items()
            },
            "plain": {
                name: {
                    metric: _summary(_values(folds, metric), resampled_aurocs(folds, metric, plain_draws))
                    for metric in metrics
                }
                for name, folds in plain.items()
            },
        },
        "per_class": _breakdown(augmented, members, primary, resamples=resamples, seed=seed),
        "per_group": _breakdown(augmented, groups, primary, resamples=resamples, seed=seed),
        "differences": {
            name: {
                metric: _difference(
                    _values(augmented[reference], metric) - _values(folds, metric),
                    resampled[reference, metric] - resampled[name, metric],
                )
                for metric in metrics
            }
            for name, folds in augmented.items()
            if name != reference
        },
    }


def _breakdown(
    methods: Mapping[str, Sequence[ScoredImages]],
    parts: Mapping[str, Sequence[str]],
    metric: str,
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """AUROC of all positives against the negatives of each part, whose groups are drawn for themselves."""
    result: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in methods}
    for part, classes in parts.items():
        chosen = {
            name: [fold.select(fold.positive | np.isin(fold.classes, list(classes))) for fold in folds]
            for name, folds in methods.items()
        }
        draws = draw_groups(next(iter(chosen.values())), resamples=resamples, seed=seed)
        for name, folds in chosen.items():
            summary = _summary(_values(folds, metric), resampled_aurocs(folds, metric, draws))
            del summary["folds"]
            result[name][part] = {"n": int(np.sum(~folds[0].positive)), **summary}
    return result


def _values(folds: Sequence[ScoredImages], metric: str) -> np.ndarray:
    return np.array([auroc(fold.similarities[metric], fold.positive) for fold in folds])


def _estimates(values: np.ndarray, resampled: np.ndarray) -> tuple[list[Estimate], Estimate]:
    each = [Estimate(float(value), *_interval(row)) for value, row in zip(values, resampled, strict=True)]
    return each, Estimate(float(np.mean(values)), *_interval(np.mean(resampled, axis=0)))


def _summary(values: np.ndarray, resampled: np.ndarray) -> dict[str, Any]:
    each, mean = _estimates(values, resampled)
    return {
        "folds": [estimate._asdict() for estimate in each],
        "mean": mean.value,
        "std": float(np.std(values)),
        "low": mean.low,
        "high": mean.high,
    }


def _difference(values: np.ndarray, resampled: np.ndarray) -> dict[str, float]:
    low, high = _interval(np.mean(resampled, axis=0))
    return {"mean": float(np.mean(values)), "low": low, "high": high}


def _interval(resampled: np.ndarray) -> tuple[float, float]:
    """The central percentiles that hold `LEVEL` of the resamples."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _group_wins(
    scores: np.ndarray, positive: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs won, float64 `[positive groups, negative groups]`, and the sizes of the groups, float64."""
    _, positive_group, positive_sizes = np.unique(groups[positive], return_inverse=True, return_counts=True)
    _, negative_group, negative_sizes = np.unique(groups[~positive], return_inverse=True, return_counts=True)
    upper, lower = scores[positive][:, None], scores[~positive][None, :]
    pairs = (upper > lower) + 0.5 * (upper == lower)
    for axis, membership, sizes in ((0, positive_group, positive_sizes), (1, negative_group, negative_sizes)):
        # Sums over each group: sort by group, then add from every group's start to the next.
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        pairs = np.add.reduceat(
            np.take(pairs, np.argsort(membership, kind="stable"), axis=axis), starts, axis=axis
        )
    return pairs, positive_sizes.astype(np.float64), negative_sizes.astype(np.float64)


def _groups(fold: ScoredImages, index: int, *, positive: bool) -> np.ndarray:
    names = np.unique(fold.groups[fold.positive == positive])
    if not len(names):
        kind = "positive (mpox)" if positive else "negative (other)"
        raise ValueError(f"fold {index} has no {kind} image among {len(fold)}: AUROC needs both")
    return names


def _check_methods(methods: Mapping[str, Sequence[ScoredImages]], reference: str) -> None:
    if reference not in methods:
        raise ValueError(
            f"the reference method {reference!r} is not among the methods: {', '.join(methods) or 'none'}"
        )
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


def _checked(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(
            f"one score and one label an image are needed, got shapes {scores.shape} and {positive.shape}"
        )
    if not np.all(np.isfinite(scores)):
        first = int(np.argmin(np.isfinite(scores)))
        raise ValueError(f"score {first} is {scores[first]}: AUROC needs finite scores")
    if positive.all() or not positive.any():
        raise ValueError(
            f"{np.sum(positive)} of {len(positive)} images are positive: AUROC needs positives and negatives"
        )
    return scores, positive
