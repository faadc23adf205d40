"""Cross-validation folds of the training class: seeded, of even size, no group on both sides of a split."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Fold:
    """A split: `train` and `test` are sorted int64 indices into the `groups` passed to `make_folds`."""

    index: int
    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """One fold of an experiment, as indices into its dataset."""

    index: int  # fold number, from 0
    train: np.ndarray  # training images
    labels: np.ndarray  # int32, class of each training image; 0 = the positive class
    held_out: np.ndarray  # positives kept out of training, for choices that must not see test images
    test: np.ndarray  # test positives
    seen: np.ndarray  # negatives whose group is trained on; the paper's Table 3 leaves them out of the test


def make_folds(
    groups: Sequence[str] | np.ndarray, *, folds: int, seed: int, grouped: bool = True
) -> list[Fold]:
    """Split N images into `folds` disjoint test sets that cover all of them.

    Groups (single images if ungrouped) are shuffled and then assigned, largest first, each to the smallest
    test set so far. Test set sizes thus differ by at most the size of the largest group, or by one if
    ungrouped: 220 images in five folds always give 176 and 44. (scikit-learn's shuffled GroupKFold balances
    the number of groups, not of images.)

    >>> [len(fold.test) for fold in make_folds([str(i) for i in range(220)], folds=5, seed=0)]
    [44, 44, 44, 44, 44]

    Args:
      groups: group of each image (patient, lesion, cluster of near-duplicates), length N.
      folds: number of folds, at least 2.
      seed: seed of the shuffle; the same seed gives the same folds.
      grouped: keep every group on one side of each split.

    Raises:
      ValueError: `folds` is below 2, there are fewer images or groups than folds, or a group name is
        missing (NaN, None or empty).
    """
    units = group_names(groups) if grouped else [str(i) for i in range(len(groups))]
    sizes = Counter(units)
    _check_counts(len(units), len(sizes), folds, grouped)

    unique = sorted(sizes)
    rng = np.random.default_rng(seed)
    shuffled = [unique[i] for i in rng.permutation(len(unique))]
    fold_of: dict[str, int] = {}
    filled = [0] * folds
    # The sort is stable: groups of equal size keep their shuffled order.
    for group in sorted(shuffled, key=lambda name: -sizes[name]):
        smallest = filled.index(min(filled))
        fold_of[group] = smallest
        filled[smallest] += sizes[group]

    assigned = np.array([fold_of[unit] for unit in units])
    result = [Fold(k, np.flatnonzero(assigned != k), np.flatnonzero(assigned == k)) for k in range(folds)]
    check_folds(result, units)
    return result


# Placeholders for a missing name in tables, as pandas reads them.
_MISSING = {"", "nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat"}
_WHOLE = re.compile(r"(-?\d+)\.0+")


def group_name(group: object) -> str:
    """Name of a group as text, "" if missing; 17 and 17.0, which tables mix up, give the same name.

    >>> group_name(17.0), group_name("Doe, John"), group_name(float("nan")), group_name("N/A")
    ('17', 'Doe, John', '', '')
    """
    name = str(group).strip()
    whole = _WHOLE.fullmatch(name)
    return "" if name.lower() in _MISSING else whole[1] if whole else name


def group_names(groups: Iterable[object]) -> list[str]:
    """Names of groups; ValueError if one is missing, because all missing ones would form one group."""
    given = list(groups)
    names = list(map(group_name, given))
    if "" in names:
        first = names.index("")
        raise ValueError(
            f"group {first} is {given[first]!r}: give an image of unknown group a group of its own, such as "
            "its file name"
        )
    return names


def check_folds(folds: Sequence[Fold], groups: Sequence[str] | np.ndarray) -> None:
    """Raise ValueError unless each image is in exactly one test set and no group is on both sides.

    >>> check_folds(make_folds(["a", "a", "b"], folds=2, seed=0), ["a", "a", "b"])
    """
    groups = np.array(group_names(groups), dtype=str)
    tested = np.sort(np.concatenate([fold.test for fold in folds]))
    if not np.array_equal(tested, np.arange(len(groups))):
        raise ValueError(
            f"the test sets hold {len(tested)} images, {len(np.unique(tested))} of them different, "
            f"but each of the {len(groups)} images must be in exactly one: make them again with make_folds"
        )
    for fold in folds:
        both = np.concatenate([fold.train, fold.test])
        if not np.array_equal(np.sort(both), np.arange(len(groups))):
            raise ValueError(
                f"fold {fold.index}: training and test images overlap or leave some out: "
                "make the folds again with make_folds"
            )
        shared = np.intersect1d(groups[fold.train], groups[fold.test])
        if shared.size:
            raise ValueError(
                f"fold {fold.index}: {shared.size} groups are in both training and test ({shared[0]!r}): "
                "make the folds again with make_folds(..., grouped=True)"
            )


def _check_counts(images: int, groups: int, folds: int, grouped: bool) -> None:
    if folds < 2:
        raise ValueError(f"folds={folds}: at least 2 folds are needed, one to test on and one to train on")
    if images < folds:
        raise ValueError(
            f"{images} images of the training class cannot fill {folds} folds: "
            f"add images or ask for fewer folds ({_way_out(images)})"
        )
    if grouped and groups < folds:
        raise ValueError(
            f"{images} images of the training class form {groups} groups, too few for {folds} folds: "
            f"add images of other groups or ask for fewer folds ({_way_out(groups)})"
        )


def _way_out(available: int) -> str:
    return f"--config.data.folds={available} at most" if available >= 2 else "at least two are needed"
