"""Time and memory of a training step against batch, image size and width, with a lower bound of the time.

    python -m benchmarks.growth --output=growth.png
    python -m benchmarks.growth --device=gpu --dtype=bfloat16 --output=growth.png --json=growth.json

One of the three is varied at a time. Each point is a training of this package in its own process, as in
`benchmarks.training`: the fastest of several warm rounds, and the memory beyond what the process held
before. A point that does not fit into memory, or that takes longer than --limit seconds with compilation,
is marked as such in the table and left out of the figure.

The floor is the roofline of a step: the multiplications of the published layers at the speed of a large
matrix product, or Adam's reading and writing of every parameter at the speed of a copy, whichever takes
longer. Both speeds are measured first.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib import ticker

from benchmarks.results import write_json
from benchmarks.systems import (
    DISPATCH,
    PRODUCT,
    Inputs,
    make_config,
    make_inputs,
    training_flops,
)
from benchmarks.training import describe, make_parser, positive
from benchmarks.worker import Failed, Worker
from mim_jax.report.figures import canvas

AXES = {
    "batch": (8, 16, 32, 64, 128, 256, 512, 1024),
    "image_size": (96, 128, 160, 192, 224, 256, 320, 384, 448, 512),
    "width": (16, 32, 48, 64, 96, 128),
}
TITLES = {"batch": "batch, images", "image_size": "image, pixels a side", "width": "width, features"}
# Per float32 parameter: the parameter and two moments are read and written, the gradient is read.
ADAM_BYTES = 7 * 4


def measure(inputs: Inputs, *, rounds: int, limit: float) -> dict[str, Any]:
    """Measure one point: "seconds" per step, "first_call_s" and "memory_mb", or "error"."""
    worker = None
    try:
        worker = Worker("mim_jax", inputs, timeout=limit)
        first, _ = worker.ask(("update", 0, inputs.dispatch), timeout=limit)
        starts = range(inputs.dispatch, inputs.dispatch * (rounds + 1), inputs.dispatch)
        spent = [worker.ask(("update", n, inputs.dispatch), timeout=limit)[0] for n in starts]
        held = worker.ask(("peak",), timeout=limit)
        seconds = min(spent) / inputs.dispatch
        memory = None if held is None else held / 1e6
        return {"seconds": seconds, "first_call_s": first, "memory_mb": memory}
    except Failed as error:
        return {"error": str(error)}
    finally:
        if worker:
            worker.stop()


def speeds(inputs: Inputs) -> tuple[float, float]:
    """Measure FLOP/s of a large matrix product in the training dtype, and bytes/s of a copy."""
    worker = Worker("mim_jax", inputs)
    try:
        side = PRODUCT[inputs.device]
        product = min(worker.ask(("product", side))[0] for _ in range(5))
        copies = [worker.ask(("copy", 8 * side * side)) for _ in range(5)]
    finally:
        worker.stop()
    return 2 * side**3 / product, max(moved / seconds for seconds, moved in copies)


def floor_seconds(config: Mapping[str, Any], parameters: int, flops: float, bandwidth: float) -> float:
    """Compute the roofline of a step: its multiplications or Adam's traffic, whichever takes longer."""
    products = training_flops(config) * config["training"]["batch_size"] / flops
    return max(products, ADAM_BYTES * parameters / bandwidth)


def _spread(values: Sequence[int], count: int | None) -> list[int]:
    """Select `count` evenly spaced values, including both ends; None = all."""
    if count is None or count >= len(values):
        return list(values)
    return [values[round(i)] for i in np.linspace(0, len(values) - 1, count)]


def sweep(
    options: Any, base: Mapping[str, int], settings: Mapping[str, Any], environment: dict[str, Any]
) -> list[dict[str, Any]]:
    """Measure every point of every chosen axis; adds the speeds behind the floors to `environment`."""
    rows: list[dict[str, Any]] = []
    known: dict[tuple[tuple[str, int], ...], dict[str, Any]] = {}
    for axis in options.axes:
        stopped = None
        for value in _spread(AXES[axis], options.points):
            point = {**base, axis: value}
            config = make_config(options.size, dtype=options.dtype, **point)
            row = {"axis": axis, "value": value, **point}
            if stopped:
                rows.append(row | {"error": f"not tried after {stopped}"})
                continue
            inputs = make_inputs(config, **settings)
            if "flops" not in environment:
                environment["flops"], environment["bandwidth"] = speeds(inputs)
            same = tuple(sorted(point.items()))
            if same not in known:
                known[same] = measure(inputs, rounds=options.rounds, limit=options.limit)
            parameters = sum(leaf.size for leaf in jax.tree.leaves((inputs.generator, inputs.discriminator)))
            floor = floor_seconds(config, parameters, environment["flops"], environment["bandwidth"])
            rows.append(row | {"floor_s": floor} | known[same])
            print(format_row(rows[-1]), file=sys.stderr, flush=True)
            write_json(options.json, environment, rows)
            stopped = value if "error" in rows[-1] else None
    return rows


