"""What scores parts: in this process, or in an actor of Ray on any machine. It imports JAX when it loads."""

import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mim_jax.deploy.bulk.inputs import Item
from mim_jax.deploy.bulk.output import Output

if TYPE_CHECKING:
    from mim_jax.decide.novelty_detector import NoveltyDetector

AT_ONCE = 2  # parts: while one is written, the other's images are decoded
AHEAD = 4  # images a thread that are read before their turn


@dataclass(frozen=True)
class Job:
    """What a worker needs to know.

    Attributes:
      output: where parts go, and what they are parts of.
      detector: a workdir or an export; where `files` are given they are that export's.
      files: name -> content of an export, which need not lie where the worker is; none for a workdir.
      threads: how many images are decoded at a time.
      prepare: settings of the process, before JAX computes.
    """

    output: Output
    detector: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    threads: int = 1
    prepare: Callable[[], None] | None = None


@dataclass(frozen=True)
class Done:
    """A part that is written."""

    part: int
    rows: int
    peak: int  # most memory that its process has held, bytes


class Worker:
    """A detector with its threads. `load` comes first; then parts are scored, `AT_ONCE` at a time."""

    def __init__(self, job: Job):
        self.job = job
        self.pool = ThreadPoolExecutor(job.threads, "decoding")
        self.detector: NoveltyDetector | None = None

    def load(self) -> dict[str, str]:
        """Load the detector, and return the versions it is run with.

        Raises:
          ValueError: it is not the one that the run began with; as `mim_jax.load`.
        """
        os.environ.setdefault("NPROC", str(self.job.threads))  # XLA's threads, where others share the machine
        if self.job.prepare:
            self.job.prepare()
        import mim_jax

        wanted, path = self.job.output.about["detector"], self.job.detector
        if self.job.files:
            with tempfile.TemporaryDirectory(prefix="mim_jax-") as folder:
                for name, content in self.job.files.items():
                    Path(folder, name).write_bytes(content)
                self.detector = mim_jax.load(folder, digest=wanted)
            self.job = replace(self.job, files={})  # as large as the detector
            return versions()
        self.detector = mim_jax.load(path, digest=wanted if is_export(path) else None)
        if not is_export(path) and (found := digest_of(self.detector)) != wanted:
            raise ValueError(
                f"{path} on {platform.node()} is another detector (digest {found[:12]}) than the run began "
                f"with ({wanted[:12]}): all nodes must see the same workdir, or give its export"
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
        found = list(scored)
        table = rows.to_table(
            found, start=output.ids(part).start, metrics=about["metrics"], detector=about["detector"]
        )
        output.write(part, table)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Done(part, len(found), peak)

    def close(self) -> None:
        """Give up what is not decoded yet."""
        self.pool.shutdown(wait=False, cancel_futures=True)


def is_export(path: str) -> bool:
    """Whether a folder is an export, which has a digest of its own."""
    return os.path.isfile(os.path.join(path, "manifest.json"))


def digest_of(detector: Any) -> str:
    """SHA-256 of a detector's description and arrays, for one that is not exported."""
    import hashlib
    import json

    import numpy as np

    from mim_jax.deploy.arrays import flatten
    from mim_jax.deploy.rebuild import describe

    found = hashlib.sha256(json.dumps(describe(detector), sort_keys=True, default=float).encode())
    _, variables = detector.pure(each_fold=True)
    for name, leaf in sorted(flatten(variables).items()):
        array = np.asarray(leaf)
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what the figures in a row depend on."""
    import importlib.metadata

    import mim_jax

    names = ("jax", "jaxlib", "numpy", "pillow")
    return {"mim_jax": mim_jax.__version__, **{name: importlib.metadata.version(name) for name in names}}
