"""Trained folds -> inpainted images, similarities, decisions: what people import to use a model.

The shape is scikit-learn's of novelty detection: `score_samples` is high for images like the training class,
`predict` gives 1 for them and -1 for the rest. A score never depends on what else is in the batch.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mim_jax import artefact, masks, pixels, workdir
from mim_jax.batches import Images, collect, padded_batches
from mim_jax.models import make_generator
from mim_jax.novelty import NoveltyDetector
from mim_jax.similarity import METRICS, Similarities, composite_similarities
from mim_jax.training import from_network_range, to_network_range

# images [B, S, S, 3], offset, M -> patches [B, M, M, 3]
Fill = Callable[[jax.Array, tuple[int, int], int], jax.Array]


@dataclass(frozen=True)
class Measure:
    """How an image is compared with its inpainting; see `mim_jax.similarity`."""

    metric: str = "ssim_hbd"  # the one that scores
    window: str = "gaussian"
    bins: int = 256
    region: str = "image"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric {self.metric!r}: choose one of {', '.join(METRICS)}")

    def __call__(self, images: jax.Array, patches: jax.Array, mask_size: int) -> Similarities:
        """Similarities `[B]` of images `[B, S, S, 3]` and their inpaintings."""
        offset = masks.center_offset(images.shape[1], mask_size)
        return composite_similarities(
            images, patches, offset, region=self.region, window=self.window, bins=self.bins
        )


def network_fill(generator: nn.Module, variables: Any, images: jax.Array, mask_size: int) -> jax.Array:
    """The central hole as a trained generator paints it.

    Images `[B, S, S, 3]` -> patches `[B, M, M, 3]` in [0, 1].
    """
    offset = masks.center_offset(images.shape[1], mask_size)
    x = to_network_range(images)
    masked = jax.vmap(lambda image: masks.hide(image, offset, mask_size=mask_size))(x)
    patch: Any = generator.apply(variables, masked, train=False)
    return from_network_range(patch)


@dataclass(frozen=True, eq=False)
class Detector(NoveltyDetector):
    """One generator a fold, and a threshold.

    Attributes:
      generator: the Flax module.
      variables: for each fold {"params", "batch_stats"}.
      image_size: pixels a side of what the network takes.
      mask_size: pixels a side of the hole.
      threshold: an image whose score is strictly greater is like the training class; None = not calibrated.
      threshold_origin: what the threshold was fitted on, for people to read.
      measure: metric and its options.
      model: the name and options that `make_generator` had, and both sizes; what an export needs.
    """

    generator: nn.Module
    variables: Sequence[Any]
    image_size: int
    mask_size: int
    threshold: float | None = None
    threshold_origin: str = ""
    measure: Measure = field(default_factory=Measure)
    model: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, fold: int | None = None) -> "Detector":
        """The detector of a finished workdir: all folds, whose scores are averaged, or one of them.

        Raises:
          ValueError: not a workdir, no such fold, or a checkpoint that is missing, damaged or of another
            network.
        """
        # Orbax takes a second to import, and scoring arrays does not need it.
        from mim_jax.checkpoints import FoldCheckpoints

        root = Path(path).expanduser().resolve()
        config = workdir.read_json(root / "config.json")
        folds = range(config["data"]["folds"])
        if fold is not None and fold not in folds:
            raise ValueError(f"{root} has folds 0 to {len(folds) - 1}, not {fold}")
        model: dict[str, Any] = {}
        variables = []
        for k in folds if fold is None else [fold]:
            with FoldCheckpoints(root / f"fold_{k}" / "checkpoints", read_only=True) as checkpoints:
                model = checkpoints.model()
                generator = make_generator(model["generator"], model["options"], dtype=jnp.float32)
                variables.append(
                    checkpoints.generator_variables(abstract_variables(generator, model["image_size"]))
                )
        threshold, origin, measure = None, "", Measure()
        if (root / "calibration.json").exists():
            calibration = workdir.read_json(root / "calibration.json")
            threshold = calibration["pooled"] if fold is None else calibration["alone"][fold]
            origin, measure = calibration["origin"], Measure(**calibration["measure"])
        return cls(
            generator, variables, model["image_size"], model["mask_size"], threshold, origin, measure, model
        )

    @classmethod
    def from_export(cls, path: str | os.PathLike[str]) -> "Detector":
        """The detector that `mim_jax.export.export` wrote: from its weights and config.json, as a network.

        Raises:
          ValueError: not an export, damaged, or of another network.
        """
        config, weights = artefact.read_weights(path)
        model = config["model"]
        generator = make_generator(model["generator"], model["options"], dtype=jnp.float32)
        artefact.check_weights(weights, abstract_variables(generator, model["image_size"]))
        measure = Measure(**config["measure"])
        sizes = model["image_size"], model["mask_size"]
        return cls(generator, weights, *sizes, config["threshold"], config["origin"], measure, model)

    def pure(self) -> tuple[Callable[[Any, jax.Array], Similarities], Any]:
        """`(fn, variables)` for use inside other code's `jit`.

        `fn(variables, images)` gives the five similarities, averaged over folds.

        Images are uint8 or float in [0, 1], `[B, S, S, 3]`; each similarity is float32 `[B]`.
        """

        def fn(variables: Any, images: jax.Array) -> Similarities:
            every = [
                self.measure(images, network_fill(self.generator, v, images, self.mask_size), self.mask_size)
                for v in variables
            ]
            return jax.tree.map(lambda *values: sum(values[1:], start=values[0]) / len(values), *every)

        return fn, tuple(self.variables)

    def similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Each metric for each fold, float64 `[folds, N]`; images as `score_samples`."""

        def score(batch: np.ndarray) -> Similarities:
            folds = [
                _network_similarities(self.generator, variables, batch, self.mask_size, self.measure)
                for variables in self.variables
            ]
            return jax.tree.map(lambda *scores: jnp.stack(scores), *folds)

        empty = Similarities(*np.zeros((len(METRICS), len(self.variables), 0)))
        return collect(score, padded_batches(images, size=self.image_size), empty)._asdict()

    def score_samples(self, images: Images) -> np.ndarray:
        """The chosen metric averaged over folds, float64 `[N]`; high = like the training class.

        Args:
          images: uint8, or float in [0, 1]: `[N, S, S, 3]`, also memory-mapped; one `[S, S, 3]`; or an
            iterable of single images, which is read a batch at a time and may be longer than memory.
        """
        return self.similarities(images)[self.measure.metric].mean(axis=0)

    def inpaint(self, images: np.ndarray | jax.Array, *, fold: int = 0) -> np.ndarray:
        """The images with their centre as the generator of one fold paints it.

        Float32 in [0, 1], `[N, S, S, 3]`.
        """
        return inpaint_all(self.generator, self.variables[fold], images, mask_size=self.mask_size)


