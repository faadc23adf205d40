"""Near-duplicates across groups: found by perceptual hash, then merged into one group or refused."""

from dataclasses import replace

import numpy as np

from mim_jax.data.dataset import Dataset
from mim_jax.data.inspection import connected, near_duplicate_clusters

MODES = ("group", "error", "ignore")


def settle(dataset: Dataset, mode: str) -> Dataset:
    """Merge all groups that near-duplicates link, across classes too; `duplicates` lists the linked images.

    A merged group takes the alphabetically first of its names. Near-duplicates within one group are left
    alone: that is what groups are for. Mode "error" refuses near-duplicates in different groups instead, by a
    ValueError; "ignore" skips the search.
    """
    if mode == "ignore":
        return dataset
    clusters = near_duplicate_clusters(dataset.images)
    groups, numbers = np.unique(dataset.groups, return_inverse=True)
    sets = [np.flatnonzero(clusters == cluster) for cluster in np.flatnonzero(np.bincount(clusters) > 1)]
    linked = [members for members in sets if len(np.unique(numbers[members])) > 1]
    if not linked:
        return dataset
    names = tuple(tuple(dataset.names[members].tolist()) for members in linked)
    if mode == "error":
        raise ValueError(
            f"{len(linked)} sets of near-duplicates span several groups ({' ~ '.join(names[0])}): remove "
            "copies, give them one group, or merge the groups with --config.data.duplicates=group"
        )
    links = [np.stack(np.broadcast_arrays(numbers[members[:1]], numbers[members]), 1) for members in linked]
    merged = connected(np.concatenate(links), len(groups))
    first = np.unique(merged, return_index=True)[1]  # `groups` are sorted
    return replace(dataset, groups=groups[first[merged]][numbers], duplicates=names)
