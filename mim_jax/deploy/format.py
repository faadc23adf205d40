"""On-disk format of an export: a folder of files with their hashes. Needs JAX, NumPy, safetensors.

manifest.json       format, versions, and the SHA-256 of every other file
config.json         kind of detector, networks, sizes, calibration: for people and for `load_detector`
model.safetensors   arrays: weights of every fold and of a frozen network, reference data
scorer.stablehlo    the scorer as serialized by `jax.export`: uint8 images -> each metric of each fold
golden.safetensors  test images, and their scores at the time of export
"""

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mim_jax.data import weight_files
from mim_jax.decide.decision import Calibration
from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.deploy.arrays import KINDS, read_arrays
from mim_jax.measure import METRICS

FORMAT = 3
READABLE = (2, 3)  # format 2 holds only MIM, without a field `kind`
MANIFEST, CONFIG, WEIGHTS = "manifest.json", "config.json", "model.safetensors"
SCORER, GOLDEN = "scorer.stablehlo", "golden.safetensors"
# Platforms sum in different orders, which moves single pixels to the next level of the histogram; a wrong
# layer, layout or preprocessing changes a score by far more.
GOLDEN_TOLERANCE = 1e-3


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder to write into, and rename it to `path` if the block succeeds.

    ValueError if `path` exists, or is below a file.
    """
    target = Path(path).expanduser().resolve()
    exists = f"{target} exists: export into a new folder, or remove it first"
    if target.exists():
        raise ValueError(exists)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{target} is below a file: export into a folder") from error
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # a temporary folder is private
        try:
            unfinished.rename(target)
        except OSError as error:
            if not target.exists():
                raise
            raise ValueError(exists) from error  # created by another process in the meantime
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class ExportContents:
    """Contents of an export read from disk; complete, with fields of the right types."""

    root: Path  # folder of the export
    manifest: dict[str, Any]  # versions, platforms, hashes
    kind: str  # one of `KINDS`
    image_size: int  # side of an image in pixels
    folds: int
    metric: str  # name of the score used for decisions
    metrics: tuple[str, ...]  # all, in the order of the scorer's outputs
    model: dict[str, Any]  # MIM: name, options and sizes of the generator, for `make_generator`
    mask_size: int  # MIM: side of the hole in pixels
    measure: dict[str, Any]  # MIM: fields of `mim_jax.detector.Measure`, not yet validated
    features: dict[str, Any]  # frozen network: name, digest, image_size, source, metric
    threshold: float | None  # finite; None = not calibrated
    origin: str  # what the threshold was fitted on
    calibration: Calibration | None  # used for decisions; None = not calibrated
    notice: str  # attached to every assessment, or ""
    arrays: dict[str, np.ndarray]  # by name
    images: np.ndarray  # golden images, uint8 `[N, S, S, 3]`
    similarities: np.ndarray  # their scores at the time of export, `[metrics, N]`


def write(
    folder: Path, *, config: Mapping[str, Any], arrays: Mapping[str, Any], facts: Mapping[str, Any]
) -> str:
    """Write config, arrays and a manifest of all files in the folder; return the manifest's digest.

    A config that JSON cannot represent is a ValueError; NumPy numbers are converted.
    """
    try:
        text = json.dumps(config, indent=2, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{CONFIG} cannot store the detector's description ({error}): use finite numbers, text and lists"
        ) from error
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    weight_files.save(folder / WEIGHTS, arrays)
    files = {path.name: weight_files.digest(path) for path in sorted(folder.iterdir())}
    manifest = json.dumps({"format": FORMAT, **facts, "files": files}, indent=2) + "\n"
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")
    return weight_files.digest(folder / MANIFEST)


def verify(path: str | os.PathLike[str], *, digest: str | None = None) -> dict[str, Any]:
    """Check every file against the manifest, and return the manifest.

    `digest` is the digest that `export` returned, if known; it rules out that files were swapped.

    Raises:
      ValueError: not an export, of another format, or changed since it was written.
    """
    root = Path(path).expanduser()
    if not (root / MANIFEST).is_file():
        raise ValueError(
            f"{root} is not an export, it has no {MANIFEST}: make one with launch.py --mode=export"
        )
    found = weight_files.digest(root / MANIFEST)
    if digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(
            f"digest must be the 64 hexadecimal digits that the export printed, or None to accept any, got "
            f"{digest!r:.80}"
        )
    if digest is not None and digest != found:
        raise ValueError(f"{root / MANIFEST} has the digest {found}, not {digest}: this is another export")
    manifest = read_object(root / MANIFEST)
    if manifest.get("format") not in READABLE:
        raise ValueError(
            f"{root} has format {manifest.get('format')!r}, but this mim_jax reads "
            f"{' and '.join(map(str, READABLE))}: export it again from its workdir"
        )
    field(manifest, "jax", str, path=root / MANIFEST)
    field(manifest, "calling_convention", int, path=root / MANIFEST)
    platforms = field(manifest, "platforms", list, path=root / MANIFEST)
    if not all(isinstance(platform, str) for platform in platforms):
        raise ValueError(f"{root / MANIFEST}: platforms must be names, got {platforms!r:.60}")
    files = field(manifest, "files", dict, path=root / MANIFEST)
    if set(files) != {CONFIG, WEIGHTS, SCORER, GOLDEN}:
        raise ValueError(f"{root / MANIFEST} does not list the files of an export: fetch the folder again")
    for name, expected in files.items():
        if not (root / name).is_file():
            raise ValueError(f"{root} lacks {name}: fetch the whole folder again")
        if weight_files.digest(root / name) != expected:
            raise ValueError(
                f"{root / name} is not the file that was exported (its SHA-256 differs): fetch it again"
            )
    return manifest


def digest(path: str | os.PathLike[str]) -> str:
    """Return the digest of an export: SHA-256 of its manifest, against which `verify` checks all files."""
    return weight_files.digest(Path(path).expanduser() / MANIFEST)


def read(path: str | os.PathLike[str], *, digest: str | None = None) -> ExportContents:
    """Verify an export and read everything but its program.

    ValueError as for `verify`; or if a field is missing, of the wrong type or impossible.
    """
    manifest = verify(path, digest=digest)
    root = Path(path).expanduser()
    where = root / CONFIG
    content = read_object(where)

    def said(name: str, *kinds: type) -> Any:
        return field(content, name, *kinds, path=where)

    kind = said("kind", str) if manifest["format"] > 2 else "mim"
    if kind not in KINDS:
        raise ValueError(f"{where}: kind is {kind!r:.60}, expected one of {', '.join(KINDS)}: fetch it again")
    model: dict[str, Any] = {}
    measure, features, mask_size, margin = dict(model), dict(model), 0, 0
    if kind != "features":
        model, measure, mask_size = said("model", dict), said("measure", dict), said("model.mask_size", int)
        for name, wanted in (("generator", str), ("options", dict), ("image_size", int)):
            said(f"model.{name}", wanted)
        margin = said("model.margin", int) if "margin" in model else 0
        said("measure.metric", str)
    if kind != "mim":
        features = said("features", dict)
        for name in ("backbone", "digest", "source", "metric"):
            said(f"features.{name}", str)
        said("features.image_size", int)
    image_size = features["image_size"] if features else model["image_size"]
    painted = model["image_size"] if model else image_size
    folds = said("folds", int)
    if not (0 <= mask_size <= painted <= image_size and (mask_size or not model) and margin >= 0 < folds):
        raise ValueError(
            f"{where} says {image_size=}, {mask_size=}, {margin=}, {folds=}, which is impossible: refetch it"
        )
    metrics = said("metrics", list) if manifest["format"] > 2 else list(METRICS)
    metric: Any = {"mim": measure.get("metric"), "features": features.get("metric")}.get(kind, kind)
    if metric not in metrics or not all(isinstance(name, str) for name in metrics):
        raise ValueError(
            f"{root} scores by {metric!r:.60}, which is not one of {', '.join(map(str, metrics))}"
        )
    threshold = said("threshold", float, int, type(None))
    if threshold is not None and not abs(threshold) <= sys.float_info.max:
        raise ValueError(f"{where}: threshold must be finite, got {threshold}: export again")
    calibration = said("calibration", dict, type(None))
    if calibration is not None:
        with faults_named(where):
            calibration = Calibration.from_json(calibration)
    images, similarities = _read_golden(root / GOLDEN, image_size)
    return ExportContents(
        root=root,
        manifest=manifest,
        kind=kind,
        image_size=image_size,
        folds=folds,
        metric=metric,
        metrics=tuple(metrics),
        model=model,
        mask_size=mask_size,
        measure=measure,
        features=features,
        threshold=threshold,
        origin=said("origin", str),
        calibration=calibration,
        notice=said("notice", str) if "notice" in content else "",
        arrays=read_arrays(root / WEIGHTS, kind, folds),
        images=images,
        similarities=similarities,
    )


def check_scores(found: ExportContents, detector: NoveltyDetector) -> None:
    """Score the golden images by a detector read from an export; ValueError if their scores changed."""
    with faults_named(found.root):
        scores = {name: each.mean(axis=0) for name, each in detector.similarities(found.images).items()}
    if scores.keys() != set(found.metrics):
        raise ValueError(
            f"{found.root / CONFIG} lists the metrics {', '.join(found.metrics)}, but the detector gives "
            f"{', '.join(scores)}: fetch it again"
        )
    if found.similarities.shape != (len(scores), len(found.images)):
        raise ValueError(
            f"{found.root / GOLDEN} holds similarities {found.similarities.shape}, expected "
            f"{(len(scores), len(found.images))}: fetch it again"
        )
    for metric, before in zip(found.metrics, found.similarities, strict=True):
        moved = float(np.max(np.abs(scores[metric] - before)))
        if not moved <= GOLDEN_TOLERANCE:
            raise ValueError(
                f"{found.root}: {metric} of its golden images differs by {moved:.2g} from its value at "
                f"export (rounding explains up to {GOLDEN_TOLERANCE:g}): this JAX or device computes "
                "different results"
            )


@contextlib.contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Convert any exception raised inside the block to a one-line ValueError that names `path`.

    For code that uses a folder's content: neither a program nor a network with unknown options declares
    what it may raise.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{path} cannot be used with jax {jax.__version__}: {reason}") from error


def read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object: fetch it again")
    return content


def field(content: Mapping[str, Any], name: str, *kinds: type, path: Path) -> Any:
    """Return the value at a dotted name, `a.b` for `content["a"]["b"]`; ValueError if not of `kinds`."""
    value: Any = content
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"{path} lacks {name}: fetch it again, or export again")
        value = value[part]
    if type(value) not in kinds:  # exact types: bool is a subclass of int
        raise ValueError(
            f"{path}: {name} is {value!r:.60}, expected {' or '.join(kind.__name__ for kind in kinds)}"
        )
    return value


def _read_golden(path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    golden = weight_files.load(path)
    if golden.keys() != {"images", "similarities"}:
        raise ValueError(f"{path} holds {', '.join(golden)}, expected images, similarities: fetch it again")
    images, scores = golden["images"], golden["similarities"]
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3) or images.size == 0:
        raise ValueError(
            f"{path} holds images {images.dtype} {images.shape}, expected uint8 [N, {size}, {size}, 3] as "
            f"{CONFIG} says: fetch it again"
        )
    return images, scores


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r:.60} is not JSON")
