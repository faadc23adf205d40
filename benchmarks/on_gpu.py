"""Run all GPU benchmarks one after the other; write `on_gpu.json` and a table, `on_gpu.md`.

    benchmarks/on_gpu.sh --output=FOLDER
    benchmarks/on_gpu.sh --output=FOLDER --small    # on a CPU, at the smallest sizes

Each benchmark runs in its own process, in the order of the list, until a deadline set in advance; time that
one benchmark does not use goes to the next. Both files are rewritten after each benchmark, and each benchmark
writes its results as it goes, so a failure or the end of the time loses no earlier result.
The exit status is 0 if every row was measured.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import STAND_INS
from benchmarks.results import write_json

MINUTES = 8.0  # including ten seconds for stopping and writing
PROGRAM = (sys.executable, "-m")  # before the name of a benchmark's module
SCORERS = (
    *("mim_jax ssim", "mim_jax vmap(ssim)", "dm_pix", "torchmetrics", "pytorch-msssim"),
    *("mim_jax hbd", "mim_jax vmap(hbd)"),
    *("mim_jax composite", "mim_jax similarities", "mim_jax vmap(sim.)"),
)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark and how to run it."""

    name: str  # module in `benchmarks`
    seconds: float  # its share of the eight minutes
    full: tuple[str, ...]  # arguments on a GPU
    small: tuple[str, ...]  # arguments on a CPU
    figures: Callable[[Mapping[str, Any]], tuple[str, str]]  # row of its JSON -> name, figures


def _speedrun(row: Mapping[str, Any]) -> tuple[str, str]:
    compiling = sum(stage["compiling"] for stage in row["stages"].values())
    stages = ", ".join(f"{name} {stage['seconds']:.1f}" for name, stage in row["stages"].items())
    scored = f"five folds and {row['scored']} scores, {row['system']}"
    return scored, f"{row['total_s']:.1f} s, of which {compiling:.1f} compiling ({stages})"


def _training(row: Mapping[str, Any]) -> tuple[str, str]:
    memory = "" if row["peak_memory_mb"] is None else f", {row['peak_memory_mb']:.0f} MB"
    return row["system"], (
        f"{row['images_per_s']:.1f} images/s, {row['ms_per_step']:.2f} ms a step, "
        f"{row['share_of_peak']:.1%} of the peak{memory}, first call {row['first_call_s']:.1f} s"
    )


def _scorer(row: Mapping[str, Any]) -> tuple[str, str]:
    speeds = ", ".join(f"{speed:.0f} (batch {batch})" for batch, speed in row["images_per_s"].items())
    ratio = f", ours/this {row['ours_over_this']:.2f}" if "ours_over_this" in row else ""
    copy = f", {row['of_copy']:.2f} of a copy's bandwidth" if "of_copy" in row else ""
    return f"{row['metric']}: {row['system']}", f"{speeds} images/s{ratio}{copy}, {row['memory_mb']:.0f} MB"


def _classifiers(row: Mapping[str, Any]) -> tuple[str, str]:
    ratio = f", ours/it {row['ours_over_this']:.2f}" if "ours_over_this" in row else ""
    first = f"first call {row['first_call_s']:.1f} s"
    return f"{row['network']}: {row['system']}", f"{1000 * row['s_per_step']:.2f} ms a step{ratio}, {first}"


def _growth(row: Mapping[str, Any]) -> tuple[str, str]:
    memory = "" if row["memory_mb"] is None else f", {row['memory_mb']:.0f} MB"
    share = row["floor_s"] / row["seconds"]
    return (
        f"{row['axis']} {row['value']}",
        f"{1000 * row['seconds']:.2f} ms a step, {share:.1%} of the floor's speed{memory}",
    )


def _bulk(row: Mapping[str, Any]) -> tuple[str, str]:
    what = f"{row['rows']:,} JPEG files of 224 pixels, {row['detector']} detector"
    return what, f"{row['images_per_s']:.1f} images/s, {row['cpu_ms_per_image']:.1f} ms of CPU time an image"


# In order of priority. Their seconds add up to less than `MINUTES`.
BENCHMARKS = (
    Benchmark("speedrun", 170, (), ("--size=quick", "--epochs=1"), _speedrun),
    Benchmark(
        "training",
        110,
        ("--dtype=bfloat16", "--batch=128", "--rounds=2", "--steps=20", "--limit=60"),
        ("--size=quick", "--batch=4", "--rounds=1", "--steps=1", "--systems", "mim_jax", "torch_eager"),
        _training,
    ),
    Benchmark(
        "scorer",
        60,
        ("--rounds=1", "--seconds=0.2", "--limit=30", "--names", *SCORERS),
        ("--rounds=1", "--seconds=0.01", "--names", "mim_jax ssim", "dm_pix"),
        _scorer,
    ),
    Benchmark(
        "classifiers",
        60,
        (
            "--dtype=bfloat16",
            "--batch=128",
            "--rounds=2",
            "--names",
            "mobilenet_v3_large",
            "resnet50",
            "swin_b",
        ),
        ("--batch=2", "--size=32", "--rounds=1", "--names", "mobilenet_v3_large", "--forms", "eager"),
        _classifiers,
    ),
    Benchmark(
        "growth",
        30,
        ("--dtype=bfloat16", "--batch=128", "--points=3", "--rounds=2", "--limit=60"),
        ("--size=quick", "--batch=4", "--axes", "width", "--points=1", "--rounds=1"),
        _growth,
    ),
    Benchmark(
        "bulk",
        40,
        ("--rows", "6000", "--full-size", "--engines", "here"),
        ("--rows", "1500", "--engines", "here"),
        _bulk,
    ),
)


