"""The detector of the paper: mask -> inpaint -> measure -> decide, by the trained folds of a run."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mim_jax import mask
from mim_jax.data.batches import Images, check_batch, collect, padded_batches
from mim_jax.decide.decision import Calibration
from mim_jax.decide.novelty_detector import NoveltyDetector, describe
from mim_jax.inpaint.inference import inpaint_all, network_fill
from mim_jax.measure import METRICS
from mim_jax.measure import images as pixels
from mim_jax.measure.host import checked_range
from mim_jax.measure.similarity import Measure, Similarities

# images [B, S, S, 3], offset, M -> patches [B, M, M, 3]
Fill = Callable[[jax.Array, tuple[int, int], int], jax.Array]


@dataclass(frozen=True, eq=False)
class Detector(NoveltyDetector):
    """One trained generator per fold, and a threshold.

    Attributes:
      generator: the Flax module.
      variables: {"params", "batch_stats"} of each fold.
      image_size: side of the input images in pixels.
      mask_size: side of the hole in pixels.
      threshold_origin: a phrase that names the data the threshold was fitted on.
      measure: the metric and its options.
      model: name and options of the generator, and both sizes, as an export needs them.
      threshold, calibration, notice: as in `NoveltyDetector`.
    """

    generator: nn.Module
    variables: Sequence[Any]
    image_size: int
    mask_size: int
    threshold: float | None = None
    threshold_origin: str = ""
    measure: Measure = field(default_factory=Measure)
    model: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    notice: str = ""

    def __repr__(self) -> str:
        return describe(
            self,
            network=self.model.get("generator", type(self.generator).__name__),
            folds=len(self.variables),
            image_size=self.image_size,
            mask_size=self.mask_size,
            metric=self.measure.metric,
        )

    @property
    def metric(self) -> str:  # type: ignore[override]
        return self.measure.metric

    @property
    def metrics(self) -> tuple[str, ...]:
        return METRICS

    @property
    def folds(self) -> int:
        return len(self.variables)

    @property
    def min_side(self) -> int:
        """Minimum length in pixels of the shorter side of an image file: the side of the hole."""
        return self.mask_size

    @property
    def networks(self) -> Any:
        """Weights of a single-fold detector; a calibration is tied to it by their hash."""
        return self.variables[0]

    @property
    def margin(self) -> int:
        """Width in pixels of the border around the hole that is hidden as well."""
        return self.model.get("margin", 0)  # a detector built by hand need not describe its model

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, fold: int | None = None) -> "Detector":
        """Load MIM of a finished workdir: all folds, whose scores are averaged, or one of them.

        Raises:
          ValueError: not a workdir; no such fold; a checkpoint that is missing, damaged or of another
            network; or a run that decides by another detector.
        """
        from mim_jax.detector.workdir import load_workdir, read_decision  # they build detectors

        root = Path(path).expanduser().resolve()
        kind, _ = read_decision(root)
        if kind != "mim":
            raise ValueError(
                f"{root} decides by the detector {kind!r}, not by MIM alone: load it with mim_jax.load(path)"
            )
        loaded: Any = load_workdir(root, fold=fold)
        return loaded

    def of_fold(self, fold: int) -> "Detector":
        """The detector of a single fold, without the calibration of all folds."""
        variables = self.variables[fold : fold + 1]
        return replace(self, variables=variables, threshold=None, calibration=None)

    def pure(self, *, each_fold: bool = False) -> tuple[Callable[[Any, jax.Array], Similarities], Any]:
        """The scorer as `(fn, variables)`, for use inside your own `jit`.

        `fn(variables, images)` returns the five similarities, averaged over folds, or per fold with
        `each_fold`. Images are uint8 or float in [0, 1], `[B, S, S, 3]`; each similarity is float32 `[B]`,
        or `[folds, B]`. Other image sizes raise ValueError when `fn` is traced.
        """

        settings = self.mask_size, self.margin, (self.measure,)

        def fn(variables: Any, images: jax.Array) -> Similarities:
            check_batch(images, self.image_size)
            every = [
                self.measure.reduced(_hole_similarities(self.generator, v, images, *settings)[0])
                for v in variables
            ]
            if each_fold:
                return jax.tree.map(lambda *values: jnp.stack(values), *every)
            return jax.tree.map(lambda *values: sum(values[1:], start=values[0]) / len(values), *every)

        return fn, tuple(self.variables)

    def similarities(self, images: Images) -> dict[str, np.ndarray]:
        return self.measured(images, (self.measure,))[0]

    def measured(self, images: Images, measures: Sequence[Measure]) -> tuple[dict[str, np.ndarray], ...]:
        """`similarities` by each of several measures with equally many holes; each hole is filled once."""
        every = self._every_hole(images, tuple(measures))
        return tuple(
            measure.reduced(scores)._asdict() for measure, scores in zip(measures, every, strict=True)
        )

    def hole_similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Each metric for each hole of `measure` and each fold, float64 `[holes, folds, N]`."""
        return self._every_hole(images, (self.measure,))[0]._asdict()

    def _every_hole(self, images: Images, measures: tuple[Measure, ...]) -> tuple[Similarities, ...]:
        def score(batch: jax.Array) -> list[tuple[Similarities, ...]]:
            settings = self.mask_size, self.margin, measures
            return [_hole_similarities(self.generator, v, batch, *settings) for v in self.variables]

        folds = collect(score, padded_batches(images, size=self.image_size))
        return jax.tree.map(lambda *scores: np.stack(scores, axis=1), *folds)

    def inpaint(self, images: Any, *, fold: int = 0) -> np.ndarray:
        """Inpaint the centre of images by one fold's generator: float32 in [0, 1], `[N, S, S, 3]`.

        Args:
          images: uint8 or float in [0, 1], `[N, S, S, 3]` or `[S, S, 3]`: one array, a list of single images,
            or one PIL image.
          fold: index of the fold, from 0.

        Raises:
          ValueError: images that are not an array or have a wrong size, dtype or range; or no such fold.
        """
        images = checked_range(images)
        if fold not in range(len(self.variables)):
            raise ValueError(f"the detector has folds 0 to {len(self.variables) - 1}, not {fold}")
        images = images[None] if images.ndim == 3 else images
        check_batch(images, self.image_size, wanted="[N, {0}, {0}, 3] or one [{0}, {0}, 3]")
        sizes = {"mask_size": self.mask_size, "margin": self.margin}
        return inpaint_all(self.generator, self.variables[fold], images, **sizes)


