"""Inspection of a data set for problems that would distort results: duplicates, leaks, lost files.

Near-duplicates are found by a perceptual hash. It survives scaling, compression and mild colour changes, but
not mirroring, rotation or cropping. It is meaningless, and not used, for images with almost no contrast.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Fold

HASH_DISTANCE = 4  # Bits, of 63.
FLAT_STD = 4.0  # Grey levels, of 255; below this, compression determines the bits of the hash.


# Kind, which is the name of a field of the data set except for the first -> title and advice.
_LISTED = {
    "groups_across_classes": (
        "Groups in more than one class",
        "check the labels of these patients; if only the name is reused, prefix it with the class.",
    ),
    "group_problems": (
        "Files that do not match the manifest or group pattern",
        "correct the manifest or the group pattern.",
    ),
    "unusable": ("Unusable files", "fix or remove them; they are left out of training and results."),
    "passed_over": (
        "Files and folders skipped",
        "rename or convert those that are photographs of the class; leave the others.",
    ),
    "doubtful": (
        "Images that are not usable photographs of skin",
        "--config.data.gate.training=refuse leaves them out; --mode=score will refuse them.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One kind of problem: machine-readable name, title, instances and advice."""

    kind: str
    title: str
    items: tuple[str, ...]
    advice: str


@dataclass(frozen=True)
class Inspection:
    """Counts by class, positive first, and the problems found; `flat` counts the images without a hash.

    A row of `folds` has the fold's index, and the numbers of images and groups of the positive class that it
    trains on and tests on.
    """

    source: str
    size: int
    positive: str
    images: dict[str, int]
    groups: dict[str, int]
    folds: tuple[tuple[int, ...], ...]
    flat: int
    findings: tuple[Finding, ...]


def inspect(dataset: Dataset, folds: Sequence[Fold] | None) -> Inspection:
    """Count classes and groups, and look for problems that would distort results.

    `folds` split the images of the positive class, in their order in `dataset`; None = no folds.
    """
    positive = dataset.positive
    images = {positive: 0} | dataset.class_counts()
    contents = _contents(dataset.images)
    hashes, flat = perceptual_hashes(dataset.images)
    near = _near_pairs(hashes, flat)
    first, second = near.T
    # Images of one group may look alike: that is what groups are for.
    near = near[(contents[first] != contents[second]) & (dataset.groups[first] != dataset.groups[second])]
    groups = dataset.groups[dataset.positives]

    def counts(side: np.ndarray) -> tuple[int, int]:
        return len(side), len(np.unique(groups[side]))

    return Inspection(
        source=dataset.source,
        size=dataset.images.shape[1],
        positive=positive,
        images=images,
        groups={label: len(np.unique(dataset.groups[dataset.labels == label])) for label in images},
        folds=tuple((fold.index, *counts(fold.train), *counts(fold.test)) for fold in folds or ()),
        flat=int(flat.sum()),
        findings=(
            *_about_pairs(dataset, _identical_pairs(contents), "exact", "Identical images"),
            *_about_pairs(dataset, near, "near", "Near-duplicates"),
            *_about_the_rest(dataset),
        ),
    )


def near_duplicate_clusters(images: np.ndarray) -> np.ndarray:
    """Cluster identical and near-identical images: uint8 `[N, S, S, 3]` -> int `[N]`, cluster of each."""
    pairs = [_identical_pairs(_contents(images)), _near_pairs(*perceptual_hashes(images))]
    return connected(np.concatenate(pairs), len(images))


def perceptual_hashes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DCT hash (pHash) of each image: which of its 63 lowest non-zero frequencies exceed their median.

    Returns the hashes, uint64 `[N]`, and bool `[N]`, True if an image is too flat for a meaningful hash.
    """
    from scipy.fft import dctn

    grey = np.empty((len(images), 32, 32), dtype=np.float32)
    for i, image in enumerate(images):
        grey[i] = np.asarray(Image.fromarray(image).convert("L").resize((32, 32), Image.Resampling.LANCZOS))
    low = dctn(grey, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(-1, 64)[:, 1:]
    bits = (low > np.median(low, axis=1, keepdims=True)).astype(np.uint64) << np.arange(63, dtype=np.uint64)
    return np.bitwise_or.reduce(bits, axis=1), grey.std(axis=(1, 2)) < FLAT_STD


def format_inspection(inspection: Inspection, *, shown: int = 10) -> str:
    """Format an inspection for a terminal, with the first `shown` instances of each finding."""
    total = sum(inspection.images.values())
    side = inspection.size
    lines = [f"{total} images, {side}x{side} pixels, from {inspection.source}", ""]
    rows = [
        (label, str(count), str(inspection.groups[label]), "trained on" * (label == inspection.positive))
        for label, count in inspection.images.items()
    ]
    lines += _table(("class", "images", "groups", ""), [*rows, ("total", str(total), "", "")])
    if inspection.folds:
        header = ("fold", "train images", "train groups", "test images", "test groups")
        lines += ["", *_table(header, [tuple(map(str, fold)) for fold in inspection.folds])]
    for finding in inspection.findings:
        lines += ["", finding.title + (f": {len(finding.items)}" if finding.items else "")]
        lines += [f"  {item}" for item in finding.items[:shown]]
        if len(finding.items) > shown:
            lines.append(f"  ... and {len(finding.items) - shown} more")
        lines.append(f"  What to do: {finding.advice}")
    if not inspection.findings:
        lines += ["", "No problems found."]
    lines += ["", "Mirrored, rotated or cropped copies are not detected."]
    if inspection.flat:
        lines.append(f"{inspection.flat} images with almost no contrast were compared for identity only.")
    return "\n".join(lines)


def _contents(images: np.ndarray) -> np.ndarray:
    """Number the images, with equal numbers for images with the same pixels."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
    return np.unique(np.array(digests, dtype="S32"), return_inverse=True)[1]