def measure(one: Benchmark, arguments: Sequence[str], folder: Path, seconds: float) -> dict[str, Any]:
    """Run a benchmark for at most `seconds` seconds.

    Returns:
      "name", "command", "seconds", "ended" ("done", or the reason why not), "output", and the
      "environment" and "rows" that it wrote.
    """
    file, log = folder / f"{one.name}.json", folder / f"{one.name}.txt"
    command = [f"benchmarks.{one.name}", *arguments]
    began = time.perf_counter()
    with log.open("w") as output:
        child = subprocess.Popen(
            [*PROGRAM, *command, f"--json={file}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group, so that its children can be killed with it
        )
        try:
            status = child.wait(max(seconds, 0))
            said = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
            ended = "done" if not status else f"failed: {said}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {seconds:.0f} s"
        finally:
            _end(child)
    text = log.read_text(errors="replace")[-20_000:]
    found = json.loads(file.read_text()) if file.exists() else {"environment": {}, "rows": []}
    spent = time.perf_counter() - began
    told = shlex.join(["python", "-m", *command])
    return {"name": one.name, "command": told, "seconds": spent, "ended": ended, "output": text, **found}


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it and its children have ended
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def format_markdown(environment: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> str:
    """Format a table: one line per row of each benchmark, and one for each benchmark not completed."""
    figures = {one.name: one.figures for one in BENCHMARKS}
    lines = [
        f"{environment['date']}, {environment['device']}; jax {environment['jax']}, torch "
        f"{environment['torch']}, Python {environment['python']}, {environment['cpus']} CPUs, load "
        f"{environment['load']:.1f} before; {environment['seconds']:.0f} s in all",
        "",
        "| benchmark | what | measured |",
        "|---|---|---|",
    ]
    for one in found:
        for row in one["rows"]:
            what, value = (
                (row.get("system") or f"{row['axis']} {row['value']}", f"not measured: {row['error']}")
                if "error" in row
                else figures[one["name"]](row)
            )
            lines.append(f"| {one['name']} | {what} | {value} |")
        if one["ended"] != "done":
            rest = "the rest" if one["rows"] else "all"
            lines.append(f"| {one['name']} | {rest} | not measured: {one['ended']} |")
    lines += ["", "```sh", *(one["command"] for one in found), "```"]
    if environment["stand_ins"]:
        lines += ["", f"Not installed, replaced by stand-ins: {', '.join(environment['stand_ins'])}."]
    return "\n".join(lines) + "\n"


def describe(device: str) -> dict[str, Any]:
    """Describe the machine; a separate process queries the device, so that no GPU memory stays occupied."""
    code = (
        "import json, jax, torch; print(json.dumps({'device': jax.devices()[0].device_kind, "
        "'jax': jax.__version__, 'torch': torch.__version__}))"
    )
    environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if device == "cpu" else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    said = done.stdout.splitlines()
    asked = json.loads(said[-1]) if not done.returncode else dict.fromkeys(("device", "jax", "torch"), "?")
    return {
        "date": time.strftime("%d %B %Y"),
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "stand_ins": STAND_INS,
        **asked,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen benchmarks; return 0 if every row was measured, 1 otherwise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for both files")
    parser.add_argument("--small", action="store_true", help="smoke test on a CPU")
    names = [one.name for one in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="total time, divided among them")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    device = "cpu" if options.small else "gpu"
    environment = describe(device)
    found: list[dict[str, Any]] = []
    deadline = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for one in [one for one in BENCHMARKS if one.name in options.only]:
            deadline += one.seconds * options.minutes / MINUTES
            given = [f"--device={device}", *(one.small if options.small else one.full)]
            found.append(measure(one, given, Path(folder), deadline - time.perf_counter()))
            print(f"{one.name}: {found[-1]['ended']}, {found[-1]['seconds']:.0f} s", flush=True)
            environment["seconds"] = time.perf_counter() - began
            write_json(options.output / "on_gpu.json", environment, found)
            (options.output / "on_gpu.md").write_text(format_markdown(environment, found))
    print((options.output / "on_gpu.md").read_text())
    whole = all(one["ended"] == "done" and not any("error" in row for row in one["rows"]) for one in found)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
