"""Training speed of MIM compared with the same training in PyTorch: same weights, images, order and holes.

    python -m benchmarks.training                                        # pip install ".[bench]"
    python -m benchmarks.training --size=quick --batch=32
    python -m benchmarks.training --device=gpu --dtype=bfloat16 --batch=128 --json=training.json

`mim_jax` is the program used for training: `mim_jax.train.epochs.run_epochs` with donated state, one epoch
per dispatch on CPU and ten elsewhere. `torch_eager` is PyTorch as usually written. `torch_tuned` has
channels_last, torch.compile and fused Adam. With --dtype=bfloat16 both run under autocast and keep float32
weights; float32 means float32 everywhere, without TF32. Images are on the device as uint8, and each step
makes its holes there.

`without_NAME` is this package without one of its optimisations: convolutions of `lax` (`matrix_forms`), the
bottleneck not merged with the layer after it (`composition`), kernel gradients of products derived by JAX
(`plain_gradient`), temporary memory returned to the system after each dispatch (`kept_memory`). launch.py
keeps this memory, and so does `mim_jax` here; PyTorch's rows use the default settings of the C library, as
its users do.

All systems start with the same weights. A step updates both networks on all `--batch` images, in the order
and with the holes that this package's key gives: this package draws them inside its step, PyTorch has them
ready on the device. Below the table are the pixel losses of the first updates, which show that the work is
the same. Rounding differs: sign changes before a ReLU and Adam's division let trainings gradually diverge.

Each system has its own process, so that memory and first call can be measured; each round runs all systems in
turn, one at a time, and the fastest round counts. "first call" is one dispatch with compilation, from empty
caches. "memory" is the peak of the process beyond its memory before there was a network: on CPU resident
memory as reported by Linux, after the first call and including what the compilers left; on a GPU the memory
allocated there by the framework since its start. TFLOP/s count the multiplications and additions of the
published layers, even for systems that need fewer; "of peak" compares them with the fastest large matrix
product of that dtype by any system in this run.
"""

import argparse
import functools
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.results import write_json
from benchmarks.systems import (
    PRODUCT,
    SIZES,
    SYSTEMS,
    Inputs,
    make_config,
    make_inputs,
    training_flops,
)
from benchmarks.worker import Failed, Worker

SYSTEMS_COMPARED = ("mim_jax", "torch_eager", "torch_tuned")
PROOF = 10  # number of updates whose losses are compared


