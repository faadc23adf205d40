"""What the page shows for one image, as a function that jax2onnx can convert: scores, inpainting and maps.

It is built from the detector's own functions, with the folded generator, and with the four mirror images of
an image as one batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mim_jax import mask
from mim_jax.data.resize import shrink
from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.deploy import fuse
from mim_jax.detector import CombinedDetector, Detector
from mim_jax.detector.combined import join_scores
from mim_jax.features.detector import COLOR, FEATURES, FeatureDetector, with_join
from mim_jax.features.histograms import color_histogram, mirrored, shares, spread_of
from mim_jax.features.one_class import Units, score
from mim_jax.features.unlikeness import feature_map
from mim_jax.inpaint.inference import network_fill
from mim_jax.measure.images import as_float
from mim_jax.measure.ssim import ssim

SCORES = "similarities"
OF_MIM, OF_FEATURES = ("inpainted", "map"), ("unlikeness",)
Shown = dict[str, jax.Array]


def outputs(detector: NoveltyDetector) -> tuple[str, ...]:
    """Return the names of the outputs of `viewer`, in order."""
    of_mim = () if isinstance(detector, FeatureDetector) else OF_MIM
    return (SCORES, *of_mim, *(() if isinstance(detector, Detector) else OF_FEATURES))


def viewer(detector: NoveltyDetector) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    """Make the app's function of one image, uint8 `[S, S, 3]`, from a single-fold detector.

    It returns, in the order of `outputs`:
      similarities: each score, float32, in the order of `detector.metrics`;
      inpainted: MIM's input image with its centre filled in, uint8 `[M, M, 3]`;
      map: SSIM of the two, float32 `[M, M]`: the mean over channels of the window around each pixel; 1 along
        the border, where no window is centred;
      unlikeness: map as in `mim_jax.features.unlikeness`, float32 `[S, S]`.

    Raises:
      ValueError: several folds, or an unsupported kind of detector.
    """
    if detector.folds != 1:
        raise ValueError(
            f"the app holds one fold, but this detector has {detector.folds}: load it with fold=0"
        )
    names, metrics = outputs(detector), detector.metrics
    view: Callable[[jax.Array], tuple[Shown, Shown]]
    match detector:
        case Detector():
            view = _mim_view(detector)
        case FeatureDetector():
            view = _feature_view(detector)
        case CombinedDetector():
            view = _combined_view(detector)
        case _:
            raise ValueError(f"the app cannot hold {type(detector).__name__}: load one with mim_jax.load")

    def ordered(image: jax.Array) -> tuple[jax.Array, ...]:
        scores, shown = view(image)
        joined = jnp.concatenate([scores[metric].reshape(1) for metric in metrics])
        return (joined, *(shown[name] for name in names[1:]))

    return ordered


def _mim_view(detector: Detector) -> Callable[[jax.Array], tuple[Shown, Shown]]:
    size, measure = detector.image_size, detector.measure
    generator, variables = fuse.fold(detector.generator, detector.variables[0], image_size=size)
    sizes = {"mask_size": detector.mask_size, "margin": detector.margin}
    center = mask.center_offset(size, detector.mask_size)
    offsets = mask.grid_offsets(size, detector.mask_size, measure.holes)

    def view(image: jax.Array) -> tuple[Shown, Shown]:
        batch = image[None]
        patches = {
            offset: network_fill(generator, variables, batch, offset, **sizes)
            for offset in dict.fromkeys((*offsets, center))
        }
        scores = [measure.compare(batch, patches[offset], offset) for offset in offsets]
        joined = measure.reduced(jax.tree.map(lambda *values: jnp.stack(values), *scores))
        inpainted = mask.paste(as_float(image), patches[center][0], center)
        windows = jnp.mean(ssim(as_float(image), inpainted, return_map=True), axis=-1)
        before = (size - len(windows)) // 2
        edge = (before, size - len(windows) - before)
        return joined._asdict(), {
            "inpainted": jnp.round(255 * jnp.clip(inpainted, 0, 1)).astype(jnp.uint8),
            "map": jnp.pad(windows, (edge, edge), constant_values=1.0),
        }

    return view


def _feature_view(detector: FeatureDetector) -> Callable[[jax.Array], tuple[Shown, Shown]]:
    references = {name: reference.own() for name, reference in detector.references.items()}

    def view(image: jax.Array) -> tuple[Shown, Shown]:
        features = detector.backbone.features(mirrored(as_float(image)[None])[:, 0])
        spreads = {layer: jnp.mean(spread_of(x), axis=0, keepdims=True) for layer, x in features.items()}
        found = {FEATURES: {layer: shares(spread) for layer, spread in spreads.items()}}
        if COLOR in references:
            found[COLOR] = {COLOR: color_histogram(image[None])}
        scores = {name: score(references[name], histograms) for name, histograms in found.items()}
        upright = {layer: x[:1] for layer, x in features.items()}
        drawn = feature_map(references[FEATURES], upright, detector.image_size)[0]
        return with_join(scores), {"unlikeness": drawn}

    return view


def _combined_view(detector: CombinedDetector) -> Callable[[jax.Array], tuple[Shown, Shown]]:
    mim, features = _mim_view(detector.mim), _feature_view(detector.features)
    units = Units(*detector.units_of_mim())

    def view(image: jax.Array) -> tuple[Shown, Shown]:
        similarities, painted = mim(shrink(as_float(image)[None], detector.mim.image_size)[0])
        scores, drawn = features(image)
        joined = join_scores(similarities[detector.mim.metric].reshape(1, 1), units, scores)
        return {**similarities, **scores, detector.metric: joined}, {**painted, **drawn}

    return view
