"""A trained classifier of one fold as something that scores images."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from mim_jax.classifiers import ood_scores
from mim_jax.classifiers.step import normalize
from mim_jax.data.batches import Images, collect, padded_batches


@dataclass(frozen=True, eq=False)
class Classifier:
    """One network and its variables.

    Attributes:
      network: images `[B, S, S, 3]`, train= -> logits `[B, C]`, features `[B, F]`.
      variables: {"params", "batch_stats"}.
      image_size: S.
    """

    network: nn.Module
    variables: Any
    image_size: int

    def outputs(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Logits `[N, C]` and features `[N, F]`, float64; images as for MIM's `score_samples`."""
        run = functools.partial(_outputs, self.variables, network=self.network)
        one = jax.ShapeDtypeStruct((1, self.image_size, self.image_size, 3), np.uint8)
        empty = tuple(np.zeros((shape.shape[0], 0)) for shape in jax.eval_shape(run, one))
        logits, features = collect(run, padded_batches(images, size=self.image_size), empty)
        return logits.T, features.T

    def scores(self, images: Images, fitted: ood_scores.Fitted) -> dict[str, np.ndarray]:
        """Every score of `openset.SCORES`, float64 `[N]`; high = like the positive class, or known."""
        return ood_scores.score(*self.outputs(images), fitted)


@functools.partial(jax.jit, static_argnames="network")
def _outputs(variables: Any, images: jax.Array, *, network: nn.Module) -> tuple[jax.Array, jax.Array]:
    """Logits and features with the images on their last axis, as `collect` joins them."""
    outputs: Any = network.apply(variables, normalize(images), train=False)
    logits, features = outputs
    return logits.T, features.T
