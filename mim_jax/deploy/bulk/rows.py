"""One row per image: read, hash, decode, check by the gate, score, decide. Also used by `--mode=score`."""

import functools
import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

import mim_jax
from mim_jax.data.batches import batch_size
from mim_jax.data.images import MAX_BYTES, UnusableImage, decode_image
from mim_jax.data.quality import Gate
from mim_jax.decide.decision import Assessment, Decision, assess, unusable
from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.deploy.bulk import storage
from mim_jax.deploy.bulk.worker import in_order

Given = tuple[str, str, bytes | None]  # path, reason why it cannot be read or "", bytes or None to read it
BATCHES = 2  # batches scored in one call


@dataclass(frozen=True)
class ScoredFile:
    """A file, its assessment and its properties; None where it could not be read."""

    path: str
    assessment: Assessment
    similarities: dict[str, list[float]] = field(default_factory=dict)  # one per fold; empty if unusable
    sha256: str | None = None
    size: int | None = None  # bytes
    width: int | None = None  # pixels, as stored
    height: int | None = None
    seconds: float = 0.0  # to read and decode it

    @property
    def usable(self) -> bool:
        return self.assessment.decision is not Decision.UNUSABLE


def score_files(
    detector: NoveltyDetector,
    files: Iterable[Given],
    *,
    gate: Gate,
    pool: Executor,
    ahead: int = 16,
) -> Iterator[ScoredFile]:
    """Score files in order, with at most a few batches in memory; those that fail the gate are unusable.

    The executor `pool` reads and decodes up to `ahead` files ahead.
    """
    alpha = detector.calibration.miss_rate if detector.calibration else 0.1
    decoded = in_order(pool, functools.partial(_decode, detector, gate), files, ahead=ahead)
    while some := list(itertools.islice(decoded, BATCHES * batch_size())):
        images = [image for _, _, image in some if isinstance(image, np.ndarray)]
        scores, assessed = {}, list[Assessment]()
        if images:
            scores = detector.similarities(np.stack(images))
            assessed = assess(
                scores, detector.calibration, metric=detector.metric, alpha=alpha, notice=detector.notice
            )
        column = 0
        for path, facts, image in some:
            if isinstance(image, UnusableImage):
                yield ScoredFile(path, unusable(image.reason), **facts)
                continue
            own = {metric: [float(value) for value in scores[metric][:, column]] for metric in scores}
            yield ScoredFile(path, assessed[column], own, **facts)
            column += 1


Decoded = tuple[str, dict[str, Any], np.ndarray | UnusableImage]  # path, properties as in `ScoredFile`, image


def _decode(detector: NoveltyDetector, gate: Gate, given: Given) -> Decoded:
    """Decode a file as `detector.read` does, and return its properties as well."""
    path, reason, data = given
    began, facts = time.perf_counter(), dict[str, Any]()
    image: np.ndarray | UnusableImage
    try:
        if reason:
            raise UnusableImage(reason)
        data = storage.read_image(path) if data is None else data
        if len(data) <= MAX_BYTES:  # longer data may be incomplete
            facts |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        image = decode_image(
            data,
            size=detector.image_size,
            gate=gate,
            min_side=detector.min_side,
            on_header=lambda width, height: facts.update(width=width, height=height),
        )
    except UnusableImage as error:
        image = error
    return path, facts | {"seconds": time.perf_counter() - began}, image


def to_table(rows: Sequence[ScoredFile], *, start: int, metrics: Sequence[str], detector: str) -> pa.Table:
    """Convert rows to a table; `start` is the id of the first, `detector` the detector's digest.

    All columns but `seconds` depend only on inputs, detector, gate and version.
    """
    found = [row.assessment for row in rows]
    shared = pa.dictionary(pa.int8(), pa.string())
    columns = {
        "id": (range(start, start + len(rows)), pa.int64()),
        "path": ([row.path.encode("utf-8", "backslashreplace").decode() for row in rows], pa.string()),
        "sha256": ([row.sha256 for row in rows], pa.string()),
        "bytes": ([row.size for row in rows], pa.int64()),
        "width": ([row.width for row in rows], pa.int32()),
        "height": ([row.height for row in rows], pa.int32()),
        **{metric: ([each.similarities.get(metric) for each in found], pa.float64()) for metric in metrics},
        "score": ([each.score for each in found], pa.float64()),
        "p_value": ([each.p_value for each in found], pa.float64()),
        "decision": ([str(each.decision) for each in found], shared),
        "reason": ([" ".join(each.reasons) for each in found], pa.string()),
        "detector": ([detector] * len(rows), shared),
        "version": ([mim_jax.__version__] * len(rows), shared),
        "seconds": ([row.seconds for row in rows], pa.float32()),
    }
    return pa.table({name: pa.array(values, type_) for name, (values, type_) in columns.items()})
