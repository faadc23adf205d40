"""Bulk scoring on Ray and in one process: images per second, CPU time, memory, bytes of output per row.

python -m benchmarks.bulk --rows 5000 20000
python -m benchmarks.bulk --rows 20000 --full-size --engines ray --device=gpu

The images are generated JPEG files of 224 pixels. Each engine scores them in its own processes, one engine
after the other, for each number of rows. The rate excludes starting, loading and compiling: it is measured
from the moment when the first parts exist (as many as are scored at once), without the images of these parts.
Memory is the largest resident memory of a process (VmRSS of Linux) over the run.
"""

import argparse
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from joblib import cpu_count

from benchmarks.results import write_json
from configs.mim import get_config
from mim_jax.deploy.bulk.engines import has_ray
from mim_jax.deploy.bulk.output import ROWS
from mim_jax.deploy.bulk.worker import AT_ONCE
from tests.launching import has_ended
from tests.stress.bulk import begin, descendants, make_export, make_photos

EVERY = 0.5  # seconds between two samples of memory


def full_size() -> dict[str, int]:
    """Size of the networks of configs/mim.py."""
    config = get_config()
    width, channels = config.generator.width, config.generator.bottleneck_channels
    return {"size": config.data.image_size, "width": width, "channels": channels}


def memory(process: int) -> float:
    """Resident memory of a process in MB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def cpu_seconds(process: int) -> float:
    """CPU seconds that a process has used; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100


class Watch:
    """Records peak memory of the driver, of a worker and of all processes, and the CPU seconds of all."""

    def __init__(self, process: subprocess.Popen[str], output: Path):
        self.process, self.output = process, output
        self.most = {"driver": 0.0, "worker": 0.0, "all": 0.0}
        self.cpu: dict[int, float] = {}
        self.times: list[float] = []  # when each part was first seen
        self.thread = threading.Thread(target=self._look)
        self.thread.start()

    def _look(self) -> None:
        while self.process.poll() is None:
            below = descendants(self.process.pid)
            held = {number: memory(number) for number in (self.process.pid, *below)}
            workers = [held[number] for number, title in below.items() if "ray::Worker" in title]
            now = {
                "driver": held[self.process.pid],
                "worker": max(workers, default=0.0),
                "all": sum(held.values()),
            }
            self.most = {name: max(self.most[name], value) for name, value in now.items()}
            self.cpu |= {number: cpu_seconds(number) for number in held}
            there = len(list(self.output.glob("part-*")))
            self.times += [time.perf_counter()] * (there - len(self.times))
            time.sleep(EVERY)


def measure(root: Path, engine: str, rows: int, device: str, turn: int) -> dict[str, Any]:
    """Score with an engine, and print and return a row of the table."""
    output = root / f"{engine}_{rows}_{turn}"
    flags = [f"--device={device}", *(["--actors=0"] if engine == "here" else [])]
    began = time.perf_counter()
    process = begin(root, output, *flags, source=f"photos_{rows}")
    watch = Watch(process, output)
    has_ended(process)
    watch.thread.join()
    first, last = watch.times[AT_ONCE - 1], watch.times[-1]
    rate = (rows - AT_ONCE * ROWS) / (last - first)
    most = " | ".join(f"{watch.most[each]:.0f}" for each in ("driver", "worker", "all"))
    size = sum(path.stat().st_size for path in output.glob("part-*")) / rows
    cpu, start = 1000 * sum(watch.cpu.values()) / rows, first - began
    print(f"| {engine} | {rows:,} | {start:.0f} | {rate:.1f} | {cpu:.1f} | {most} | {size:.0f} |", flush=True)
    found = {"start_s": start, "images_per_s": rate, "cpu_ms_per_image": cpu, "memory_mb": watch.most}
    return {"system": engine, "rows": rows, **found, "bytes_per_row": size}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 20000])
    parser.add_argument("--engines", nargs="+", default=["here", "ray"] if has_ray() else ["here"])
    parser.add_argument("--turns", type=int, default=1, help="runs of each engine, alternating")
    parser.add_argument("--detector", type=Path, default=None, help="an export (default: a small one)")
    parser.add_argument("--full-size", action="store_true", help="export the networks of configs/mim.py")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        detector = str(options.detector or ("full-size" if options.full_size else "small"))
        if options.detector:
            (root / "export").symlink_to(options.detector.absolute())
        else:
            make_export(root / "export", **(full_size() if options.full_size else {}))
        for rows in options.rows:
            make_photos(root / f"photos_{rows}", rows)
        files = [path.stat().st_size for path in (root / f"photos_{options.rows[0]}").iterdir()]
        print(f"{cpu_count()} cores; files of {sum(files) / len(files):,.0f} bytes on average")
        print("| engine | rows | start, s | images/s | CPU ms/image | MB driver | worker | all | bytes/row |")
        print("|---|---|---|---|---|---|---|---|---|")
        found: list[dict[str, Any]] = []
        for rows in options.rows:
            rates = dict.fromkeys(options.engines, 0.0)  # sum over the turns
            for turn in range(options.turns):
                # The order alternates, because the load of other work varies.
                for engine in options.engines[:: -1 if turn % 2 else 1]:
                    row = measure(root, engine, rows, options.device, turn)
                    rates[engine] += row["images_per_s"]
                    found.append({"detector": detector, **row})
                    write_json(options.json, {"cores": cpu_count()}, found)
            if len(rates) == 2:
                ratio = rates["ray"] / rates["here"]
                print(f"ray / here at {rows:,} rows: {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