def measure(
    inputs: Inputs, names: Sequence[str], *, rounds: int, steps: int, limit: float | None = None
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Train with every system in turn; a system with a call longer than `limit` seconds is dropped.

    Yields, after each round:
      The values common to all systems, and one row per system: "system" and "error" if it failed.
    """
    workers: dict[str, Worker] = {}
    rows: dict[str, dict[str, Any]] = {name: {"system": name} for name in names}
    times: dict[str, list[float]] = {}
    side = PRODUCT[inputs.device]

    def attempt(name: str, act: Callable[[str], None]) -> None:
        try:
            act(name)
        except Failed as error:
            rows[name] = {"system": name, "error": str(error)}
            if name in workers:
                workers.pop(name).stop()

    def first(name: str) -> None:
        workers[name] = worker = Worker(name, inputs, timeout=limit)
        spent, losses = worker.ask(("update", 0, inputs.dispatch), timeout=limit)
        rows[name] |= {"device": worker.name, "first_call_s": spent, "losses": losses.tolist()}
        if inputs.dispatch < PROOF:
            _, losses = worker.ask(("update", inputs.dispatch, PROOF - inputs.dispatch), timeout=limit)
            rows[name]["losses"] += losses.tolist()
        worker.ask(("product", side), timeout=limit)  # compiles it, or starts its threads

    def work(name: str, start: int) -> None:
        spent, _ = workers[name].ask(("update", start, steps), timeout=limit)
        again, _ = workers[name].ask(("product", side), timeout=limit)
        times[name] = [min(a, b) for a, b in zip(times.get(name, (np.inf,) * 2), (spent, again), strict=True)]

    def peak(name: str) -> None:
        held = workers[name].ask(("peak",))
        rows[name]["peak_memory_mb"] = None if held is None else held / 1e6

    try:
        for name in names:
            attempt(name, first)
        for start in range(PROOF, PROOF + rounds * steps, steps):
            for name in list(workers):
                attempt(name, functools.partial(work, start=start))
            for name in list(workers):
                attempt(name, peak)
            yield _compute(inputs, rows, times, steps)
    finally:
        for worker in workers.values():
            worker.stop()


def _compute(
    inputs: Inputs, rows: Mapping[str, dict[str, Any]], times: Mapping[str, list[float]], steps: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Add speeds to each row, from its times for the updates and for a matrix product."""
    flops, batch = training_flops(inputs.config), len(inputs.images)
    side = PRODUCT[inputs.device]
    fine = [name for name, row in rows.items() if "error" not in row]
    top = max((2 * side**3 / times[name][1] for name in fine), default=0.0)
    for name in fine:
        seconds = times[name][0] / steps
        rows[name] |= {
            "images_per_s": batch / seconds,
            "ms_per_step": 1000 * seconds,
            "tflops_per_s": flops * batch / seconds / 1e12,
            "share_of_peak": flops * batch / seconds / top,
        }
    return {"gflop_per_image": flops / 1e9, "peak_tflops_per_s": top / 1e12}, list(rows.values())


def describe(config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Describe the machine and the configuration."""
    return {
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],  # of other work: measured before anything starts
        "python": platform.python_version(),
        "image_size": config["data"]["image_size"],
        "width": config["generator"]["width"],
        "batch": config["training"]["batch_size"],
        "dtype": config["training"]["precision"],
        **more,
    }


def format_table(environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Format one line per system, and their losses side by side."""
    e = environment
    fine = [row for row in rows if "error" not in row]
    lines = [
        f"{e['machine']}, {e['cpus']} CPUs, load {e['load']:.1f} before, Python {e['python']}",
        *(f"{row['system']}: {row['device']}" for row in fine),
        f"batch {e['batch']} of {e['image_size']}x{e['image_size']} pixels, width {e['width']}, "
        f"{e['dtype']}; {e['gflop_per_image']:.3g} GFLOP an image as printed; best of {e['rounds']} rounds "
        f"of {e['steps']} updates; peak {e['peak_tflops_per_s']:.3g} TFLOP/s",
        "",
        f"{'system':26}{'images/s':>10}{'ms/step':>10}{'TFLOP/s':>9}{'of peak':>9}{'memory':>11}"
        f"{'first call':>12}{'ours/this':>11}",
    ]
    ours = next((row["images_per_s"] for row in fine if row["system"] == "mim_jax"), None)
    for row in rows:
        if "error" in row:
            lines.append(f"{row['system']:26}not measured: {row['error']}")
            continue
        memory = "n/a" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f} MB"
        ratio = "" if ours is None else f"{ours / row['images_per_s']:.2f}"
        lines.append(
            f"{row['system']:26}{row['images_per_s']:10.1f}{row['ms_per_step']:10.1f}"
            f"{row['tflops_per_s']:9.3g}{row['share_of_peak']:9.1%}{memory:>11}{row['first_call_s']:10.1f} s"
            f"{ratio:>11}"
        )
    if fine:
        lines += ["", "pixel loss in each of the first updates", *_losses(fine)]
    return "\n".join(lines)


def _losses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    table = np.array([row["losses"] for row in rows]).T
    width = 2 + max(len(row["system"]) for row in rows)
    lines = ["update" + "".join(f"{row['system']:>{width}}" for row in rows)]
    lines += [f"{n + 1:6}" + "".join(f"{value:{width}.6f}" for value in line) for n, line in enumerate(table)]
    if len(rows) > 1:
        first = rows[0]
        apart = np.abs(table / table[:, :1] - 1).max(0)[1:]
        lines += [
            f"largest difference to {first['system']}: {row['system']} {100 * each:.2g} %"
            for row, each in zip(rows[1:], apart, strict=True)
        ]
    return lines


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Make the parser with the options common to all benchmarks of training."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="full", help="variant of configs/mim.py")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write all results to this file")
    return parser


def positive(text: str) -> int:
    """Parse a whole number above 0, for argparse."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--batch", type=positive, help="images per batch; default 8 on CPU, 128 on GPU")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=10, help="updates per round; on a GPU in tens")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=SYSTEMS_COMPARED)
    parser.add_argument("--limit", type=positive, help="time limit of a call in seconds; default none")
    modes = ("default", "reduce-overhead", "max-autotune")
    parser.add_argument("--compile-mode", choices=modes, default="default", help="mode of torch.compile")
    options = parser.parse_args(arguments)
    if options.device == "gpu" and options.steps % 10:
        parser.error(f"--steps={options.steps} on a GPU must be a multiple of 10, the updates per dispatch")
    batch = options.batch or {"cpu": 8, "gpu": 128}[options.device]
    config = make_config(options.size, batch=batch, dtype=options.dtype)
    more = {"size": options.size, "rounds": options.rounds, "steps": options.steps}
    environment = describe(config, device=options.device, compile_mode=options.compile_mode, **more)
    jax.config.update("jax_platforms", "cpu")  # in this process only: the workers use the GPU
    updates = PROOF + options.rounds * options.steps
    inputs = make_inputs(config, device=options.device, updates=updates, compile_mode=options.compile_mode)
    settings = {"rounds": options.rounds, "steps": options.steps, "limit": options.limit}
    for common, rows in measure(inputs, options.systems, **settings):
        if all("error" in row for row in rows):
            sys.exit("benchmarks.training: " + "; ".join(dict.fromkeys(row["error"] for row in rows)))
        write_json(options.json, environment | common, rows)
    print(format_table(environment | common, rows))


if __name__ == "__main__":
    main()
