"""The detector that trains nothing: histograms in a frozen network against those of training images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.data.batches import Images, check_batch, collect, padded_batches
from mim_jax.decide.decision import Calibration
from mim_jax.decide.novelty_detector import NoveltyDetector, describe
from mim_jax.features.backbone import Backbone
from mim_jax.features.histograms import channel_histograms, color_histogram
from mim_jax.features.one_class import Histograms, Reference, fit, score

# variables, images uint8 or float in [0, 1] [B, S, S, 3] -> score name -> [B], or [folds, B]
PureScorer = Callable[[Any, jax.Array], dict[str, jax.Array]]
FEATURES, COLOR, BOTH = "features", "color", "features_color"


@dataclass(frozen=True, eq=False)
class FeatureDetector(NoveltyDetector):
    """A frozen network, the histograms of the training images in it, and a threshold.

    >>> halves = Backbone("mine", lambda weights, images: {"halves": images[:, ::2, ::2]}, image_size=8)
    >>> images = np.asarray(jax.random.uniform(jax.random.key(0), (20, 8, 8, 3)))
    >>> detector = fit_detector(halves, images, groups=np.arange(20), training=[np.arange(20)])
    >>> detector.score_samples(images[:3]).shape
    (3,)

    Attributes:
      backbone: the frozen network.
      references: what images are compared with, by component: "features", and "color" where colours count.
      metric: the score that decides: "features", or "features_color", the mean of both components.
      threshold, threshold_origin, calibration, notice: as of `mim_jax.detector.Detector`.
    """

    backbone: Backbone
    references: Mapping[str, Reference]
    metric: str = FEATURES
    threshold: float | None = None
    threshold_origin: str = ""
    calibration: Calibration | None = None
    notice: str = ""

    def __repr__(self) -> str:
        return describe(
            self,
            backbone=self.backbone.name,
            folds=self.folds,
            image_size=self.image_size,
            metric=self.metric,
        )

    @property
    def image_size(self) -> int:  # type: ignore[override]
        """Pixels a side of the images it takes."""
        return self.backbone.image_size

    @property
    def folds(self) -> int:
        return len(self.references[FEATURES].joined.median)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores, the deciding one among them."""
        return (FEATURES, COLOR, BOTH) if COLOR in self.references else (FEATURES,)

    def of_fold(self, fold: int) -> "FeatureDetector":
        """The detector of one fold alone, without the calibration of all."""
        references = {name: reference.of_fold(fold) for name, reference in self.references.items()}
        return FeatureDetector(self.backbone, references, self.metric)

    @property
    def networks(self) -> Any:
        """Weights, by whose hash a calibration knows the detector."""
        return self.pure()[1]

    def pure(self, *, each_fold: bool = False) -> tuple[PureScorer, Any]:
        """The scorer as `(fn, variables)`, for use inside other code's `jit`.

        `fn(variables, images)` takes uint8 or float in [0, 1], `[B, S, S, 3]`, and gives each of `metrics`,
        float32 `[B]` averaged over folds, or `[folds, B]` of `each_fold`.
        """
        backbone = self.backbone

        def fn(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
            check_batch(images, backbone.image_size)
            network = Backbone(backbone.name, backbone.apply, backbone.image_size, variables["backbone"])
            found = {
                name: score(reference, histograms(network, images, name))
                for name, reference in variables["references"].items()
            }
            return _averaged(with_join(found), each_fold)

        return fn, {"backbone": backbone.weights, "references": dict(self.references)}

    def similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Each of `metrics` for each fold, float64 `[folds, N]`; images as `score_samples`."""
        return score_batches(self, images)


def fit_detector(
    backbone: Backbone,
    images: Images,
    *,
    groups: np.ndarray,
    training: Sequence[np.ndarray],
    color: bool = False,
    kinds: Sequence[str] = ("nearest", "mahalanobis"),
    seed: int = 0,
    described: Mapping[str, Histograms] | None = None,
) -> FeatureDetector:
    """Fit a detector on images of one class.

    Args:
      backbone: the frozen network.
      images: of the training class, `[T, S, S, 3]`, as `FeatureDetector.score_samples` takes them.
      groups: the group (patient, say) of each, `[T]`.
      training: for each fold the positions of its training images.
      color: compare colours as well.
      kinds: of scores, some of `mim_jax.features.one_class.KINDS`.
      seed: of the inner folds that units come from.
      described: what `describe_images` gave for these images, where it is known.

    Raises:
      ValueError: images of another size than the backbone takes; too few for the folds; an unknown kind.
    """
    names = (FEATURES, COLOR) if color else (FEATURES,)
    found = described if described is not None else describe_images(backbone, images, names)
    references = {
        name: fit(found[name], groups, training, kinds=kinds if name == FEATURES else ("nearest",), seed=seed)
        for name in names
    }
    return FeatureDetector(backbone, references, BOTH if color else FEATURES)


def describe_images(
    backbone: Backbone, images: Images, components: Sequence[str] = (FEATURES,)
) -> dict[str, dict[str, np.ndarray]]:
    """Histograms of images by component and layer, float32 `[N, C]` each."""

    def describe(batch: Any) -> dict[str, dict[str, jax.Array]]:
        # The images' axis last, as `collect` joins them.
        return {name: jax.tree.map(jnp.transpose, histograms(backbone, batch, name)) for name in components}

    none = jax.eval_shape(describe, jax.ShapeDtypeStruct((1, *(backbone.image_size,) * 2, 3), jnp.uint8))
    empty = jax.tree.map(lambda leaf: np.zeros((leaf.shape[0], 0)), none)
    found = collect(jax.jit(describe), padded_batches(images, size=backbone.image_size), empty)
    return jax.tree.map(lambda leaf: np.ascontiguousarray(leaf.T, np.float32), found)


def score_batches(detector: Any, images: Images) -> dict[str, np.ndarray]:
    """Score images batch by batch with `detector.pure(each_fold=True)`: float64 `[folds, N]` by metric."""
    fn, variables = detector.pure(each_fold=True)
    program = jax.jit(fn)
    empty = {name: np.zeros((detector.folds, 0)) for name in detector.metrics}
    batches = padded_batches(images, size=detector.image_size)
    found = collect(lambda batch: program(variables, batch), batches, empty)
    return {name: found[name] for name in detector.metrics}  # `jax.jit` sorts names


def histograms(backbone: Backbone, images: jax.Array, component: str) -> dict[str, jax.Array]:
    """Histograms that a component compares, by layer; colours have a single one."""
    return channel_histograms(backbone, images) if component == FEATURES else {COLOR: color_histogram(images)}


def with_join(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores of the components, and their mean where there are both."""
    return scores | {BOTH: (scores[FEATURES] + scores[COLOR]) / 2} if COLOR in scores else scores


def _averaged(scores: dict[str, jax.Array], each_fold: bool) -> dict[str, jax.Array]:
    return scores if each_fold else {name: jnp.mean(values, axis=0) for name, values in scores.items()}
