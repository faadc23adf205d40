"""Worker that scores parts, in this process or as a Ray actor on any machine; `load` imports JAX."""

import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mim_jax.deploy.bulk.inputs import Item
from mim_jax.deploy.bulk.output import Output

if TYPE_CHECKING:
    from mim_jax.decide.novelty_detector import NoveltyDetector

Given = TypeVar("Given")
Result = TypeVar("Result")
AT_ONCE = 2  # parts scored concurrently: while one is written, the other's images are decoded
AHEAD = 4  # images read ahead, per thread


@dataclass(frozen=True)
class Job:
    """What a worker needs to know."""

    output: Output  # output folder and description of the run
    detector: str  # path of a workdir or an export
    # File name -> content of the export, which the worker may have no access to; empty for a workdir.
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    threads: int = 1  # images decoded at a time
    prepare: Callable[[], None] | None = None  # configures the process before JAX computes


@dataclass(frozen=True)
class Done:
    """A part that has been written."""

    rows: int
    peak: int  # peak memory of its process, bytes


class Worker:
    """A detector with its decoding threads. Call `load` first; then score up to `AT_ONCE` parts at a time."""

    def __init__(self, job: Job):
        self.job = job
        self.pool = ThreadPoolExecutor(job.threads, "decoding")
        self.detector: NoveltyDetector | None = None

    def load(self) -> dict[str, str]:
        """Load the detector, and return the versions of the packages in use.

        Raises:
          ValueError: not the detector that the run began with; or as for `mim_jax.load`.
        """
        os.environ.setdefault("NPROC", str(self.job.threads))  # limits XLA's threads on a shared machine
        if self.job.prepare:
            self.job.prepare()
        import mim_jax

        wanted, path = self.job.output.about["detector"], self.job.detector
        if self.job.files:
            with tempfile.TemporaryDirectory(prefix="mim_jax-") as folder:
                for name, content in self.job.files.items():
                    Path(folder, name).write_bytes(content)
                self.detector = mim_jax.load(folder, digest=wanted)
            self.job = replace(self.job, files={})  # frees as much memory as the detector
            return versions()
        self.detector = mim_jax.load(path, digest=wanted if is_export(path) else None)
        if not is_export(path) and (found := digest_of(self.detector)) != wanted:
            raise ValueError(
                f"{path} on {platform.node()} is not the detector that the run began with (digest "
                f"{found[:12]}, expected {wanted[:12]}): give all nodes the same workdir, or use its export"
            )
        return versions()

    def score(self, part: int, items: Sequence[Item]) -> Done:
        """Score a part and write it."""
        import resource

        from mim_jax.data.quality import Gate
        from mim_jax.deploy.bulk import inputs, rows

        assert self.detector is not None, "load() comes first"
        output = self.job.output
        about = output.about
        column = about["inputs"]["column"]
        given = inputs.with_bytes(items, column) if column else ((path, why, None) for path, why in items)
        scored = rows.score_files(
            self.detector,
            given,
            gate=Gate(**about["gate"]),
            pool=self.pool,
            ahead=max(AHEAD * self.job.threads, rows.BATCHES * rows.batch_size()),
        )
        table = rows.to_table(
            list(scored), start=output.ids(part).start, metrics=about["metrics"], detector=about["detector"]
        )
        output.write(part, table)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Done(table.num_rows, peak)


def in_order(
    pool: Executor, work: Callable[[Given], Result], items: Iterable[Given], *, ahead: int
) -> Iterator[Result]:
    """Yield the results of `work` on the items, in order, with up to `ahead` more begun."""
    waiting = deque[Future[Result]]()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def is_export(path: str) -> bool:
    """Whether a folder is an export, which has its own digest."""
    return os.path.isfile(os.path.join(path, "manifest.json"))


def digest_of(detector: Any) -> str:
    """Compute the SHA-256 of the description and arrays of a detector that is not exported."""
    from mim_jax.data.weight_files import flatten_arrays
    from mim_jax.deploy.rebuild import describe

    found = hashlib.sha256(json.dumps(describe(detector), sort_keys=True, default=float).encode())
    _, variables = detector.pure(each_fold=True)
    for name, leaf in sorted(flatten_arrays(variables).items()):
        array = np.asarray(leaf)
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers in a row depend on."""
    import mim_jax

    names = ("jax", "jaxlib", "numpy", "pillow")
    return {"mim_jax": mim_jax.__version__, **{name: importlib.metadata.version(name) for name in names}}
