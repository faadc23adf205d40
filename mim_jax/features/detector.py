"""The detector that trains nothing: histograms in a frozen network against those of training images."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mim_jax.data.batches import Images, check_batch, collect, padded_batches
from mim_jax.decide.decision import Calibration
from mim_jax.decide.novelty_detector import NoveltyDetector, describe
from mim_jax.features.backbone import Apply, Backbone
from mim_jax.features.histograms import channel_histograms, color_histogram
from mim_jax.features.one_class import Histograms, Reference, fit, score

# variables, images uint8 or float in [0, 1] [B, S, S, 3] -> score name -> [B], or [folds, B]
PureScorer = Callable[[Any, jax.Array], dict[str, jax.Array]]
Program = tuple[Callable[..., Any], Any]  # a compiled `PureScorer`, and its variables
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

    @staticmethod
    def join(detectors: "Sequence[FeatureDetector]") -> "FeatureDetector":
        """Put the detectors of single folds together again: one pass of the network serves all."""
        first = detectors[0]
        references = {
            name: Reference.join([each.references[name] for each in detectors]) for name in first.references
        }
        return FeatureDetector(first.backbone, references, first.metric)

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
        return score_batches(self, self.program, images)

    @functools.cached_property
    def program(self) -> Program:
        """The scorer of each fold, compiled once, and its variables."""
        return compiled(self)


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

    describe = functools.partial(_describe, backbone.apply, tuple(components), backbone.weights)
    none = jax.eval_shape(describe, jax.ShapeDtypeStruct((1, *(backbone.image_size,) * 2, 3), jnp.uint8))
    empty = jax.tree.map(lambda leaf: np.zeros((leaf.shape[0], 0)), none)
    found = collect(describe, padded_batches(images, size=backbone.image_size), empty)
    return jax.tree.map(lambda leaf: np.ascontiguousarray(leaf.T, np.float32), found)


# Of the module, not of a call: it is compiled once a network, however often images are described.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _describe(
    apply: Apply, components: tuple[str, ...], weights: Any, images: Any
) -> dict[str, dict[str, jax.Array]]:
    backbone = Backbone("", apply, images.shape[1], weights)
    # The images' axis last, as `collect` joins them.
    return {name: jax.tree.map(jnp.transpose, histograms(backbone, images, name)) for name in components}


def compiled(detector: Any) -> Program:
    """The scorer of each fold and its variables; a detector keeps it, so that it is compiled once."""
    fn, variables = detector.pure(each_fold=True)
    return jax.jit(fn), variables


def score_batches(detector: Any, program: Program, images: Images) -> dict[str, np.ndarray]:
    """Score images batch by batch by a detector's `compiled` program: float64 `[folds, N]` by metric."""
    score_batch, variables = program
    empty = {name: np.zeros((detector.folds, 0)) for name in detector.metrics}
    batches = padded_batches(images, size=detector.image_size)
    found = collect(lambda batch: score_batch(variables, batch), batches, empty)
    return {name: found[name] for name in detector.metrics}  # `jax.jit` sorts names


def histograms(backbone: Backbone, images: jax.Array, component: str) -> dict[str, jax.Array]:
    """Histograms that a component compares, by layer; colours have a single one."""
    return channel_histograms(backbone, images) if component == FEATURES else {COLOR: color_histogram(images)}


def with_join(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores of the components, and their mean where there are both."""
    return scores | {BOTH: (scores[FEATURES] + scores[COLOR]) / 2} if COLOR in scores else scores


def _averaged(scores: dict[str, jax.Array], each_fold: bool) -> dict[str, jax.Array]:
    return scores if each_fold else {name: jnp.mean(values, axis=0) for name, values in scores.items()}
