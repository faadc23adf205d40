"""The app as one folder that any static web server serves: page, program, runtime, golden images.

index.html, app.css, *.js   the page; its words are in strings.en.js
app.json                    sizes, calibration, golden similarities, notice
model.onnx.gz               the program of one fold
golden.bin                  golden images, uint8 [N, S, S, 3], which the page scores before any other
ort.mjs, ort.wasm.gz        onnxruntime-web
version.js, sw.js           what the service worker keeps for use without a network
files.json                  SHA-256 of every other file
"""

import base64
import hashlib
import importlib.resources
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import mim_jax
from mim_jax import mask
from mim_jax.data import quality
from mim_jax.data.images import MIN_SIDE
from mim_jax.deploy.app import program, runtime
from mim_jax.deploy.export import golden_images
from mim_jax.detector import Detector
from mim_jax.evaluate import metadata
from mim_jax.measure import METRICS
from mim_jax.train import workdir
from mim_jax.train.config import parse

FORMAT = 1
CALIBRATION_FORMAT = 2
FILES = "files.json"
# Each takes the page a score's time when it starts.
GOLDEN_IMAGES = 4
ICON_SIZES = (192, 512)
# What the page's gate has of `mim_jax.data.quality`.
LIMITS = (
    *("SIDE", "LIGHT", "LEAST_LIT", "WHITE", "MOST_BURNT", "LEAST_SHARPNESS", "CB", "CR", "LEAST_SKIN"),
    *("MOST_FLAT", "MOST_FLAT_SHARPNESS"),
)


@dataclass(frozen=True)
class Summary:
    """Facts about an app that was written."""

    digest: str  # SHA-256 of files.json, which names the whole content
    weights: str  # one of `program.KINDS`
    difference: float  # the most that a golden similarity is off by
    size: int  # bytes in all: what a phone downloads once


def export_run(path: str | os.PathLike[str], *, fold: int) -> list[str]:
    """Writes `app/` into a finished workdir, and says what was written, a line a fact.

    Raises:
      ValueError: as `Detector.load` and `export_app`.
    """
    root = Path(path).expanduser().resolve()
    detector = Detector.load(root, fold=fold)
    found = workdir.read_json(root / "calibration.json") if (root / "calibration.json").exists() else {}
    # Written before there were calibration scores, it has a threshold without a promise.
    calibration = found["alone"][fold] if found.get("format") == CALIBRATION_FORMAT else None
    notice = metadata.notice(parse(workdir.read_json(root / "config.json")).data)
    written = export_app(detector, root / "app", fold=fold, calibration=calibration, notice=notice)
    lines = [
        f"app: {root / 'app'}",
        f"network: fold {fold}, by itself",
        f"weights: {written.weights}, golden similarities off by at most {written.difference:.1e}",
        f"download: {written.size / 1e6:.1f} MB",
        f"digest: {written.digest}",
    ]
    if calibration is None:
        lines.append("calibration: none, so it decides nothing; run --mode=evaluate, and export again")
    return lines


def export_app(
    detector: Detector,
    path: str | os.PathLike[str],
    *,
    fold: int = 0,
    calibration: Mapping[str, Any] | None = None,
    notice: str | None = None,
    fetch: Callable[[], tuple[bytes, bytes]] = runtime.fetch,
) -> Summary:
    """Writes the folder `path`, whole or not at all.

    Args:
      detector: of one fold.
      path: a folder that does not exist yet.
      fold: its number, for people to read.
      calibration: as `calibration.json` describes it for this fold alone; None = the app cannot decide.
      notice: stands above everything, such as that the images were procedural.
      fetch: gives onnxruntime-web.

    Raises:
      ValueError: the folder exists or lies below a file; several folds; a tool is absent; no kind of weights
        keeps the golden similarities.
    """
    target = Path(path).expanduser().resolve()
    exists = f"{target} exists: export into a new folder, or remove it first"
    if target.exists():
        raise ValueError(exists)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{target} lies below a file: export into a folder") from error
    script, binary = fetch()
    images = golden_images(detector.image_size)[:GOLDEN_IMAGES]
    model, kind, difference = smallest(detector, images)
    settings = describe(detector, images, fold=fold, calibration=calibration, notice=notice, kind=kind)
    files = {
        **page_files(),
        "app.json": (json.dumps(settings, indent=1, allow_nan=False) + "\n").encode(),
        "model.onnx.gz": runtime.packed(model),
        "golden.bin": images.tobytes(),
        "ort.mjs": script,
        "ort.wasm.gz": runtime.packed(binary),
        "licences.txt": f"{runtime.LICENCE}\n".encode(),
    }
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        digest = write(unfinished, files)
        unfinished.chmod(0o755)  # a temporary folder is private
        size = sum(item.stat().st_size for item in unfinished.iterdir())
        try:
            unfinished.rename(target)
        except OSError as error:
            if not target.exists():
                raise
            raise ValueError(exists) from error  # made by somebody else in the meantime
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Summary(digest, kind, difference, size)


