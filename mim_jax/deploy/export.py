"""Exports: a trained detector as one folder that scores images with JAX, NumPy and safetensors alone.

`export` writes it, `load_exported` checks and loads it. The scorer is a StableHLO program (`jax.export`) for
CPU and CUDA and for any number of images; `mim_jax.deploy.format` describes files and hashes. Nothing is
pickled. The digest that `export` returns identifies the whole content: pass it to `load_exported` if the
folder came over an untrusted channel.
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
from mim_jax.data import weight_files
from mim_jax.data.batches import Images, check_batch, collect, padded_batches
from mim_jax.decide.decision import Calibration
from mim_jax.decide.novelty_detector import NoveltyDetector, describe
from mim_jax.deploy import format
from mim_jax.measure.similarity import Similarities

if TYPE_CHECKING:
    from mim_jax.detector import CombinedDetector, Detector
    from mim_jax.features.detector import FeatureDetector

PLATFORMS = ("cpu", "cuda")
GOLDEN = 8  # test images stored with the weights


def export(detector: NoveltyDetector, path: str | os.PathLike[str]) -> str:
    """Write a detector to the folder `path` atomically; the exported detector averages all folds.

    Args:
      detector: a `Detector`, `FeatureDetector` or `CombinedDetector`.
      path: folder that does not exist yet.

    Returns:
      Digest of the export: the SHA-256 of its manifest.

    Raises:
      ValueError: the folder exists or is below a file; or as for `mim_jax.deploy.rebuild.describe`.
    """
    from mim_jax.deploy.rebuild import describe as described

    with format.new_folder(path) as folder:
        config = described(detector)
        fn, variables = detector.pure(each_fold=True)  # type: ignore[attr-defined] # every described kind has it
        named = weight_files.flatten_arrays(variables)
        scorer = _trace(fn, variables, detector.metrics, detector.image_size)
        (folder / format.SCORER).write_bytes(scorer.serialize())
        images = golden_images(detector.image_size)
        scores = np.stack(jax.jit(scorer.call)(named, images)).mean(axis=1)
        golden = {"images": images, "similarities": scores.astype(np.float32)}
        weight_files.save(folder / format.GOLDEN, golden)
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
    """Trace the pure scorer on named arrays, for any number of images: `[folds, B]` for each metric."""
    structure = jax.tree.structure(variables)

    def scorer(named: dict[str, jax.Array], images: jax.Array) -> tuple[jax.Array, ...]:
        scores = fn(jax.tree.unflatten(structure, [named[name] for name in shapes]), images)
        found = scores._asdict() if isinstance(scores, Similarities) else scores
        return tuple(found[metric] for metric in metrics)

    # In tree order.
    shapes = {
        name: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)
        for name, leaf in weight_files.flatten_arrays(variables).items()
    }
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    # Equal scores on every device matter more here than the speed of low-precision products.
    with jax.default_matmul_precision("highest"):
        return jax.export.export(jax.jit(scorer), platforms=PLATFORMS)(shapes, images)


def golden_images(size: int) -> np.ndarray:
    """Generate smooth colours with noise, uint8 `[8, size, size, 3]`; they show no person's skin."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(40, 215, (GOLDEN, 2, 2, 3))
    across = np.linspace(0, 1, size)
    weights = np.stack([1 - across, across])
    smooth = np.einsum("bijc,ih,jw->bhwc", corners, weights, weights)
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ExportedDetector(NoveltyDetector):
    """A scorer read from an export; `threshold` and `calibration` as in any `NoveltyDetector`."""

    exported: jax.export.Exported  # the program, called as `exported.call(arrays, images)`
    arrays: dict[str, jax.Array]  # its arrays by name
    threshold: float | None  # None = not calibrated
    threshold_origin: str  # what the threshold was fitted on, for people to read
    calibration: Calibration | None  # used by `assess` to decide; None = not calibrated
    about: format.ExportContents  # kind, sizes, metrics, versions, hashes
    notice: str = ""  # attached to every assessment, such as that the training images were drawn

    def __repr__(self) -> str:
        about = self.about
        facts: dict[str, object] = {"network": about.model["generator"]} if about.model else {}
        facts |= {"backbone": about.features["backbone"]} if about.features else {}
        facts |= {"folds": self.folds, "image_size": self.image_size}
        facts |= {"mask_size": about.mask_size} if about.kind == "mim" else {}
        return describe(self, **facts, metric=self.metric)

    @property
    def image_size(self) -> int:  # type: ignore[override]
        return self.about.image_size

    @property
    def metric(self) -> str:  # type: ignore[override]
        return self.about.metric

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.about.metrics

    @property
    def folds(self) -> int:
        return self.about.folds

    @property
    def min_side(self) -> int:
        return self.about.mask_size or self.image_size // 2

    def pure(self) -> tuple[Callable[[Any, jax.Array], Any], Any]:
        """Return the scorer as `(fn, variables)`, for use inside other code's `jit`.

        `fn(variables, images)` takes uint8 `[B, S, S, 3]`, at least one image, and returns each metric as
        float32 `[B]`, in `Similarities` for MIM, else in a dictionary. It is a compiled program and supports
        neither gradients nor `jax.vmap`.
        """

        def fn(variables: Any, images: jax.Array) -> Any:
            check_batch(images, self.image_size)
            every = self.exported.call(variables, _bytes_only(images))
            named = {name: jnp.mean(each, axis=0) for name, each in zip(self.metrics, every, strict=True)}
            return Similarities(**named) if self.about.kind == "mim" else named

        return fn, self.arrays

    def similarities(self, images: Images) -> dict[str, np.ndarray]:
        """Compute each metric by fold, float64 `[folds, N]`; images as for `score_samples`, but uint8."""
        batches = padded_batches(images, size=self.image_size)
        checked = ((_bytes_only(batch), real) for batch, real in batches)
        scores = collect(functools.partial(self._score, self.arrays), checked)
        return dict(zip(self.metrics, scores, strict=True))

    @functools.cached_property
    def _score(self) -> Callable[[Any, jax.Array], list[jax.Array]]:
        return jax.jit(lambda arrays, batch: list(self.exported.call(arrays, batch)))


