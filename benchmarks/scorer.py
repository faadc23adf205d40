"""Speed of `mim_jax.measure.similarity` compared with other packages on the same images, and their agreement.

    python -m benchmarks.scorer                 # CPU
    python -m benchmarks.scorer --device=gpu    # one GPU, also for the other packages
    taskset -c 0 python -m benchmarks.scorer --cpu-seconds    # one core of a busy machine

Each contender runs in its own process, so that its peak memory can be measured and its threads do not disturb
the others; each round runs all contenders in turn, and the fastest round counts. Times are warm and exclude
transfers: arrays are already on the device that computes. "differs" is the largest difference to mim_jax on
the same pairs: all compute SSIM after Wang et al. 2004 on the windows inside the image; torchmetrics also
computes windows over a mirrored border, which are cut off its map. "memory" is the peak of the first pass
over the largest batch, compilation included, beyond the inputs already held: on CPU resident memory of the
process as reported by Linux, so that free pages which the process reuses add nothing; on a GPU device memory.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import resident
from benchmarks.results import write_json
from benchmarks.scorer_contenders import CONTENDERS, MASK, SIZE, make_images

BATCHES = (1, 32, 256)


def measure(name: str, device: str, seconds: float, clock: Callable[[], float]) -> dict[str, Any]:
    """Measure one contender in this process: images/s at each batch, scores of 32 pairs, memory in MB."""
    if device == "cpu":
        import jax

        jax.config.update("jax_platforms", "cpu")
    images, pasted = make_images(max(BATCHES))
    prepare, speed = CONTENDERS[name][1], {}
    scores = np.asarray(prepare(images[:32], pasted[:32], device)(), np.float64)
    score = prepare(images, pasted, device)
    before = _held(device)
    score()
    memory = _peak(device) - before
    for batch in BATCHES:
        score = prepare(images[:batch], pasted[:batch], device)
        score()
        fastest, spent = math.inf, 0.0
        while spent < seconds:
            began = clock()
            score()
            took = clock() - began
            fastest, spent = min(fastest, took), spent + took
        speed[batch] = batch / fastest
    return {"speed": speed, "scores": scores.tolist(), "memory": memory / 1e6}


def _held(device: str) -> float:
    """Bytes held now; resets the peak that `_peak` reads."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark to the resident memory
        return resident("VmRSS")
    held = 0
    if "jax" in sys.modules:
        import jax

        # JAX's peak cannot be reset, but nothing before the largest batch needed more.
        held += (jax.devices()[0].memory_stats() or {}).get("bytes_in_use", 0)
    if "torch" in sys.modules:
        import torch

        torch.cuda.reset_peak_memory_stats()
        held += torch.cuda.memory_allocated()
    return float(held)