def smallest(detector: Detector, images: np.ndarray) -> tuple[bytes, str, float]:
    """The program in the fewest bits that keep the similarities of `images`, and the most they are off by.

    Raises:
      ValueError: not even float32 does.
    """
    model = program.to_onnx(detector)
    expected = truth(detector, images)
    found = {}
    for kind in program.KINDS:
        data = program.shrink(model, kind).SerializeToString()
        found[kind] = float(np.abs(program.run(data, images) - expected).max())
        if found[kind] <= program.TOLERANCE[kind]:
            return data, kind, found[kind]
    told = ", ".join(f"{kind} {value:.2g}" for kind, value in found.items())
    raise ValueError(
        f"the golden similarities of the ONNX program are off by {told}, and at most "
        f"{program.TOLERANCE['float32']:g} may be rounding: this onnxruntime or this device errs"
    )


def truth(detector: Detector, images: np.ndarray) -> np.ndarray:
    """What the detector says of the images, `[N, 5]` in the order of `METRICS`."""
    scores = detector.similarities(images)
    return np.stack([scores[metric].mean(axis=0) for metric in METRICS], axis=-1)


def describe(
    detector: Detector,
    images: np.ndarray,
    *,
    fold: int,
    calibration: Mapping[str, Any] | None,
    notice: str | None,
    kind: str,
) -> dict[str, Any]:
    """What the page has to know: app.json."""
    return {
        "format": FORMAT,
        "mim_jax": mim_jax.__version__,
        "fold": fold,
        "weights": kind,
        "image_size": detector.image_size,
        "mask_size": detector.mask_size,
        "margin": detector.margin,
        "offset": list(mask.center_offset(detector.image_size, detector.mask_size)),
        "metric": detector.measure.metric,
        "metrics": list(METRICS),
        "least_side": max(MIN_SIDE, detector.mask_size),
        "gate": {name: getattr(quality, name) for name in LIMITS},
        "calibration": None if calibration is None else dict(calibration),
        "notice": notice,
        "golden": {
            "tolerance": program.TOLERANCE[kind],
            "similarities": truth(detector, images).tolist(),
        },
    }


def page_files() -> dict[str, bytes]:
    """The page as it lies in the package, its manifest and its icons."""
    static = importlib.resources.files("mim_jax.deploy.app") / "static"
    files = {item.name: item.read_bytes() for item in static.iterdir() if item.is_file()}
    return {**files, **{f"icon-{size}.png": icon(size) for size in ICON_SIZES}}


def write(folder: Path, files: Mapping[str, bytes]) -> str:
    """Writes the files, what the service worker keeps, and the list of hashes. Returns its digest."""
    content = dict(sorted(files.items()))
    hashes = {name: hashlib.sha256(data) for name, data in content.items()}
    version = hashlib.sha256("".join(each.hexdigest() for each in hashes.values()).encode()).hexdigest()
    kept = {
        name: "sha256-" + base64.b64encode(each.digest()).decode()
        for name, each in hashes.items()
        if name != "sw.js"  # browsers look after the service worker themselves
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


def icon(size: int) -> bytes:
    """The app's icon, a square of skin with its centre hidden, as PNG.

    It lies inside the four fifths that every phone shows ("maskable").
    """
    scale = 4  # drawn larger and reduced, for smooth edges
    side = size * scale
    image = Image.new("RGB", (side, side), "#1d4e5f")
    draw = ImageDraw.Draw(image)

    def box(low: float, high: float, radius: float, fill: str) -> None:
        draw.rounded_rectangle((low * side, low * side, high * side, high * side), radius * side, fill=fill)

    box(0.22, 0.78, 0.08, "#e8b996")
    for row, column, radius in (
        (0.31, 0.34, 0.035),
        (0.68, 0.33, 0.03),
        (0.33, 0.69, 0.025),
        (0.7, 0.68, 0.04),
    ):
        place = (
            (column - radius) * side,
            (row - radius) * side,
            (column + radius) * side,
            (row + radius) * side,
        )
        draw.ellipse(place, fill="#b5533c")
    box(0.39, 0.61, 0.02, "#ffffff")
    buffer = io.BytesIO()
    image.resize((size, size), Image.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