def _identical_pairs(contents: np.ndarray) -> np.ndarray:
    return _pairs(len(contents), lambda rows: contents[rows, None] == contents[None, :])


def _near_pairs(hashes: np.ndarray, flat: np.ndarray) -> np.ndarray:
    def near(rows: np.ndarray) -> np.ndarray:
        differing = np.bitwise_count(hashes[rows, None] ^ hashes[None, :])
        return (differing <= HASH_DISTANCE) & ~flat[rows, None] & ~flat[None, :]

    return _pairs(len(hashes), near)


def _pairs(count: int, related: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Related pairs i < j, int `[P, 2]`; `related` compares rows with all items: bool `[rows, count]`."""
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, count, 256):
        rows = np.arange(start, min(start + 256, count))
        pairs = np.argwhere(related(rows)) + np.array([start, 0])
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def connected(pairs: np.ndarray, count: int) -> np.ndarray:
    """Number the items, with equal numbers for items that the pairs `[P, 2]` connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _about_pairs(dataset: Dataset, pairs: np.ndarray, kind: str, what: str) -> list[Finding]:
    """Sort pairs by the harm they do; within each kind, connected pairs form one item."""
    first, second = pairs.T
    positive, labels, groups = dataset.positive, dataset.labels, dataset.groups
    across = labels[first] != labels[second]
    leak = ~across & (labels[first] == positive) & (groups[first] != groups[second])
    sorts = (
        (
            across,
            "across_classes",
            "in different classes",
            "check them and keep each image in its correct class only; one of the labels is wrong.",
        ),
        (
            leak,
            "across_groups",
            f"of {positive} in different groups",
            "give them one group in manifest.csv, or keep one; now training images recur in the test set.",
        ),
        (
            ~across & ~leak,
            "within_class",
            "within a class",
            "keep one of them; every copy counts again in the results.",
        ),
    )
    sign = " = " if kind == "exact" else " ~ "
    findings = []
    for chosen, where, place, advice in sorts:
        items = tuple(sign.join(dataset.names[members]) for members in _members(pairs[chosen], len(dataset)))
        if items:
            findings.append(Finding(f"{kind}_{where}", f"{what} {place}", items, advice))
    return findings


def _members(pairs: np.ndarray, count: int) -> list[np.ndarray]:
    """Indices of the images in each cluster of two or more."""
    clusters = connected(pairs, count)
    involved = np.unique(pairs)
    return [involved[clusters[involved] == cluster] for cluster in np.unique(clusters[involved])]


def _about_the_rest(dataset: Dataset) -> list[Finding]:
    """Findings on groups, files and classes."""
    labels_of: dict[str, Counter[str]] = {}
    for group, label in zip(dataset.groups.tolist(), dataset.labels.tolist(), strict=True):
        labels_of.setdefault(group, Counter())[label] += 1
    crossing = [
        (group, ", ".join(f"{count} {label}" for label, count in sorted(labels.items())))
        for group, labels in sorted(labels_of.items())
        if len(labels) > 1
    ]
    findings = []
    if not dataset.grouped:
        title = "No groups are known; each image is treated as a separate patient"
        advice = (
            "if several images show one patient, group them in manifest.csv (columns file,group) or with "
            "--config.data.group_pattern; otherwise the results are too optimistic."
        )
        findings.append(Finding("ungrouped", title, (), advice))
    for kind, (title, advice) in _LISTED.items():
        named = crossing if kind == "groups_across_classes" else getattr(dataset, kind)
        if named:
            items = tuple(f"{name}: {words}" for name, words in named)
            findings.append(Finding(kind, title, items, advice))
    if not dataset.negatives.size:
        title = f"There is no class other than {dataset.positive}"
        advice = "add images of other conditions; without them a network can be trained but not evaluated."
        findings.append(Finding("no_negatives", title, (), advice))
    return findings


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Format aligned columns: the first left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for first, *rest in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines
