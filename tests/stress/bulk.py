"""Kill a bulk run at random moments, again and again: does every input get one row, and the right one?

python -m tests.stress.bulk --kills=10 --rows=5000 --seed=0           # on Ray, if it is installed
python -m tests.stress.bulk --kills=10 --rows=5000 --engine=here

Images are drawn and a small detector is exported. An uninterrupted run in one process gives the expected
rows. Then `--mode=bulk` is started in a new process, and after a random time SIGKILL is sent to the driver,
to a worker, or to all processes at once, as when the machine dies; if the driver has died, the same command
is started again. Each finished run must have the rows of the uninterrupted one, except for the seconds that
each image took. A run that differs is an error, and so is a start that fails.
"""

import argparse
import dataclasses
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from mim_jax.data.synthetic import lesions
from mim_jax.decide.decision import Calibration
from mim_jax.deploy.bulk.engines import has_ray
from mim_jax.deploy.export import export
from tests.deploy.small import SIZE, make_detector
from tests.launching import has_ended, start

DRAWN = 60  # images drawn; the others are shifted copies


def make_photos(folder: Path, count: int, side: int = 224) -> None:
    """Draw JPEG files; one in a hundred is truncated and therefore unusable."""
    folder.mkdir()
    drawn = [lesions.render(("mpox", "mel", "eczema")[n % 3], n, size=side) for n in range(min(DRAWN, count))]
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        moved = np.roll(drawn[number % DRAWN], number // DRAWN, axis=1)
        Image.fromarray(moved).save(path, quality=85)
        if number % 100 == 50:
            path.write_bytes(path.read_bytes()[:1000])


def make_export(folder: Path, *, size: int = SIZE, **network: int) -> None:
    """Export a detector with random weights, calibrated on drawn images of mpox; a small one by default."""
    detector = make_detector(size=size, **network)
    images = np.stack([lesions.render("mpox", 10_000 + number, size=size) for number in range(40)])
    scores = tuple(np.sort(detector.score_samples(images)).tolist())
    words = {"origin": "drawn images", "promise": "Nothing is promised.", "band": "Nor here."}
    calibration = Calibration("ssim_hbd", "mpox", "calibrated", 0.1, (scores,), scores[3], None, **words)
    export(dataclasses.replace(detector, calibration=calibration), folder)


def begin(root: Path, output: Path, *more: str, source: str = "photos") -> subprocess.Popen[str]:
    """Start the run; programs that an earlier start compiled are reused."""
    where = [f"--input={root / source}", f"--detector={root / 'export'}", f"--output={output}"]
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return start("launch.py", "--mode=bulk", *where, *more, **compiled)


def descendants(process: int) -> dict[int, str]:
    """All descendants of a process: process id -> title."""
    parents, titles = dict[int, int](), dict[int, str]()
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                parents[int(each.name)] = int((each / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(each.name)] = (each / "cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                continue  # gone
    below, found = {process}, dict[int, str]()
    while new := {child for child, parent in parents.items() if parent in below and child not in below}:
        below |= new
        found |= {child: titles[child] for child in new}
    return found


def kill(process: subprocess.Popen[str], victim: str) -> str:
    """Kill the victim; return its description."""
    below = descendants(process.pid)
    workers = [number for number, title in below.items() if "ray::Worker" in title]
    if victim == "a worker" and workers:
        os.kill(workers[0], signal.SIGKILL)
        return victim
    if victim == "all processes":
        for number in (process.pid, *below):
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
    else:
        victim = "the driver"
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return victim


def compare(output: Path, expected: list[dict[str, object]]) -> None:
    """Raise SystemExit if the rows of a finished run are not those expected."""
    found = read(output)
    ids = [row["id"] for row in found]
    if ids != list(range(len(expected))):
        lost, twice = set(range(len(expected))) - set(ids), len(ids) - len(set(ids))
        raise SystemExit(f"bulk: {output} lost {len(lost)} rows and has {twice} twice")
    if different := [row["id"] for row, other in zip(found, expected, strict=True) if row != other]:
        raise SystemExit(f"bulk: {len(different)} rows differ, the first is {different[0]}")


def read(output: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(output).drop(["seconds"]).to_pylist()
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("ray", "here"), default="ray" if has_ray() else "here")
    options = parser.parse_args(arguments)
    draw = np.random.default_rng(options.seed)
    more = ("--actors=0",) if options.engine == "here" else ()
    victims = ("the driver", "a worker", "all processes") if options.engine == "ray" else ("the driver",)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_photos(root / "photos", options.rows)
        make_export(root / "export")
        began = time.perf_counter()
        has_ended(begin(root, root / "uninterrupted", "--actors=0"))
        length = time.perf_counter() - began
        expected = read(root / "uninterrupted")
        print(f"uninterrupted, in one process: {len(expected)} rows in {length:.0f} s", flush=True)
        done, starts, runs, began = Counter[str](), 0, 0, time.perf_counter()
        while done.total() < options.kills:
            output = root / f"run_{runs}"
            process = begin(root, output, *more)
            starts += 1
            # No wait is longer than the uninterrupted run, so a run is killed several times.
            while not (ended := has_ended(process, timeout=float(draw.uniform(0, length)))):
                if done.total() == options.kills:
                    continue
                parts = len(list(output.glob("part-*")))
                victim = kill(process, str(draw.choice(victims)))
                done[victim] += 1
                print(f"killed {victim} after {parts} parts", flush=True)
                if victim != "a worker":
                    break
            if ended:
                compare(output, expected)
                runs += 1
        output = root / f"run_{runs}"
        if output.exists():
            has_ended(begin(root, output, *more))
            starts += 1
            compare(output, expected)
            runs += 1
        seconds = time.perf_counter() - began
        print(
            f"kills: {done.total()} in {runs} runs of {options.rows} rows, {starts} starts, {seconds:.0f} s"
        )
        for name, count in done.most_common():
            print(f"  {count:3d} of {name}")
        print("rows lost: 0, twice: 0, different: 0")


if __name__ == "__main__":
    main()
