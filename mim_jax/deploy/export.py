"""Exports: a trained detector as one folder that scores images with JAX, NumPy and safetensors alone.

`export` writes it, `load_exported` checks and loads it. The scorer is a StableHLO program (`jax.export`) for
CPU and CUDA and for any number of images; files and their hashes are in `mim_jax.deploy.format`. Nothing is
pickled. The digest that `export` returns names the whole content: give it to `load_exported` where the
folder came over an untrusted way.
"""

import functools
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

import mim_jax
from mim_jax.data.batches import Images, check_batch, collect, padded_batches
from mim_jax.decide.decision import Calibration
from mim_jax.decide.novelty_detector import NoveltyDetector, describe
from mim_jax.deploy import format
from mim_jax.measure import METRICS
from mim_jax.measure.similarity import Similarities

if TYPE_CHECKING:
    from mim_jax.detector import Detector

PLATFORMS = ("cpu", "cuda")
GOLDEN = 8  # images that travel with the weights


def export(detector: "Detector", path: str | os.PathLike[str]) -> str:
    """Write a detector into the folder `path`, whole or not at all; its scorer averages all folds.

    Returns:
      The digest of the export, SHA-256 of its manifest.

    Raises:
      ValueError: the folder exists or lies below a file; the detector has no folds, a threshold that is not
        finite, or a `model` that does not describe its generator.
    """
    with format.new_folder(path) as folder:
        _check_detector(detector)
        fn, variables = detector.pure(each_fold=True)
        scorer = _trace(fn, variables, detector.image_size)
        (folder / format.SCORER).write_bytes(scorer.serialize())
        images = golden_images(detector.image_size)
        scores = np.stack(jax.jit(scorer.call)(format.flatten(variables), images)).mean(axis=1)
        format.save_golden(folder, images, scores.astype(np.float32))
        return format.write(
            folder,
            config={
                "model": dict(detector.model),
                "folds": len(variables),
                "measure": asdict(detector.measure),
                "threshold": None if detector.threshold is None else float(detector.threshold),
                "origin": detector.threshold_origin,
                "calibration": asdict(detector.calibration) if detector.calibration else None,
                "notice": detector.notice,
            },
            weights=variables,
            facts={
                "mim_jax": mim_jax.__version__,
                "jax": jax.__version__,
                "calling_convention": scorer.calling_convention_version,
                "platforms": list(PLATFORMS),
            },
        )


def _check_detector(detector: "Detector") -> None:
    model = detector.model
    lacking = [name for name in ("generator", "options", "image_size", "mask_size") if name not in model]
    if lacking:
        raise ValueError(
            f"the detector's `model` does not say {', '.join(lacking)}: get the detector by Detector.load"
        )
    sizes, said = (detector.image_size, detector.mask_size), (model["image_size"], model["mask_size"])
    if sizes != said:
        raise ValueError(
            f"the detector takes images and holes of {sizes} pixels, its `model` says {said}: make them agree"
        )
    if not detector.variables:
        raise ValueError("the detector has no folds, its `variables` are empty: get it by Detector.load")
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(list(detector.variables))):
        raise ValueError("the detector's weights are not all finite: train it anew, or get another")
    if detector.threshold is not None and not math.isfinite(detector.threshold):
        raise ValueError(f"threshold must be finite, or None where there is none, got {detector.threshold}")


def _trace(
    fn: Callable[[Any, jax.Array], Similarities], variables: Any, image_size: int
) -> jax.export.Exported:
    """Trace the pure scorer on arrays by name, for any number of images: `[folds, B]` by metric."""

    def scorer(arrays: dict[str, jax.Array], images: jax.Array) -> tuple[jax.Array, ...]:
        scores = fn(format.unflatten(arrays), images)._asdict()
        return tuple(scores[metric] for metric in METRICS)

    arrays = format.flatten(variables)
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in arrays.items()}
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    # The same score on every device is worth more here than the speed of shortened products.
    with jax.default_matmul_precision("highest"):
        return jax.export.export(jax.jit(scorer), platforms=PLATFORMS)(shapes, images)