def abstract_variables(generator: nn.Module, image_size: int) -> Any:
    """Shapes and dtypes of the generator's variables."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(lambda key, x: generator.init(key, x, train=True), key, images)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def measure_all(
    generator: nn.Module, variables: Any, images: np.ndarray, *, mask_size: int, measure: Measure
) -> dict[str, np.ndarray]:
    """Each metric for `images` `[N, S, S, 3]`, float64 `[N]`, a batch at a time."""
    return _scores(
        lambda batch: _network_similarities(generator, variables, batch, mask_size, measure), images
    )


def measure_filled(
    fill: Fill, images: np.ndarray, *, mask_size: int, measure: Measure
) -> dict[str, np.ndarray]:
    """As `measure_all`, for a hole filled by a function of `mim_jax.controls`.

    The fill is called outside the compiled program, because some fills run on the host.
    """

    def score(batch: np.ndarray) -> Similarities:
        offset = masks.center_offset(batch.shape[1], mask_size)
        patches = fill(pixels.as_float(jnp.asarray(batch)), offset, mask_size)
        return _patch_similarities(batch, patches, mask_size, measure)

    return _scores(score, images)


def inpaint_all(
    generator: nn.Module, variables: Any, images: np.ndarray | jax.Array, *, mask_size: int
) -> np.ndarray:
    """Composites: `images` with their centre painted, float32 in [0, 1], `[N, S, S, 3]`."""
    shape = images.shape if images.ndim == 4 else (1, *images.shape)
    batches = padded_batches(images, size=shape[1])
    done = [np.asarray(_composite(generator, variables, batch, mask_size))[:n] for batch, n in batches]
    return np.concatenate(done) if done else np.zeros(shape, np.float32)


def _scores(score: Callable[[np.ndarray], Similarities], images: np.ndarray) -> dict[str, np.ndarray]:
    empty = Similarities(*np.zeros((len(METRICS), 0)))
    return collect(score, padded_batches(images, size=images.shape[1]), empty)._asdict()


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _network_similarities(
    generator: nn.Module, variables: Any, images: jax.Array, mask_size: int, measure: Measure
) -> Similarities:
    return measure(images, network_fill(generator, variables, images, mask_size), mask_size)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _patch_similarities(
    images: jax.Array, patches: jax.Array, mask_size: int, measure: Measure
) -> Similarities:
    return measure(images, patches, mask_size)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _composite(generator: nn.Module, variables: Any, images: jax.Array, mask_size: int) -> jax.Array:
    patches = network_fill(generator, variables, images, mask_size)
    offset = masks.center_offset(images.shape[1], mask_size)
    return jax.vmap(lambda image, patch: masks.paste(image, patch, offset))(pixels.as_float(images), patches)
