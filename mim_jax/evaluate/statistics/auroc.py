"""AUROC with cluster-bootstrap intervals, and the ROC curve.

Positive = mpox, score = similarity (high = mpox-like), float64 throughout, ties count half. Nothing is fitted
or normalised here.

Augmented copies of an image, and images of one patient, form one *group*: the bootstrap draws groups, never
single images, so copies do not make an interval narrower (Field and Welsh, "Bootstrapping clustered data",
Journal of the Royal Statistical Society B, 2007). Draws are kept as counts, so nothing is sorted again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, stdtrit
from sklearn.metrics import roc_curve

from mim_jax.data.folds import group_names
from mim_jax.evaluate.scores import ScoredImages

LEVEL = 0.95  # confidence level of every interval
LEAST_RESAMPLES = 40  # with fewer, the expected number of resamples in a tail is below one
# Minimum on each side: of n < 6 values even the full range misses the median in over 5 % of samples, 2^(1-n).
LEAST_GROUPS = 6
_NORMAL = 1e6  # degrees of freedom from which a t distribution is treated as normal


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, a tie counting half.

    >>> auroc(np.array([0.2, 0.5, 0.5, 0.9]), np.array([False, False, True, True]))
    0.875

    Raises:
      ValueError: lengths differ, a class is missing, or a score is not finite.
    """
    scores, positive = checked(scores, positive)
    upper, lower = scores[positive], scores[~positive]
    # Multiples of 1/2 add up exactly: a single rounding, independent of the order of the images.
    return float(np.sum(_count_below(upper, lower)) / (len(upper) * len(lower)))


