"""The `Dataset`: images in memory with their labels, groups and names."""

import hashlib
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# Shown with every result on the embedded images.
NOTICE = "These are procedural images. They prove that the machinery runs and say nothing about mpox."


@dataclass(frozen=True, eq=False)
class Dataset:
    """N images in memory with their labels, groups and names, as aligned arrays."""

    images: np.ndarray  # uint8 `[N, S, S, 3]`, RGB
    labels: np.ndarray  # str `[N]`, class names
    # str `[N]`; images of one patient, lesion or photograph share a group and must not be split
    groups: np.ndarray
    names: np.ndarray  # str `[N]`, path relative to the root with "/" between its parts
    source: str  # human-readable origin of the images
    positive: str  # the class the network is trained on
    # uint8 `[N, L, L, 3]`: the same images for a network that needs larger ones; None = use `images`
    large: np.ndarray | None = None
    sources: np.ndarray | None = None  # str `[N]`, source of each file from the manifest; None = unknown
    grouped: bool = False  # True if the groups are known; otherwise each image is a group of its own
    unusable: tuple[tuple[str, str], ...] = ()  # (name, reason) of every image that was left out
    # (name, reason) of files and folders skipped: hidden, left by the system, or without an image suffix
    passed_over: tuple[tuple[str, str], ...] = ()
    # (name, problem) of each mismatch between the files and the manifest or group pattern
    group_problems: tuple[tuple[str, str], ...] = ()
    # (name, reason) of images that were kept although the input gate would refuse them
    doubtful: tuple[tuple[str, str], ...] = ()
    # sets of near-duplicates merged into one group, as tuples of names
    duplicates: tuple[tuple[str, ...], ...] = ()
    remarks: tuple[str, ...] = ()  # notes for the reader, such as counts that differ from the paper's

    def __len__(self) -> int:
        return len(self.images)

    @property
    def positives(self) -> np.ndarray:
        """Sorted indices of the images of the positive class."""
        return np.flatnonzero(self.labels == self.positive)

    @property
    def negatives(self) -> np.ndarray:
        """Sorted indices of all other images."""
        return np.flatnonzero(self.labels != self.positive)

    @property
    def shared_negatives(self) -> np.ndarray:
        """Sorted indices of negatives that share a group (patient, near-duplicates) with a positive.

        Some fold trains on that group, so they are not tested.
        """
        negatives = self.negatives
        return negatives[np.isin(self.groups[negatives], self.groups[self.positives])]

    @property
    def tested_negatives(self) -> np.ndarray:
        """Sorted indices of the negatives that share no group with a positive."""
        return np.setdiff1d(self.negatives, self.shared_negatives)

    def select(self, indices: np.ndarray) -> "Dataset":
        """Dataset of the images at `indices` (int, or bool `[N]`), in that order."""
        names = ("images", "labels", "groups", "names", "large", "sources")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        return replace(self, **{name: array[indices] for name, array in found.items() if array is not None})

    def class_counts(self) -> dict[str, int]:
        """Number of images of each class, sorted by class name."""
        return dict(sorted(Counter(self.labels.tolist()).items()))

    def digest(self) -> str:
        """SHA-256 (hex) of names, labels, groups and pixels in order; independent of the files' location."""
        sha = hashlib.sha256(f"{self.images.shape}".encode())
        for column in (self.names, self.labels, self.groups):
            sha.update("\0".join(column.tolist()).encode() + b"\1")
        sha.update(np.ascontiguousarray(self.images).data)
        return sha.hexdigest()


def from_lesions(*, size: int, positives: int, negatives: int, seed: int) -> Dataset:
    """Draw the embedded procedural images: `positives` of the training class, `negatives` of all others."""
    from mim_jax.data.synthetic import lesions

    counts = lesions.quick_counts(positives, negatives)
    images, *columns = lesions.lesion_images(counts, size=size, seed=seed)
    labels, groups, names = (np.array(column, dtype=str) for column in columns)
    return Dataset(
        images=images,
        labels=labels,
        groups=groups,
        names=names,
        source="procedural lesions",
        positive=lesions.CLASS_GROUPS["training"][0],
        grouped=True,
    )


def printable(value: object) -> str:
    r"""Return `value` as one line of text, escaping non-UTF-8 bytes, line breaks and control characters.

    Accents are composed (NFC), so that names from macOS, which decomposes them, match those from elsewhere.

    >>> printable("a\tb")
    'a\\tb'
    """
    text = unicodedata.normalize("NFC", str(value))
    return text if text.isprintable() else "".join(map(_written_out, text))


def _written_out(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a non-UTF-8 byte of a file name, as Python decodes it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
