"""The `Dataset`: images in memory with their labels, groups and names."""

import hashlib
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

# What everything made of the embedded images says.
NOTICE = "These are procedural images. They prove that the machinery runs and say nothing about mpox."


@dataclass(frozen=True, eq=False)
class Dataset:
    """N images that fit in memory, with their labels, groups and names. The arrays are aligned."""

    images: np.ndarray  # uint8 `[N, S, S, 3]`, RGB
    labels: np.ndarray  # str `[N]`, class names
    # str `[N]`; images of one patient, lesion or photograph share a group and must not be split
    groups: np.ndarray
    names: np.ndarray  # str `[N]`, path relative to the root with "/" between its parts
    source: str  # where the images come from, for people to read
    positive: str  # the class the network is trained on
    # uint8 `[N, L, L, 3]`: the same images for a network that needs larger ones; None = `images`
    large: np.ndarray | None = None
    sources: np.ndarray | None = (
        None  # str `[N]`, where each file comes from, as the manifest says; None = unsaid
    )
    grouped: bool = False  # True where the groups are known; otherwise each image is a group of its own
    unusable: tuple[tuple[str, str], ...] = ()  # (name, reason) of every image that was left out
    # (name, reason) of what lies there and is not read: hidden, of the system, or not an image by its name
    passed_over: tuple[tuple[str, str], ...] = ()
    # (name, what is wrong) where the manifest or the group pattern does not fit the files
    group_problems: tuple[tuple[str, str], ...] = ()
    # (name, why) of images that the input gate would refuse, and that are here all the same
    doubtful: tuple[tuple[str, str], ...] = ()
    # names of near-duplicates that were brought into one group, a tuple a set
    duplicates: tuple[tuple[str, ...], ...] = ()
    remarks: tuple[str, ...] = ()  # sentences for people, such as counts that are not those of the paper

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
        """Sorted indices of the negatives without a group in common with the positives."""
        return np.setdiff1d(self.negatives, self.shared_negatives)

    def select(self, indices: np.ndarray) -> "Dataset":
        """Dataset of the images at `indices` (int, or bool `[N]`), in that order."""
        return replace(
            self,
            images=self.images[indices],
            large=None if self.large is None else self.large[indices],
            sources=None if self.sources is None else self.sources[indices],
            labels=self.labels[indices],
            groups=self.groups[indices],
            names=self.names[indices],
        )

    def class_counts(self) -> dict[str, int]:
        """Number of images of each class, sorted by class name."""
        return dict(sorted(Counter(self.labels.tolist()).items()))

    def digest(self) -> str:
        """SHA-256 (hex) over names, labels, groups and pixels in their order, wherever the files are."""
        sha = hashlib.sha256(f"{self.images.shape}".encode())
        for column in (self.names, self.labels, self.groups):
            sha.update("\0".join(column.tolist()).encode() + b"\1")
        sha.update(np.ascontiguousarray(self.images).data)
        return sha.hexdigest()


def from_lesions(*, size: int, positives: int, negatives: int, seed: int) -> Dataset:
    """Draw the embedded procedural images: `positives` of the training class, `negatives` of all others."""
    from mim_jax.data.synthetic import lesions

    counts = lesions.quick_counts(positives, negatives)
    images, labels, groups, names = lesions.lesion_images(counts, size=size, seed=seed)
    return Dataset(
        images=images,
        labels=np.array(labels, dtype=str),
        groups=np.array(groups, dtype=str),
        names=np.array(names, dtype=str),
        source="procedural lesions",
        positive=lesions.CLASS_GROUPS["training"][0],
        grouped=True,
    )


def printable(value: object) -> str:
    r"""Text of `value` on one line: bytes that are not UTF-8, breaks, control characters written out.

    Accents are composed (NFC), so that a name is the same from macOS, which takes them apart, and elsewhere.

    >>> printable("a\tb")
    'a\\tb'
    """
    text = unicodedata.normalize("NFC", str(value))
    return text if text.isprintable() else "".join(map(_written_out, text))


def _written_out(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a file name that is not UTF-8, as Python reads it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