def roc(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve (Figure 6): false and true positive rates, from 0 to 1; errors as `auroc`.

    >>> roc(np.array([0.1, 0.9]), np.array([False, True]))
    (array([0., 0., 1.]), array([0., 1., 1.]))
    """
    scores, positive = checked(scores, positive)
    false_rate, true_rate, _ = roc_curve(positive, scores)
    return false_rate, true_rate


def checked(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float64 and labels as bool, both `[n]`; errors as `auroc`."""
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(
            f"one score and one label per image are needed, got shapes {scores.shape} and {positive.shape}"
        )
    if not np.all(np.isfinite(scores)):
        first = int(np.argmin(np.isfinite(scores)))
        raise ValueError(f"score {first} is {scores[first]}: AUROC needs finite scores")
    if positive.all() or not positive.any():
        raise ValueError(
            f"{np.sum(positive)} of {len(positive)} images are positive: AUROC needs positives and negatives"
        )
    return scores, positive


def _count_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Number of the others below each value, ties counting half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    return (below + not_above) / 2


class Estimate(NamedTuple):
    """A value and its 95 % interval; the bounds are None if there are too few groups."""

    value: float
    low: float | None
    high: float | None


def share_estimate(hits: int, count: int) -> Estimate:
    """Share of `count` independent cases, with its exact interval (Clopper and Pearson, Biometrika, 1934).

    The bounds are quantiles of Beta(hits, count - hits + 1) and Beta(hits + 1, count - hits). ValueError if
    there is no case, or if there are more hits than cases.

    >>> [round(end, 3) for end in share_estimate(0, 10)]
    [0.0, 0.0, 0.308]
    """
    if not 0 <= hits <= count or not count:
        raise ValueError(f"a share needs at least one case, and 0 <= hits <= cases: got {hits} of {count}")
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return Estimate(hits / count, low, high)


def percentile_interval(resampled: np.ndarray, groups: int) -> tuple[float, float] | tuple[None, None]:
    """Central percentile interval that holds `LEVEL` of the resamples `[resamples]`.

    None for fewer than `LEAST_RESAMPLES` resamples, or `LEAST_GROUPS` groups on a side: such a bootstrap is
    not informative.
    """
    if len(resampled) < LEAST_RESAMPLES or groups < LEAST_GROUPS:
        return None, None
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def fold_half_width(values: np.ndarray, shared_variance: float) -> float | None:
    """Half-width of an interval of the folds' mean that treats folds and their models as random.

    Each fold has its own model and its own positives; all folds share the negatives. So the sample variance
    s^2 of the k values measures the effect of models and positives, while the shared negatives shift all
    values together and cancel out of it:

        Var(mean) = s^2 / k + V,    V = the variance of the mean due to the negatives.

    Interactions of negatives with single models are in both terms: slightly too wide. This is a
    random-effects analysis with the fold models as readers of the same negatives (Obuchowski and Rockette,
    Communications in Statistics - Simulation and Computation, 1995). s^2 has k - 1 degrees of freedom and V
    many; their sum has Satterthwaite's (Biometrics Bulletin, 1946), and the half-width is the quantile of
    that t distribution times the standard deviation. Resampling the folds with replacement instead would
    shrink s^2 by (k - 1) / k, ignore that it is estimated from k values, and count the positives twice
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

    The folds' training sets overlap, so their values are correlated in a way that cannot be estimated from
    one cross-validation (Bengio and Grandvalet, Journal of Machine Learning Research, 2004): the interval
    is for models trained like these, and other training images may shift the mean further.

    `values` are those of the folds, `[k]`, and `shared_variance` is V. None for a single fold, which does not
    show how folds vary.
    """
    count = len(values)
    if count < 2:
        return None
    folds = float(np.var(values, ddof=1)) / count
    total = folds + shared_variance
    # freedom = total^2 / (folds^2 / (k - 1)), without dividing by zero if all folds agree.
    freedom = (count - 1) * total**2 / folds**2 if folds**2 * _NORMAL > (count - 1) * total**2 else _NORMAL
    return float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(total)


class Resamples(NamedTuple):
    """How often each group was drawn; shared by all metrics and methods so that differences are paired.

    `positive` and `negative` are float32 `[resamples, groups of the fold]` for each fold: whole numbers,
    stored as float32 for fast matrix products. The groups are in the order of `np.unique`. A negative group
    that several folds test on is drawn once for all of them.
    """

    positive: tuple[np.ndarray, ...]
    negative: tuple[np.ndarray, ...]
    # for each fold, the indices of its negative groups among the negative groups of all folds
    places: tuple[np.ndarray, ...]

    @property
    def groups(self) -> int:
        """Number of groups over all folds, on the side that has fewer."""
        positives = sum(drawn.shape[1] for drawn in self.positive)
        return min(positives, 1 + max(int(own[-1]) for own in self.places))


@dataclass(frozen=True, eq=False)
class AurocSamples:
    """An AUROC, or the difference of two, in every fold and resample."""

    values: np.ndarray  # observed value of each fold, float64 `[folds]`
    resampled: np.ndarray  # value in each resample, float64 `[folds, resamples]`
    # influence of each negative group on the value, float64 `[folds, negative groups]`: its contribution to
    # the AUROC minus the contribution expected from its size. They add up to zero.
    pulls: np.ndarray
    draws: Resamples

    def minus(self, other: "AurocSamples") -> "AurocSamples":
        """Paired difference; both must come from the same draws of the same images."""
        return replace(
            self,
            values=self.values - other.values,
            resampled=self.resampled - other.resampled,
            pulls=self.pulls - other.pulls,
        )

    def folds(self) -> list[Estimate]:
        """Value of each fold with its percentile interval."""
        return [
            Estimate(float(value), *percentile_interval(row, min(positive.shape[1], negative.shape[1])))
            for value, row, positive, negative in zip(
                self.values, self.resampled, *self.draws[:2], strict=True
            )
        ]

    def mean(self) -> Estimate:
        """Mean over the folds, with its percentile interval for fixed models and random images."""
        resampled = np.mean(self.resampled, axis=0)
        return Estimate(float(np.mean(self.values)), *percentile_interval(resampled, self.draws.groups))

    def mean_over_drawn_folds(self, *, least: float, most: float) -> Estimate | None:
        """Mean with an interval for random folds, models included, and random images.

        The interval of `fold_half_width`, widened to contain that of `mean`, which has fewer sources of
        variance, and clipped to `[least, most]`. None for a single fold, or if `mean` has no interval.
        """
        value, low, high = self.mean()
        # Linearised variance of the folds' mean due to the shared negatives, by groups (Obuchowski,
        # Biometrics, 1997).
        pulls = np.mean(self.pulls, axis=0)
        half = fold_half_width(self.values, float(np.sum(pulls**2)) * len(pulls) / max(len(pulls) - 1, 1))
        if half is None or low is None or high is None:
            return None
        return Estimate(value, max(min(low, value - half), least), min(max(high, value + half), most))


def draw_groups(folds: Sequence[ScoredImages], *, resamples: int = 2000, seed: int = 0) -> Resamples:
    """Draw groups with replacement: positives within each fold, negatives once for all folds.

    The folds' positives are disjoint, while most or all negatives are scored by every fold's model: what
    the folds share is shared in the draws too. Negative groups are drawn among those tested by the same
    folds, so no fold is left without negatives. A group with both positives and negatives is drawn
    separately for each side. ValueError without folds, if a fold lacks positives or negatives, or if a group
    is NaN or None.
    """
    if not folds:
        raise ValueError("no folds were given: at least one is needed")
    positives = [_groups(fold, index, positive=True) for index, fold in enumerate(folds)]
    negatives = [_groups(fold, index, positive=False) for index, fold in enumerate(folds)]
    every = np.unique(np.concatenate(negatives))
    places = tuple(np.searchsorted(every, names) for names in negatives)
    generator = np.random.default_rng(seed)

    def draw(count: int) -> np.ndarray:
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
        return drawn.astype(np.float32)

    tested = np.stack([np.isin(every, own) for own in negatives])
    drawn = np.empty((resamples, len(every)), np.float32)
    for by in np.unique(tested, axis=1).T:
        alike = np.all(tested == by[:, None], axis=0)
        drawn[:, alike] = draw(int(np.sum(alike)))
    return Resamples(
        positive=tuple(draw(len(names)) for names in positives),
        # No copy for a fold that tests on all negative groups.
        negative=tuple(drawn if len(own) == len(every) else drawn[:, own] for own in places),
        places=places,
    )


def sample_aurocs(folds: Sequence[ScoredImages], metric: str, draws: Resamples) -> AurocSamples:
    """Observed AUROC of every fold, and its AUROC in every resample.

    With C[p, n] = the sum over the pairs of group p and group n of [s_p > s_n] + [s_p = s_n] / 2, and weights
    w = how often a group was drawn, AUROC = w_p C w_n / ((w_p . sizes_p) (w_n . sizes_n)): matrix products
    instead of sorting every resample. C w_n holds multiples of 1/2: exact in float32 up to eight million
    pairs per positive group, and accurate to seven digits beyond.
    """
    values = np.empty(len(folds))
    resampled = np.empty((len(folds), len(draws.negative[0])))
    pulls = np.zeros((len(folds), 1 + max(int(own[-1]) for own in draws.places)))
    for index, fold in enumerate(folds):
        scores, positive = checked(fold.similarities[metric], fold.positive)
        wins, positive_sizes, negative_sizes = _group_wins(scores, positive, fold.groups)
        pairs = positive_sizes.sum() * negative_sizes.sum()
        won = wins.sum(axis=0, dtype=np.float64)
        values[index] = won.sum() / pairs
        pull = won / pairs - values[index] * negative_sizes / negative_sizes.sum()
        pulls[index, draws.places[index]] = pull
        drawn, others = draws.positive[index].astype(np.float64), draws.negative[index]
        # The sizes of resamples are sums of whole numbers: exact in float64.
        drawn_pairs = (drawn @ positive_sizes) * (others @ negative_sizes.astype(np.float32))
        resampled[index] = np.sum(drawn * (others @ wins.T), axis=1) / drawn_pairs
    return AurocSamples(values, resampled, pulls, draws)


def _group_wins(
    scores: np.ndarray, positive: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of pairs won, float32 `[positive groups, negative groups]`, and the group sizes, float64."""
    upper, positive_starts, positive_sizes = _by_group(scores[positive], groups[positive])
    lower, negative_starts, negative_sizes = _by_group(scores[~positive], groups[~positive])
    above = upper[:, None] > lower[None, :]
    tied = upper[:, None] == lower[None, :]
    pairs = above.astype(np.float32) + np.float32(0.5) * tied
    wins = np.add.reduceat(np.add.reduceat(pairs, positive_starts, axis=0), negative_starts, axis=1)
    return wins, positive_sizes, negative_sizes


def _by_group(scores: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores ordered by group, where each group starts, and its size (float64)."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return scores[np.argsort(group, kind="stable")], starts, sizes.astype(np.float64)


def _groups(fold: ScoredImages, index: int, *, positive: bool) -> np.ndarray:
    names = np.unique(fold.groups[fold.positive == positive])
    group_names(names.tolist())  # refuses NaN: such groups would be drawn as one
    if not len(names):
        kind = "positive (mpox)" if positive else "negative (other)"
        raise ValueError(f"fold {index} has no {kind} image among {len(fold)}: AUROC needs both")
    return names
