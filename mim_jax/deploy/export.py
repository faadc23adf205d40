"""Exports: a trained detector as one folder that scores images with JAX, NumPy and safetensors alone.

`export` writes it, `load_exported` checks and loads it. The scorer is a StableHLO program (`jax.export`) for
CPU and CUDA and for any number of images; files and their hashes are in `mim_jax.deploy.format`. Nothing is
pickled. The digest that `export` returns names the whole content: give it to `load_exported` where the
folder came over an untrusted way.
"""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from mim_jax.deploy.arrays import flatten
from mim_jax.measure.similarity import Similarities

if TYPE_CHECKING:
    from mim_jax.detector import CombinedDetector, Detector
    from mim_jax.features.detector import FeatureDetector

PLATFORMS = ("cpu", "cuda")
GOLDEN = 8  # images that travel with the weights


def export(detector: NoveltyDetector, path: str | os.PathLike[str]) -> str:
    """Write a detector into the folder `path`, whole or not at all; its scorer averages all folds.

    Args:
      detector: a `Detector`, `FeatureDetector` or `CombinedDetector`.
      path: a folder that does not exist yet.

    Returns:
      The digest of the export, SHA-256 of its manifest.

    Raises:
      ValueError: the folder exists or lies below a file; as `mim_jax.deploy.rebuild.describe`.
    """
    from mim_jax.deploy.rebuild import describe as described

    with format.new_folder(path) as folder:
        config = described(detector)
        fn, variables = detector.pure(each_fold=True)  # type: ignore[attr-defined] # what was described has it
        named = flatten(variables)
        scorer = _trace(fn, variables, detector.metrics, detector.image_size)
        (folder / format.SCORER).write_bytes(scorer.serialize())
        images = golden_images(detector.image_size)
        scores = np.stack(jax.jit(scorer.call)(named, images)).mean(axis=1)
        format.save_golden(folder, images, scores.astype(np.float32))
        return format.write(
            folder,
            config=config,
            arrays={name: np.asarray(leaf) for name, leaf in named.items()},
            facts={
                "mim_jax": mim_jax.__version__,
                "jax": jax.__version__,
                "calling_convention": scorer.calling_convention_version,
                "platforms": list(PLATFORMS),
            },
        )


def _trace(
    fn: Callable[[Any, jax.Array], Any], variables: Any, metrics: Sequence[str], image_size: int
) -> jax.export.Exported:
    """Trace the pure scorer on arrays by name, for any number of images: `[folds, B]` of each metric."""
    structure = jax.tree.structure(variables)

    def scorer(named: dict[str, jax.Array], images: jax.Array) -> tuple[jax.Array, ...]:
        scores = by_name(fn(jax.tree.unflatten(structure, [named[name] for name in shapes]), images))
        return tuple(scores[metric] for metric in metrics)

    # In the order of the tree.
    shapes = {
        name: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for name, leaf in flatten(variables).items()
    }
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    # The same score on every device is worth more here than the speed of shortened products.
    with jax.default_matmul_precision("highest"):
        return jax.export.export(jax.jit(scorer), platforms=PLATFORMS)(shapes, images)