def _peak(device: str) -> float:
    """Peak of the bytes held since `_held`."""
    if device == "cpu":
        return resident("VmHWM")
    peak = 0
    if "jax" in sys.modules:
        import jax

        peak += (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    if "torch" in sys.modules:
        import torch

        peak += torch.cuda.max_memory_allocated()
    return float(peak)


def copy_bandwidth() -> float:
    """Measure bytes/s of reading and writing one GiB on the GPU."""
    import jax
    import jax.numpy as jnp

    block = jnp.ones(2**28, jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        jax.block_until_ready(copy(block))
        times.append(time.perf_counter() - began)
    return 2 * block.nbytes / min(times)


def run_child(arguments: Sequence[str], *, limit: float | None = None) -> Any:
    """Run this program in its own process; return its result, or None if a package is missing.

    Raises:
      RuntimeError: The process failed, or took longer than `limit` seconds.
    """
    command = [sys.executable, "-m", "benchmarks.scorer", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took longer than {limit:g} seconds") from error
    if done.returncode:
        if "ModuleNotFoundError" not in done.stderr:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="time per batch size and round")
    parser.add_argument("--names", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--limit", type=float, help="time limit of a contender per round, in seconds")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write all results to this file")
    parser.add_argument("--cpu-seconds", action="store_true", help="images per second of CPU time")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child == "backend":
        import jax  # in the child only, so that it takes no GPU memory from the contenders

        print(json.dumps(jax.default_backend()))
        return
    if options.child == "copy":
        print(json.dumps(copy_bandwidth()))
        return
    if options.child:
        clock = time.process_time if options.cpu_seconds else time.perf_counter
        print(json.dumps(measure(options.child, options.device, options.seconds, clock)))
        return

    if options.device == "gpu" and run_child(["--device=gpu", "--child=backend"]) != "gpu":
        sys.exit("benchmarks.scorer: not measured: JAX finds no GPU")
    environment: dict[str, Any] = {"device": options.device, "images": f"{SIZE}x{SIZE}x3, float32"}
    found: dict[str, dict[str, Any]] = {}
    if options.device == "gpu":
        environment["copy_gb_per_s"] = run_child(["--device=gpu", "--child=copy"]) / 1e9
    given = [f"--device={options.device}", f"--seconds={options.seconds}"]
    given += ["--cpu-seconds"] if options.cpu_seconds else []
    for _ in range(options.rounds):
        for name in options.names:
            try:
                row = run_child([*given, f"--child={name}"], limit=options.limit)
            except RuntimeError as error:
                row = {"error": str(error).strip().splitlines()[-1]}
            row = row or {"error": "not installed"}
            known = found.setdefault(name, row)
            if "speed" in row and "speed" in known:
                known["speed"] = {k: max(v, known["speed"][k]) for k, v in row["speed"].items()}
            write_json(options.json, environment, make_rows(found, environment))
    print(format_table(environment, make_rows(found, environment)))


def make_rows(found: Mapping[str, Mapping[str, Any]], environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Make one row per contender: speeds, and at batch 32 ratio and difference to the first of its metric."""
    rows: list[dict[str, Any]] = []
    for name, own in found.items():
        metric, prepare = CONTENDERS[name]
        row: dict[str, Any] = {"metric": metric, "system": name}
        if "error" in own:
            rows.append(row | {"error": own["error"]})
            continue
        row |= {"images_per_s": own["speed"], "memory_mb": own["memory"]}
        first = found.get(next(other for other, (same, _) in CONTENDERS.items() if same == metric), {})
        if "speed" in first:
            row["ours_over_this"] = first["speed"]["32"] / own["speed"]["32"]
            row["differs"] = float(np.max(np.abs(np.subtract(first["scores"], own["scores"]))))
        ours = prepare.__qualname__.startswith("mim_jax") and "uint8" not in name
        if ours and (copy := environment.get("copy_gb_per_s")):
            # The least that it must read: an image, and a second image or only the patch.
            read = SIZE * SIZE + (MASK * MASK if name == "mim_jax composite" else SIZE * SIZE)
            row["gb_per_s"] = own["speed"][str(BATCHES[-1])] * read * 3 * 4 / 1e9
            row["of_copy"] = row["gb_per_s"] / copy
        rows.append(row)
    return rows


def format_table(environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per contender: speed, ratio to the first of its metric (batch 32), agreement, memory."""
    lines = [
        f"images/s, {environment['images']}",
        f"{'metric':9} {'package':22}"
        + "".join(f"{f'batch {batch}':>11}" for batch in BATCHES)
        + f"{'ours/this':>11}{'differs':>10}{'memory':>10}",
    ]
    for row in rows:
        head = f"{row['metric']:9} {row['system']:22}"
        if "error" in row:
            lines.append(f"{head} {row['error']}")
            continue
        beside = f"{row['ours_over_this']:11.2f}{row['differs']:10.1e}" if "differs" in row else f"{'':21}"
        lines.append(
            head
            + "".join(f"{row['images_per_s'][str(batch)]:11.0f}" for batch in BATCHES)
            + f"{beside}{row['memory_mb']:7.0f} MB"
        )
    copies = [row for row in rows if "of_copy" in row]
    if copies:
        lines.append(f"copy: {environment['copy_gb_per_s']:.0f} GB/s")
        lines += [f"{r['system']}: {r['gb_per_s']:.0f} GB/s, {r['of_copy']:.2f} of the copy" for r in copies]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
