"""Kill a small run at random moments, again and again: does it end as if never interrupted?

python -m tests.stress.kills --kills=50 --seed=0

A shrunken run of `configs/mim.py:quick` is started in a new process and killed (SIGKILL) after a random time,
started again in the same workdir, and so on. It is killed at the latest after the time that the uninterrupted
run took. When a run ends before it is killed, its results.json, which holds the hashes of its networks and of
its tables of scores, is compared with that of the uninterrupted run, and the next run begins in a new
workdir. After the last kill the run is left to end and compared too. A run that differs is an error, and so
is a start that fails.
"""

import argparse
import json
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.launching import TINY, has_ended, start, tiny

EPOCHS = 20  # enough for kills to hit training


def begin(workdir: Path, cache: Path) -> subprocess.Popen[str]:
    """Start the run; programs that an earlier start compiled are reused."""
    arguments = tiny(workdir, **{"training.epochs": EPOCHS})
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return start("launch.py", *arguments, **compiled)


def results(workdir: Path) -> dict[str, Any]:
    """Contents of results.json without timings."""
    found = json.loads((workdir / "results.json").read_text())
    del found["wall_time"]
    return found


def moment(workdir: Path) -> str:
    """What the run was doing when it was killed, judged by the files in its workdir."""
    if any(workdir.glob("fold_*/*/*.orbax-checkpoint-tmp*")):
        return "saving a checkpoint"
    if (workdir / "results.json").exists():
        return "writing the report"
    if (workdir / "fold_0" / "scores.csv").exists() or (workdir / "calibration.json").exists():
        return "writing scores"
    metrics = workdir / "metrics.jsonl"
    epochs = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    if epochs >= 2 * TINY["data.folds"] * EPOCHS:
        return "evaluating"
    return "training" if epochs else "starting or compiling"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=None, help="stop killing after this time")
    options = parser.parse_args(arguments)
    draw = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("compiled", "uninterrupted"):  # the first fills the cache of compiled programs
            began = time.perf_counter()
            has_ended(begin(root / name, root / "cache"))
            length = time.perf_counter() - began
        expected = results(root / "uninterrupted")
        if results(root / "compiled") != expected:
            raise SystemExit("kills: two uninterrupted runs of one seed differ")
        print(f"uninterrupted: {length:.1f} s, the same twice", flush=True)
        moments: Counter[str] = Counter()
        began, runs, lives = time.perf_counter(), 0, 0
        while moments.total() < options.kills and not (
            options.seconds and time.perf_counter() - began > options.seconds
        ):
            workdir = root / f"run_{runs}"
            process = begin(workdir, root / "cache")
            lives += 1
            ended = has_ended(process, timeout=float(draw.uniform(0, length)))
            if not ended:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                if process.returncode == -signal.SIGKILL:  # otherwise it ended just before
                    moments[moment(workdir)] += 1
            last = moments.total() == options.kills
            if ended or last:
                compare(workdir, root / "cache", expected, ended=ended)
                runs += 1
        if (root / f"run_{runs}").exists():
            compare(root / f"run_{runs}", root / "cache", expected, ended=False)
            runs += 1
        print(f"kills: {moments.total()} in {runs} runs; lost: 0; {time.perf_counter() - began:.0f} s")
        for name, count in moments.most_common():
            print(f"  {count:3d} while {name}")


def compare(workdir: Path, cache: Path, expected: dict[str, Any], *, ended: bool) -> None:
    """Let the run end; raise SystemExit if it differs from the uninterrupted one."""
    if not ended:
        has_ended(begin(workdir, cache))
    found = results(workdir)
    different = [name for name in expected if found.get(name) != expected[name]]
    if different or found.keys() != expected.keys():
        raise SystemExit(f"kills: {workdir} differs in {', '.join(different) or 'its fields'}")


if __name__ == "__main__":
    main()