def by_name(scores: Any) -> dict[str, Any]:
    """Scores of a pure scorer as a dictionary: MIM's gives `Similarities`."""
    return scores._asdict() if isinstance(scores, Similarities) else scores


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
    arrays: dict[str, jax.Array]  # its arrays by name
    # an image whose score is strictly greater is like the training class; None = not calibrated
    threshold: float | None
    threshold_origin: str  # what the threshold was fitted on, for people to read
    calibration: Calibration | None  # what `assess` decides by; None = not calibrated
    about: format.ExportContents  # kind, sizes, metrics, versions, hashes
    notice: str = ""  # what every assessment carries, such as that the training images were drawn

    def __repr__(self) -> str:
        about = self.about
        facts: dict[str, object] = {"network": about.model["generator"]} if about.model else {}
        facts |= {"backbone": about.features["backbone"]} if about.features else {}
        facts |= {"folds": self.folds, "image_size": self.image_size}
        facts |= {"mask_size": about.mask_size} if about.kind == "mim" else {}
        return describe(self, **facts, metric=self.metric)

    @property
    def image_size(self) -> int:  # type: ignore[override]
        """Pixels a side of the images it takes."""
        return self.about.image_size

    @property
    def metric(self) -> str:  # type: ignore[override]
        """The score that decides."""
        return self.about.metric

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores."""
        return self.about.metrics

    @property
    def folds(self) -> int:
        return self.about.folds

    @property
    def min_side(self) -> int:
        """Pixels that the shorter side of an image must have to be scored."""
        return self.about.mask_size or self.image_size // 2

    def pure(self) -> tuple[Callable[[Any, jax.Array], Any], Any]:
        """The scorer as `(fn, variables)`, for use inside other code's `jit`.

        `fn(variables, images)` takes uint8 `[B, S, S, 3]`, at least one image, and gives each metric, float32
        `[B]`: `Similarities` of MIM, else a dictionary. It is a compiled program: it has no gradient and no
        `jax.vmap`.
        """

        def fn(variables: Any, images: jax.Array) -> Any:
            check_batch(images, self.image_size)
            _check_bytes(images)
            every = [jnp.mean(scores, axis=0) for scores in self.exported.call(variables, images)]
            named = dict(zip(self.metrics, every, strict=True))
            return Similarities(**named) if self.about.kind == "mim" else named

        return fn, self.arrays

    def similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Each metric for each fold, float64 `[folds, N]`; images as `score_samples`, but uint8."""
        batches = padded_batches(images, size=self.image_size)
        empty = [np.zeros((self.folds, 0)) for _ in self.metrics]
        return dict(zip(self.metrics, collect(self._score_bytes, batches, empty), strict=True))

    def _score_bytes(self, batch: np.ndarray) -> list[jax.Array]:
        _check_bytes(batch)  # before JAX makes float32 of other floats
        return self._score(self.arrays, batch)

    @functools.cached_property
    def _score(self) -> Callable[[Any, np.ndarray], list[jax.Array]]:
        return jax.jit(lambda arrays, batch: list(self.exported.call(arrays, batch)))


def load(
    path: str | os.PathLike[str], *, digest: str | None = None, fold: int | None = None
) -> NoveltyDetector:
    """Load the detector of a finished workdir or of an export: the one that it decides by.

    Args:
      path: a workdir, or a folder that `export` wrote.
      digest: of an export only: what `export` returned.
      fold: of a workdir only: one of its folds; None = all, whose scores are averaged.

    Raises:
      ValueError: neither a workdir nor an export; a digest for a workdir or a fold for an export; as
        `load_workdir` and `load_detector`.
    """
    from mim_jax.detector import load_workdir

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
    return load_workdir(root, fold=fold)


def load_detector(
    path: str | os.PathLike[str], *, digest: str | None = None
) -> "Detector | FeatureDetector | CombinedDetector":
    """Load an export as networks: from its arrays and config.json, not from its compiled program.

    Arguments as `load_exported`.

    Raises:
      ValueError: not an export, damaged, another digest, of another network or of a user's own, or golden
        images that do not score as they did.
    """
    from mim_jax.deploy.rebuild import build  # Flax takes a while to import

    found = format.read(path, digest=digest)
    loaded = build(found)

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
    with format.faults_named(root / format.SCORER):
        exported = jax.export.deserialize(bytearray((root / format.SCORER).read_bytes()))
    loaded = ExportedDetector(
        exported=exported,
        arrays=jax.tree.map(jnp.asarray, found.arrays),
        threshold=found.threshold,
        threshold_origin=found.origin,
        calibration=found.calibration,
        about=replace(found, arrays={}),
        notice=found.notice,
    )
    format.check_scores(
        found, lambda images: {name: each.mean(axis=0) for name, each in loaded.similarities(images).items()}
    )
    return loaded


def _check_bytes(images: np.ndarray | jax.Array) -> None:
    if images.dtype != np.uint8:
        raise ValueError(f"an exported scorer takes uint8 images, not {images.dtype}: round(255 * image)")
