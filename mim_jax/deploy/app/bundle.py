"""The app as one folder for any static web server: page, program, runtime, golden images.

index.html, app.css, *.js   the page; its texts are in strings.en.js
app.json                    sizes, calibration, golden scores, notice, accuracy
model.onnx.gz               the program of one fold
golden.bin                  golden images, uint8 [N, S, S, 3], which the page scores first, as a self-test
ort.mjs, ort.wasm.gz        onnxruntime-web
version.js, sw.js           list of files for offline use, and the service worker that caches them
files.json                  SHA-256 of every other file
"""

import base64
import hashlib
import importlib.resources
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mim_jax
from mim_jax import mask
from mim_jax.data import quality
from mim_jax.data.images import MIN_SIDE
from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.deploy import format
from mim_jax.deploy.app import program, runtime, view
from mim_jax.deploy.export import golden_images, load
from mim_jax.detector import CombinedDetector, Detector
from mim_jax.features.detector import FEATURES, FeatureDetector
from mim_jax.measure import METRICS
from mim_jax.train import workdir

FORMAT = 2
FILES = "files.json"
GOLDEN_IMAGES = 4  # each delays the start of the page by the time of one score
# Constants of `mim_jax.data.quality` for the page's gate.
LIMITS = (
    *("SIDE", "LIGHT", "LEAST_LIT", "WHITE", "MOST_BURNT", "LEAST_SHARPNESS", "CB", "CR", "LEAST_SKIN"),
    *("MOST_FLAT", "MOST_FLAT_SHARPNESS"),
)


@dataclass(frozen=True)
class Summary:
    """Size and numerical error of an app that was written."""

    digest: str  # SHA-256 of files.json, which identifies the whole content
    weights: str  # one of `program.KINDS`
    difference: float  # largest error of a golden score
    size: int  # total bytes, which a phone downloads once


def export_run(path: str | os.PathLike[str], *, fold: int) -> list[str]:
    """Write `app/` into a finished workdir, and return lines that describe it.

    ValueError as for `mim_jax.load` and `export_app`.
    """
    root = Path(path).expanduser().resolve()
    detector = load(root, fold=fold)
    saved = root / workdir.CALIBRATION
    found = workdir.read_json(saved) if saved.exists() else {}
    # Older files, without calibration scores, have a threshold without a guarantee.
    calibration = found["alone"][fold] if found.get("format") == workdir.CALIBRATION_FORMAT else None
    notice = detector.notice or None
    results = workdir.read_json(root / "results.json") if (root / "results.json").exists() else {}
    told: dict[str, Any] = {"calibration": calibration, "notice": notice, "evaluated": accuracy(results)}
    written = export_app(detector, root / "app", fold=fold, **told)
    lines = [
        f"app: {root / 'app'}",
        f"network: fold {fold} alone",
        f"weights: {written.weights}, golden scores off by at most {written.difference:.1e}",
        f"download: {written.size / 1e6:.1f} MB",
        f"digest: {written.digest}",
    ]
    if calibration is None:
        lines.append("calibration: none, so it makes no decisions; run --mode=evaluate, and export again")
    return lines


def export_app(
    detector: NoveltyDetector,
    path: str | os.PathLike[str],
    *,
    fold: int = 0,
    calibration: Mapping[str, Any] | None = None,
    notice: str | None = None,
    evaluated: Mapping[str, Any] | None = None,
    fetch: Callable[[], tuple[bytes, bytes]] = runtime.fetch,
) -> Summary:
    """Write the app of a single-fold detector to the folder `path` atomically.

    `calibration` is the entry of `calibration.json` for this fold alone; None = the app cannot decide.
    `notice` is shown at the top, such as that the images were procedural; `evaluated` is the result of
    `accuracy` for the run. `fetch` returns onnxruntime-web.

    Raises:
      ValueError: the folder exists or is below a file; several folds; a tool is missing; no kind of weights
        preserves the golden similarities.
    """
    with format.new_folder(path) as folder:
        script, binary = fetch()
        images = golden_images(detector.image_size)[:GOLDEN_IMAGES]
        model, kind, difference = smallest(detector, images)
        settings = describe(detector, images, kind) | {
            "fold": fold,
            "calibration": None if calibration is None else dict(calibration),
            "notice": notice,
            "evaluated": None if evaluated is None else dict(evaluated),
        }
        files = {
            **page_files(),
            "app.json": (json.dumps(settings, indent=1, allow_nan=False) + "\n").encode(),
            "model.onnx.gz": runtime.packed(model),
            "golden.bin": images.tobytes(),
            "ort.mjs": script,
            "ort.wasm.gz": runtime.packed(binary),
            "licences.txt": f"{runtime.LICENCE}\n".encode(),
        }
        digest = write(folder, files)
        size = sum(item.stat().st_size for item in folder.iterdir())
    return Summary(digest, kind, difference, size)