def golden_images(size: int) -> np.ndarray:
    """Draw smooth colours with grain, uint8 `[8, size, size, 3]`: nobody's skin."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(40, 215, (GOLDEN, 2, 2, 3))
    across = np.linspace(0, 1, size)
    weights = np.stack([1 - across, across])
    smooth = np.einsum("bijc,ih,jw->bhwc", corners, weights, weights)
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ExportedDetector(NoveltyDetector):
    """A scorer read from an export; `threshold` and `calibration` as of any `NoveltyDetector`."""

    exported: jax.export.Exported  # the program, for use by `exported.call(arrays, images)`
    arrays: dict[str, jax.Array]  # its weights by name
    image_size: int  # pixels a side of the images it takes
    metric: str  # the one that scores
    # an image whose score is strictly greater is like the training class; None = not calibrated
    threshold: float | None
    threshold_origin: str  # what the threshold was fitted on, for people to read
    calibration: Calibration | None  # what `assess` decides by; None = not calibrated
    manifest: dict[str, Any]  # versions, platforms, hashes
    model: dict[str, Any]  # name and options of the network, and its sizes
    notice: str = ""  # what every assessment carries, such as that the training images were drawn

    def __repr__(self) -> str:
        return describe(
            self,
            network=self.model["generator"],
            folds=self._folds,
            image_size=self.image_size,
            mask_size=self.model["mask_size"],
            metric=self.metric,
        )

    @property
    def _folds(self) -> int:
        return len({name.split("/", 1)[0] for name in self.arrays})

    def pure(self) -> tuple[Callable[[Any, jax.Array], Similarities], Any]:
        """The scorer as `(fn, variables)`, for use inside other code's `jit`.

        `fn(variables, images)` takes uint8 `[B, S, S, 3]`, at least one image, and gives the five
        similarities, float32 `[B]`. It is a compiled program: it has no gradient and no `jax.vmap`.
        """

        def fn(variables: Any, images: jax.Array) -> Similarities:
            check_batch(images, self.image_size)
            _check_bytes(images)
            every = self.exported.call(variables, images)
            return Similarities(*(jnp.mean(scores, axis=0) for scores in every))

        return fn, self.arrays

    def similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Each metric averaged over folds, float64 `[N]`; images as `score_samples`, but uint8."""
        return {name: scores.mean(axis=0) for name, scores in self.fold_similarities(images).items()}

    def fold_similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Each metric for each fold, float64 `[folds, N]`; images as `similarities`."""
        batches = padded_batches(images, size=self.image_size)
        empty = Similarities(*np.zeros((len(METRICS), self._folds, 0)))
        return collect(self._score_bytes, batches, empty)._asdict()

    def _assessed(self, images: Images) -> tuple[str, dict[str, np.ndarray]]:
        return self.metric, self.fold_similarities(images)

    def score_samples(self, images: Images) -> np.ndarray:
        """The chosen metric, float64 `[N]`; high = like the training class. Images must be uint8."""
        return self.similarities(images)[self.metric]

    def _score_bytes(self, batch: np.ndarray) -> Similarities:
        _check_bytes(batch)  # before JAX makes float32 of other floats
        return self._score(self.arrays, batch)

    @functools.cached_property
    def _score(self) -> Callable[[Any, np.ndarray], Similarities]:
        return jax.jit(lambda arrays, batch: Similarities(*self.exported.call(arrays, batch)))


def load(path: str | os.PathLike[str], *, digest: str | None = None, fold: int | None = None) -> "Detector":
    """Load the detector of a finished workdir or of an export.

    Args:
      path: a workdir, or a folder that `export` wrote.
      digest: of an export only: what `export` returned.
      fold: of a workdir only: one of its folds; None = all, whose scores are averaged.

    Raises:
      ValueError: neither a workdir nor an export; a digest for a workdir or a fold for an export; as
        `Detector.load` and `load_detector`.
    """
    from mim_jax.detector import Detector

    root = Path(path).expanduser()
    if (root / format.MANIFEST).is_file():
        if fold is not None:
            raise ValueError(
                f"{root} is an export, which holds all its folds as one: leave out fold={fold}, or load "
                "its workdir"
            )
        return load_detector(root, digest=digest)
    if digest is not None:
        raise ValueError(
            f"{root} has no {format.MANIFEST}, so it is not an export, and only an export has a digest: "
            "leave it out for a workdir"
        )
    return Detector.load(root, fold=fold)


def load_detector(path: str | os.PathLike[str], *, digest: str | None = None) -> "Detector":
    """Load an export as a network: from its weights and config.json, not from its compiled program.

    Arguments as `load_exported`.

    Raises:
      ValueError: not an export, damaged, another digest, of another network, or golden images that do not
        score as they did.
    """
    # Flax takes a while to import, and a compiled program does without.
    from mim_jax.detector import Detector
    from mim_jax.inpaint.inference import abstract_patch, abstract_variables
    from mim_jax.inpaint.networks import make_generator
    from mim_jax.measure.similarity import Measure

    found = format.read(path, digest=digest)
    with format.faults_named(found.root / format.CONFIG):
        measure = Measure(**found.measure)
        generator = make_generator(found.model["generator"], found.model["options"], dtype=jnp.float32)
        wanted = abstract_variables(generator, found.image_size)
        painted = abstract_patch(generator, wanted, found.image_size)
        weights = format.unflatten(found.weights)
    format.check_weights(weights, wanted)
    if painted != (1, found.mask_size, found.mask_size, 3):
        raise ValueError(
            f"{found.root / format.CONFIG} says mask_size={found.mask_size}, and its network paints "
            f"{list(painted)}: fetch it again"
        )
    folds = jax.tree.map(jnp.asarray, weights)
    sizes, decides = (found.image_size, found.mask_size), (found.threshold, found.origin)
    rest: tuple[Any, ...] = measure, found.model, found.calibration, found.notice
    loaded = Detector(generator, folds, *sizes, *decides, *rest)

    def score(images: np.ndarray) -> dict[str, np.ndarray]:
        with jax.default_matmul_precision("highest"):  # as the golden scores were made
            return {name: each.mean(axis=0) for name, each in loaded.similarities(images).items()}

    format.check_scores(found, score)
    return loaded


def load_exported(path: str | os.PathLike[str], *, digest: str | None = None) -> ExportedDetector:
    """Load an export: check every hash, and run the golden images through it.

    Args:
      path: the folder that `export` wrote.
      digest: what `export` returned. Hashes inside the folder find damage; only this finds an exchange.

    Raises:
      ValueError: not an export; damaged; another digest; of another format or too old for this JAX; not made
        for this device; or golden images that do not score as they did.
    """
    found = format.read(path, digest=digest)
    root, manifest = found.root, found.manifest
    oldest = jax.export.minimum_supported_calling_convention_version
    newest = jax.export.maximum_supported_calling_convention_version
    if not oldest <= manifest["calling_convention"] <= newest:
        raise ValueError(
            f"{root} was exported by jax {manifest['jax']} (calling convention "
            f"{manifest['calling_convention']}) and jax {jax.__version__} runs {oldest} to {newest}: export "
            "it anew from its workdir"
        )
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if platform not in manifest["platforms"]:
        raise ValueError(f"{root} runs on {', '.join(manifest['platforms'])}, and JAX computes on {platform}")
    if found.metric not in METRICS:
        raise ValueError(f"{root} scores by {found.metric!r}, which is none of {', '.join(METRICS)}")
    with format.faults_named(root / format.SCORER):
        exported = jax.export.deserialize(bytearray((root / format.SCORER).read_bytes()))
    loaded = ExportedDetector(
        exported=exported,
        arrays=jax.tree.map(jnp.asarray, found.weights),
        image_size=found.image_size,
        metric=found.metric,
        threshold=found.threshold,
        threshold_origin=found.origin,
        calibration=found.calibration,
        manifest=manifest,
        model=found.model,
        notice=found.notice,
    )
    format.check_scores(found, loaded.similarities)
    return loaded


def _check_bytes(images: np.ndarray | jax.Array) -> None:
    if images.dtype != np.uint8:
        raise ValueError(f"an exported scorer takes uint8 images, not {images.dtype}: round(255 * image)")