def load(
    path: str | os.PathLike[str], *, digest: str | None = None, fold: int | None = None
) -> NoveltyDetector:
    """Load the detector that a finished workdir or an export uses for decisions.

    Args:
      path: workdir, or a folder written by `export`.
      digest: for an export only: the digest that `export` returned.
      fold: for a workdir only: the fold to load; None = all folds, whose scores are averaged.

    Raises:
      ValueError: neither a workdir nor an export; a digest for a workdir or a fold for an export; or as for
        `load_workdir` and `load_detector`.
    """
    from mim_jax.detector import load_workdir

    root = Path(path).expanduser()
    if (root / format.MANIFEST).is_file():
        if fold is not None:
            raise ValueError(
                f"{root} is an export, whose folds cannot be loaded one by one: leave out fold={fold}, or "
                "load its workdir"
            )
        return load_detector(root, digest=digest)
    if digest is not None:
        raise ValueError(
            f"{root} has no {format.MANIFEST}, so it is not an export, and only exports have a digest: "
            "leave out digest for a workdir"
        )
    return load_workdir(root, fold=fold)


def load_detector(
    path: str | os.PathLike[str], *, digest: str | None = None
) -> "Detector | FeatureDetector | CombinedDetector":
    """Load an export as networks, from its arrays and config.json rather than its compiled program.

    Takes the same arguments as `load_exported`.

    Raises:
      ValueError: not an export, damaged, of another digest, of an unknown or custom network, or its golden
        images no longer get the same scores.
    """
    from mim_jax.deploy.rebuild import build  # Flax takes a while to import

    found = format.read(path, digest=digest)
    loaded = build(found)
    format.check_scores(found, loaded)
    return loaded


def load_exported(path: str | os.PathLike[str], *, digest: str | None = None) -> ExportedDetector:
    """Load an export: verify every hash, and score the golden images with it.

    Args:
      path: folder written by `export`.
      digest: digest that `export` returned. The folder's own hashes detect damage; only this detects a swap.

    Raises:
      ValueError: not an export; damaged; of another digest or format; too old for this JAX; not made for this
        device; or its golden images no longer get the same scores.
    """
    found = format.read(path, digest=digest)
    root, manifest = found.root, found.manifest
    oldest = jax.export.minimum_supported_calling_convention_version
    newest = jax.export.maximum_supported_calling_convention_version
    if not oldest <= manifest["calling_convention"] <= newest:
        raise ValueError(
            f"{root} was exported by jax {manifest['jax']} (calling convention "
            f"{manifest['calling_convention']}), but jax {jax.__version__} runs {oldest} to {newest}: export "
            "it again from its workdir"
        )
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if platform not in manifest["platforms"]:
        raise ValueError(f"{root} runs on {', '.join(manifest['platforms'])}, but JAX computes on {platform}")
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
    format.check_scores(found, loaded)
    return loaded


def _bytes_only(images: Any) -> Any:
    """Return the images; ValueError unless they are uint8. To call before JAX turns float64 into float32."""
    if images.dtype != np.uint8:
        raise ValueError(f"an exported scorer takes uint8 images, not {images.dtype}: round(255 * image)")
    return images