def smallest(detector: NoveltyDetector, images: np.ndarray) -> tuple[bytes, str, float]:
    """Shrink the program to the fewest bits that preserve the scores of `images`.

    Returns the program, its kind of weights and its error; ValueError if even float32 does not preserve them.
    """
    model = program.to_onnx(detector)
    expected, known = truth(detector, images), training_images(detector)
    found = {}
    for kind in program.KINDS:
        data = program.shrink(model, kind, training=known).SerializeToString()
        away = np.abs(program.run(data, images) - expected).max(axis=0)
        found[kind] = float(away.max())
        if np.all(away <= tolerances(detector, kind)):
            return data, kind, found[kind]
    listed = ", ".join(f"{kind} {value:.2g}" for kind, value in found.items())
    raise ValueError(
        f"the golden scores of the ONNX program are off by {listed}, but rounding explains at most "
        f"{max(tolerances(detector, 'float32')):g}: this onnxruntime or device computes different "
        "results"
    )


def tolerances(detector: NoveltyDetector, kind: str) -> list[float]:
    """Return the largest allowed error of each golden score for a kind of weights."""
    in_units, between_0_and_1 = program.UNIT_TOLERANCE[kind], program.TOLERANCE[kind]
    return [between_0_and_1 if name in METRICS else in_units for name in detector.metrics]


def training_images(detector: NoveltyDetector) -> int:
    """Count the training images that one fold compares with; 0 if it compares with none."""
    if isinstance(detector, CombinedDetector):
        return training_images(detector.features)
    if not isinstance(detector, FeatureDetector):
        return 0
    return len(next(iter(detector.references[FEATURES].own().gallery.values())))


def truth(detector: NoveltyDetector, images: np.ndarray) -> np.ndarray:
    """Compute the detector's scores of the images, `[N, metrics]`."""
    scores = detector.similarities(images)
    return np.stack([scores[metric].mean(axis=0) for metric in detector.metrics], axis=-1)


def accuracy(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Summarize the evaluation in results.json for the page; None if it is missing or of an older format.

    Returns:
      "positive": the training class; "auroc", "low", "high": AUROC of its images against all others and its
      interval, as in the report; "folds": number of networks that it is averaged over; "unseparated": classes
      of which more than half of the images were called mpox-like or cannot-tell.
    """
    try:
        reference, metric = results.get("reference", "mim"), results["decision"]["metric"]
        found, positive = results["auroc"]["augmented"][reference][metric], results["data"]["positive"]
        unseparated = sorted(
            name
            for name, count in results["decision"]["table"].items()
            if name != positive and count["mpox_like"] + count["cannot_tell"] > count["n"] / 2
        )
        told = {"auroc": found["mean"], "low": found["low"], "high": found["high"]}
        return {"positive": positive, **told, "folds": len(found["folds"]), "unseparated": unseparated}
    except KeyError:
        return None


def describe(detector: NoveltyDetector, images: np.ndarray, kind: str) -> dict[str, Any]:
    """Describe the detector for app.json; `kind` is the kind of weights."""
    mim = detector.mim if isinstance(detector, CombinedDetector) else detector
    hole: dict[str, Any] = {"mim_size": None}
    if isinstance(mim, Detector):
        hole = {
            "mim_size": mim.image_size,
            "mask_size": mim.mask_size,
            "margin": mim.margin,
            "offset": list(mask.center_offset(mim.image_size, mim.mask_size)),
        }
    return {
        "format": FORMAT,
        "mim_jax": mim_jax.__version__,
        "weights": kind,
        "image_size": detector.image_size,
        **hole,
        "outputs": list(view.outputs(detector)),
        "metric": detector.metric,
        "metrics": list(detector.metrics),
        "least_side": max(MIN_SIDE, detector.min_side),
        "gate": {name: getattr(quality, name) for name in LIMITS},
        "golden": {
            "tolerances": tolerances(detector, kind),
            "similarities": truth(detector, images).tolist(),
        },
    }


def page_files() -> dict[str, bytes]:
    """Read the page's static files from the package."""
    static = importlib.resources.files("mim_jax.deploy.app") / "static"
    return {item.name: item.read_bytes() for item in static.iterdir() if item.is_file()}


def write(folder: Path, files: Mapping[str, bytes]) -> str:
    """Write the files, the service worker's list and the hashes; return the digest."""
    content = dict(sorted(files.items()))
    hashes = {name: hashlib.sha256(data) for name, data in content.items()}
    version = hashlib.sha256("".join(each.hexdigest() for each in hashes.values()).encode()).hexdigest()
    kept = {
        name: "sha256-" + base64.b64encode(each.digest()).decode()
        for name, each in hashes.items()
        if name != "sw.js"  # browsers update the service worker themselves
    }
    content["version.js"] = (
        f"self.APP = {json.dumps({'version': version, 'files': kept}, indent=1)};\n".encode()
    )
    listing = {
        "format": FORMAT,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(content.items())},
    }
    content[FILES] = (json.dumps(listing, indent=1) + "\n").encode()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return hashlib.sha256(content[FILES]).hexdigest()