def format_row(row: Mapping[str, Any]) -> str:
    """Format one point as a line of the table."""
    head = f"{row['axis']:11}{row['value']:6}"
    if "error" in row:
        return f"{head}  not measured: {row['error']}"
    memory = "n/a" if row["memory_mb"] is None else f"{row['memory_mb']:.0f} MB"
    seconds, floor = row["seconds"], row["floor_s"]
    return (
        f"{head}{1000 * seconds:11.1f}{1000 * floor:11.1f}{floor / seconds:9.1%}"
        f"{row['batch'] / seconds:11.1f}{memory:>12}{row['first_call_s']:10.1f} s"
    )


def format_table(environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the table, one line per point."""
    e = environment
    return "\n".join(
        (
            f"{e['machine']}, {e['cpus']} CPUs, load {e['load']:.1f} before, Python {e['python']}",
            f"{e['dtype']}; unless varied: batch {e['batch']} of {e['image_size']}x{e['image_size']} pixels, "
            f"width {e['width']}; matrix product {e['flops'] / 1e12:.3g} TFLOP/s, "
            f"copy {e['bandwidth'] / 1e9:.3g} GB/s",
            "",
            f"{'varied':17}{'ms/step':>11}{'floor, ms':>11}{'reached':>9}{'images/s':>11}{'memory':>12}"
            f"{'first call':>12}",
            *map(format_row, rows),
        )
    )


def growth_figure(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw one row of panels per axis: step time with its floor, and memory; dotted: not measured."""
    varied = list(dict.fromkeys(row["axis"] for row in rows))
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(2.1 * len(varied), "")
        for panels, axis in zip(figure.subplots(len(varied), 2, squeeze=False), varied, strict=True):
            points = [row for row in rows if row["axis"] == axis]
            fine = [row for row in points if "error" not in row]
            values = [row["value"] for row in fine]
            time, memory = panels
            for index, name in enumerate(("seconds", "floor_s")):
                style = {"color": canvas.COLORS[index], "linestyle": canvas.LINES[index]}
                heights = [1000 * row[name] for row in fine]
                time.plot(values, heights, marker=canvas.MARKERS[index], markersize=3, **style)
            held = [(row["value"], row["memory_mb"]) for row in fine if row["memory_mb"] is not None]
            if held:
                memory.plot(
                    *zip(*held, strict=True), marker=canvas.MARKERS[2], markersize=3, color=canvas.COLORS[2]
                )
            time.set(ylabel="ms a step (dashed: floor)", yscale="log")
            memory.set(ylabel="memory, MB", yscale="log")
            ticks = [row["value"] for row in points]
            for axes in panels:
                axes.set(xlabel=TITLES[axis], xscale="log", xlim=(0.9 * ticks[0], 1.1 * ticks[-1]))
                axes.set_xticks(ticks[:: 2 if len(ticks) > 5 else 1])
                axes.set_xticks([], minor=True)
                axes.xaxis.set_major_formatter("{x:.0f}")
                axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")  # plain: the canvas reads no mathematics
                axes.yaxis.set_minor_locator(ticker.NullLocator())
                for row in points:
                    if "error" in row:
                        axes.axvline(row["value"], color="#999999", linestyle=":")
                axes.grid()
        return canvas.png(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and draw the figure."""
    parser = make_parser(__doc__)
    parser.add_argument("--batch", type=positive, help="if not varied; default 8 on CPU, 128 on GPU")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--points", type=positive, help="points per axis, evenly spaced; default all")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--limit", type=positive, default=300, help="time limit of a call in seconds")
    parser.add_argument("--output", type=Path, metavar="PNG", help="file for the figure")
    options = parser.parse_args(arguments)
    plain = make_config(options.size)
    batch = options.batch or {"cpu": 8, "gpu": 128}[options.device]
    base = {
        "batch": batch,
        "image_size": plain["data"]["image_size"],
        "width": plain["generator"]["width"],
    }
    environment = describe(make_config(options.size, dtype=options.dtype, **base), device=options.device)
    jax.config.update("jax_platforms", "cpu")  # in this process only: the workers use the GPU
    settings = {"device": options.device, "updates": DISPATCH[options.device] * (options.rounds + 1)}
    try:
        rows = sweep(options, base, settings, environment)
    except Failed as error:
        sys.exit(f"benchmarks.growth: {error}")
    print(format_table(environment, rows))
    if options.output:
        options.output.write_bytes(growth_figure(rows))
    write_json(options.json, environment, rows)


if __name__ == "__main__":
    main()
