"""Near-duplicates across groups: found by perceptual hash, then merged into one group or refused."""

from dataclasses import replace

import numpy as np

from mim_jax.data.dataset import Dataset
from mim_jax.data.inspection import HASH_DISTANCE, near_duplicate_clusters

MODES = ("group", "error", "ignore")


def settle(dataset: Dataset, mode: str, *, hash_distance: int = HASH_DISTANCE) -> Dataset:
    """Merge all groups that near-duplicates link, across classes too; `duplicates` lists the linked images.

    A merged group takes the alphabetically first of its names. Near-duplicates within one group are left
    alone: that is what groups are for. Mode "error" refuses near-duplicates in different groups instead,
    "ignore" skips the search. Hashes of near-duplicates differ in at most `hash_distance` of 63 bits.

    Raises:
      ValueError: an unknown mode, or (error) near-duplicates in different groups.
    """
    if mode not in MODES:
        raise ValueError(f"unknown config.data.duplicates {mode!r}: choose one of {', '.join(MODES)}")
    if mode == "ignore":
        return dataset
    clusters = near_duplicate_clusters(dataset.images, hash_distance=hash_distance)
    linked = []
    for cluster in np.flatnonzero(np.bincount(clusters) > 1):
        members = np.flatnonzero(clusters == cluster)
        if len(np.unique(dataset.groups[members])) > 1:
            linked.append(members)
    if not linked:
        return dataset
    names = tuple(tuple(dataset.names[members].tolist()) for members in linked)
    if mode == "error":
        raise ValueError(
            f"{len(linked)} sets of near-duplicates span several groups ({' ~ '.join(names[0])}): remove "
            "copies, give them one group, or merge the groups with --config.data.duplicates=group"
        )
    head = {group: group for group in dataset.groups.tolist()}

    def find(group: str) -> str:
        while head[group] != group:
            group = head[group]
        return group

    for members in linked:
        heads = sorted({find(group) for group in dataset.groups[members].tolist()})
        for other in heads[1:]:
            head[other] = heads[0]
    groups = np.array([find(group) for group in dataset.groups.tolist()], dtype=str)
    return replace(dataset, groups=groups, duplicates=names)