def measure_filled(
    fill: Fill, images: np.ndarray, *, mask_size: int, measure: Measure
) -> dict[str, np.ndarray]:
    """Each metric, float64 `[N]`, for `images` `[N, S, S, 3]` with the hole filled by `fill`.

    The fill is called outside the compiled program, because some fills run on the host.
    """

    def score(batch: jax.Array) -> Similarities:
        offset = mask.center_offset(batch.shape[1], mask_size)
        patches = fill(_as_float(batch), offset, mask_size)
        return _patch_similarities(batch, patches, mask_size, measure)

    return collect(score, padded_batches(images, size=images.shape[1]))._asdict()


_as_float = jax.jit(pixels.as_float)


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _hole_similarities(
    generator: nn.Module,
    variables: Any,
    images: jax.Array,
    mask_size: int,
    margin: int,
    measures: tuple[Measure, ...],
) -> tuple[Similarities, ...]:
    """Each metric `[holes, B]` by each measure, one hole after the other."""

    def score(offset: jax.Array | tuple[int, int]) -> tuple[Similarities, ...]:
        sizes = {"mask_size": mask_size, "margin": margin}
        patches = network_fill(generator, variables, images, offset, **sizes)
        return tuple(measure.compare(images, patches, offset) for measure in measures)

    (holes,) = {measure.holes for measure in measures}
    offsets = mask.grid_offsets(images.shape[1], mask_size, holes)
    if len(offsets) == 1:
        return jax.tree.map(lambda scores: scores[None], score(offsets[0]))
    return jax.lax.map(score, jnp.array(offsets, jnp.int32))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _patch_similarities(
    images: jax.Array, patches: jax.Array, mask_size: int, measure: Measure
) -> Similarities:
    return measure.compare(images, patches, mask.center_offset(images.shape[1], mask_size))
