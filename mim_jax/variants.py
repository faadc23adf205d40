"""Other ways to make a score of the same networks; none of them sees a test image before it scores it.

"complexity_corrected": MIM's score less what blur, contrast and colour predict of it on other mpox images.
"feature_neighbors": nearness to the training images in the discriminator's features of the centre.
"combined": the conformal p-values of MIM's score, of those neighbours and of the colour neighbours, as one.
What is fitted for a fold is fitted on its training images, or on the test positives of the other folds, each
scored by the fold that has not trained on it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mim_jax import mask, refinements
from mim_jax.data.dataset import Dataset
from mim_jax.decide import conformal
from mim_jax.evaluate.folds import TrainedFold
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.test_set import Bank
from mim_jax.features import complexity_features, discriminator_features


def refined_scores(
    dataset: Dataset,
    bank: Bank,
    parts: Sequence[np.ndarray],
    folds: Sequence[TrainedFold],
    methods: Mapping[str, Sequence[ScoredImages]],
) -> dict[str, list[np.ndarray]]:
    """Variant -> the scores of each fold's test images, in the order of `parts`.

    Args:
      dataset: where the images come from.
      bank: the test images.
      parts: for each fold the positions in the bank that it is tested on.
      folds: the networks.
      methods: "mim" and "color_neighbors", as scored.
    """
    metric = folds[0].detector.measure.metric
    mim = [fold.similarities[metric] for fold in methods["mim"]]
    color = [fold.similarities["score"] for fold in methods["color_neighbors"]]
    near = [_neighbors(dataset, bank, part, fold) for part, fold in zip(parts, folds, strict=True)]
    plain = [np.flatnonzero(fold.plain & fold.positive) for fold in methods["mim"]]
    complexity = complexity_features(bank.images)

    corrected, combined = [], []
    for k, part in enumerate(parts):
        others = [j for j in range(len(parts)) if j != k]
        correction = refinements.fit_correction(
            np.concatenate([complexity[parts[j][plain[j]]] for j in others]),
            np.concatenate([mim[j][plain[j]] for j in others]),
            groups=np.concatenate([methods["mim"][j].groups[plain[j]] for j in others]),
        )
        corrected.append(correction.residual(complexity[part], mim[k]))
        combined.append(
            refinements.combine(
                [
                    conformal.p_values(np.concatenate([column[j][plain[j]] for j in others]), column[k])
                    for column in (mim, near, color)
                ]
            )
        )
    return {"complexity_corrected": corrected, "feature_neighbors": near, "combined": combined}


def _neighbors(dataset: Dataset, bank: Bank, part: np.ndarray, fold: TrainedFold) -> np.ndarray:
    size, side = fold.detector.mask_size, fold.detector.image_size
    row, column = mask.center_offset(side, size)

    def features(images: np.ndarray) -> np.ndarray:
        centres = images[:, row : row + size, column : column + size].astype(np.float32) / 127.5 - 1
        return discriminator_features(fold.discriminator, fold.state.discriminator_params, centres)

    return refinements.neighbor_scores(features(bank.images[part]), features(dataset.images[fold.train]))
