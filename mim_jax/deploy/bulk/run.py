"""A bulk run: claim the output folder, find the unfinished parts, and score them."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from joblib import cpu_count

from mim_jax.data.quality import Gate
from mim_jax.decide.novelty_detector import NoveltyDetector
from mim_jax.deploy import format
from mim_jax.deploy.bulk import engines, inputs, output, storage, worker
from mim_jax.deploy.bulk.output import Output
from mim_jax.train.workdir import differences

# May differ on resuming: the list is from the first start, and the digest covers the calibration.
_FREE = ("rows", "inputs.count", "inputs.digest", "calibration")


def describe_detector(path: str, *, digest: str | None) -> dict[str, Any]:
    """Describe an export or a workdir as in `_run.json`; ValueError as for `mim_jax.load`."""
    if worker.is_export(path):
        return _describe_detector(format.digest(path), format.read(path, digest=digest))
    # Loading a workdir runs JAX, which must not run in this process, because Ray forks it.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as apart:
        return apart.submit(_describe_workdir, path, digest).result()


def _describe_workdir(path: str, digest: str | None) -> dict[str, Any]:
    import jax

    import mim_jax

    jax.config.update("jax_platforms", "cpu")  # leave other devices to other processes
    found = mim_jax.load(path, digest=digest)
    return _describe_detector(worker.digest_of(found), found)


def _describe_detector(name: str, found: format.ExportContents | NoveltyDetector) -> dict[str, Any]:
    return {
        "detector": name,
        "metric": found.metric,
        "metrics": list(found.metrics),
        "calibration": asdict(found.calibration) if found.calibration else None,
        "notice": found.notice,
    }


def claim(
    root: str,
    *,
    source: str,
    column: str,
    detector: str,
    digest: str | None,
    gate: Gate,
    rows: int = output.ROWS,
    tell: Callable[[str], None],
) -> Output:
    """Make a folder the output of a run, or resume the run if it already is.

    Raises:
      ValueError: the folder belongs to another run or holds something else; the inputs or the detector cannot
        be read; the list in a table has changed.
    """
    before = output.find(root)
    about = {
        "format": output.FORMAT,
        **describe_detector(detector, digest=digest),
        "gate": asdict(gate),
        "rows": rows,
        "versions": worker.versions(),
    }
    if before is None:
        given = inputs.find_inputs(source, column)
        held = {"source": given.source, "column": given.column, "count": len(given), "digest": given.digest}
        return output.begin(root, about | {"inputs": held}, given)
    same = {"source": storage.absolute(source), "column": column or before.about["inputs"]["column"]}
    if found := differences(before.about, about | {"inputs": same}, _FREE):
        raise ValueError(
            f"--output={root} belongs to another run ({'; '.join(found)}): use another --output, or the "
            "same detector, input and versions"
        )
    _compare_lists(before, source, column, tell)
    output.clear(root)
    return before


def _compare_lists(before: Output, source: str, column: str, tell: Callable[[str], None]) -> None:
    """Report files added or removed since the list was made; ValueError if it is another list."""
    try:
        now = inputs.find_inputs(source, column)
    except ValueError:
        if len(before.finished()) == len(before.parts):
            return  # the inputs are no longer needed
        raise
    if now.digest == before.about["inputs"]["digest"]:
        return
    there = output.inputs_of(before)
    paths, paths_now = (set(each.items["path"].to_pylist()) for each in (there, now))
    come, gone = len(paths_now - paths), len(paths - paths_now)
    if gone == len(there) or source.lower().endswith(inputs.TABLES):
        raise ValueError(
            f"--input={source} has changed since the run in {before.root} began ({come:,} paths are new, "
            f"{gone:,} gone): use another --output for this list"
        )
    if come:
        tell(f"{come:,} files were added since this run began and are not part of it: use another --output")
    if gone:
        tell(f"{gone:,} files were removed since this run began: those not yet scored are rows that say so")


def score(
    found: Output,
    done: set[int],
    *,
    detector: str,
    on_ray: bool,
    address: str,
    actors: int | None,
    gpus: bool | None,
    prepare: Callable[[], None],
    tell: Callable[[str], None],
) -> Iterator[worker.Done]:
    """Score the unfinished parts, on Ray or in this process, and yield each when it is written."""
    listed = output.inputs_of(found)
    left = ((part, listed.part(found.ids(part))) for part in found.parts if part not in done)
    if not on_ray:
        job = worker.Job(found, detector, threads=cpu_count())
        yield from engines.score_here(job, left)
    else:
        files = {}
        if worker.is_export(detector):  # sent to the actors, which may have no access
            files = {each.name: each.read_bytes() for each in Path(detector).iterdir() if each.is_file()}
        job = worker.Job(found, detector, files, prepare=prepare)
        yield from engines.score_on_ray(job, left, address=address, actors=actors, gpus=gpus, tell=tell)
    lost = set(found.parts) - found.finished()
    if lost:
        raise ValueError(
            f"{len(lost)} parts were written but are not in {found.root}: all nodes must write into the "
            "same folder, on a shared disk or in a bucket"
        )
