"""The cluster bootstrap of an AUROC: groups are drawn, and what was drawn is counted, never sorted again.

Augmented copies of an image, and images of one patient, are one *group*: the bootstrap draws groups, never
single images, so copies do not make an interval narrower (Field and Welsh, "Bootstrapping clustered data",
Journal of the Royal Statistical Society B, 2007).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import checked
from mim_jax.evaluate.statistics.intervals import Estimate, fold_half_width, percentile_interval


class Resamples(NamedTuple):
    """How often each group was drawn, shared by all metrics and methods so that their differences are paired.

    positive, negative: for each fold float32 `[resamples, its positive (negative) groups]`: whole numbers in
      the type that matrix products are fast in. The groups are in the order of `np.unique`. A negative group
      that several folds test on has one draw for all of them.
    places: for each fold where its negative groups stand among those of all folds.
    """

    positive: tuple[np.ndarray, ...]
    negative: tuple[np.ndarray, ...]
    places: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class AurocSamples:
    """An AUROC, or the difference of two, in every fold and resample.

    Attributes:
      values: of the folds as they are, float64 `[folds]`.
      resampled: float64 `[folds, resamples]`.
      pulls: how far each negative group pulls the value, float64 `[folds, negative groups]`: its share of the
        sum that the AUROC is, minus what it would have at that AUROC. They add up to zero.
    """

    values: np.ndarray
    resampled: np.ndarray
    pulls: np.ndarray

    def minus(self, other: "AurocSamples") -> "AurocSamples":
        """The paired difference: both must come from the same draws of the same images."""
        return AurocSamples(
            self.values - other.values, self.resampled - other.resampled, self.pulls - other.pulls
        )

    def folds(self) -> list[Estimate]:
        """The value of each fold with its percentile interval."""
        return [
            Estimate(float(value), *percentile_interval(row))
            for value, row in zip(self.values, self.resampled, strict=True)
        ]

    def mean(self) -> Estimate:
        """The mean over the folds' models as they are, with its percentile interval: images vary."""
        return Estimate(float(np.mean(self.values)), *percentile_interval(np.mean(self.resampled, axis=0)))

    def mean_over_drawn_folds(self, *, least: float, most: float) -> Estimate | None:
        """The mean with an interval in which folds, their models included, vary as well as images.

        It is that of `fold_half_width`, and never narrower than that of `mean`, which holds less; cut to
        `[least, most]`. None for a single fold.
        """
        value, low, high = self.mean()
        # The linearised variance of the mean of the folds over its shared negatives, by groups
        # (Obuchowski, Biometrics, 1997).
        pulls = np.mean(self.pulls, axis=0)
        half = fold_half_width(self.values, float(np.sum(pulls**2)) * len(pulls) / max(len(pulls) - 1, 1))
        if half is None:
            return None
        return Estimate(value, max(min(low, value - half), least), min(max(high, value + half), most))


def draw_groups(folds: Sequence[ScoredImages], *, resamples: int = 2000, seed: int = 0) -> Resamples:
    """Draws groups with replacement: positives within each fold, negatives once for all folds.

    The folds' positives are disjoint, while the same negatives are scored by every fold's model, most of them
    at least: what the folds share is shared here too. Negative groups are drawn among those that the same
    folds test, so that no fold is left without. A group with positives and negatives is drawn for each of
    them alone.

    Raises:
      ValueError: no folds, or a fold without positives or negatives.
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
        # Without copies where all folds test on all of them.
        negative=tuple(drawn if len(own) == len(every) else drawn[:, own] for own in places),
        places=places,
    )


def sample_aurocs(folds: Sequence[ScoredImages], metric: str, draws: Resamples) -> AurocSamples:
    """AUROC of every fold as it is and in every resample.

    With C[p, n] = the sum over the pairs of group p and group n of [s_p > s_n] + [s_p = s_n] / 2, and weights
    w = how often a group was drawn, AUROC = w_p C w_n / ((w_p . sizes_p) (w_n . sizes_n)): matrix products
    instead of sorting every resample. C w_n holds halves of whole numbers: exact in float32 while no positive
    group meets more than eight million negatives, and good to seven digits beyond.
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
    return AurocSamples(values, resampled, pulls)


def resampled_aurocs(folds: Sequence[ScoredImages], metric: str, draws: Resamples) -> np.ndarray:
    """AUROC of every fold in every resample: float64 `[folds, resamples]`."""
    return sample_aurocs(folds, metric, draws).resampled


def cluster_bootstrap(
    folds: Sequence[ScoredImages], metric: str, *, resamples: int = 2000, seed: int = 0
) -> tuple[list[Estimate], Estimate]:
    """AUROC of each fold, and its mean over the folds, with percentile intervals of the cluster bootstrap.

    Returns:
      One `Estimate` a fold, and one of the mean.
    """
    samples = sample_aurocs(folds, metric, draw_groups(folds, resamples=resamples, seed=seed))
    return samples.folds(), samples.mean()


def _group_wins(
    scores: np.ndarray, positive: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs won, float32 `[positive groups, negative groups]`, and the sizes of the groups, float64."""
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
    if not len(names):
        kind = "positive (mpox)" if positive else "negative (other)"
        raise ValueError(f"fold {index} has no {kind} image among {len(fold)}: AUROC needs both")
    return names
