"""The scored test images of a fold: what every table, interval and decision is computed from."""

from dataclasses import dataclass, fields

import numpy as np


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
      similarities: metric name -> float64 `[n]`; high = mpox-like. A control may hold one score alone.
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


def two_sides(
    similarities: dict[str, np.ndarray], positive_groups: np.ndarray, negative_groups: np.ndarray
) -> ScoredImages:
    """Positives, then negatives, of which nothing but the groups is known; none is a copy."""
    groups = np.concatenate((np.asarray(positive_groups, str), np.asarray(negative_groups, str)))
    positive = np.arange(len(groups)) < len(positive_groups)
    return ScoredImages(
        names=np.array([f"image {i}" for i in range(len(groups))]),
        classes=np.where(positive, "positive", "negative"),
        groups=groups,
        copies=np.zeros(len(groups), int),
        positive=positive,
        augmented=np.ones(len(groups), bool),
        plain=np.ones(len(groups), bool),
        similarities=similarities,
    )
