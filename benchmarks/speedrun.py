"""Time of the whole experiment: training of all folds, scores of all test images, and the table of AUROC.

    python -m benchmarks.speedrun
    python -m benchmarks.speedrun --device=gpu --json=speedrun.json
    python -m benchmarks.speedrun --size=quick --epochs=2

Uses procedural images and the functions that launch.py calls, without the parts that the paper does not have:
autoencoder, baselines and report. It runs twice, each time in a fresh process and folder: "cold" starts with
an empty compilation cache, "warm" with the cache that "cold" filled. "compiling" is the part of a stage in
which JAX traced, compiled or fetched programs; "start" is the start of the process, imports included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import write_json
from benchmarks.training import SIZES, describe, make_parser, positive
from configs import mim

STAGES = {
    "start": "start of the process",
    "read": "draw the images",
    "train": "train, saving checkpoints",
    "load": "restore the folds",
    "score": "score every test image",
    "tables": "AUROC with intervals",
}


class Stopwatch:
    """Measures wall time of each stage, and the part of it that JAX spent on tracing and compiling."""

    def __init__(self) -> None:
        import jax

        self.stages: dict[str, dict[str, float]] = {}
        self._began = time.perf_counter()
        self._compiling: list[tuple[float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith(("/jax/core/compile/", "/jax/compilation_cache/cache_retrieval")):
            now = time.perf_counter()
            self._compiling.append((now - duration_secs, now))

    def lap(self, stage: str) -> None:
        """End a stage and start the next."""
        now = time.perf_counter()
        spent = {"seconds": now - self._began, "compiling": covered(self._compiling)}
        self.stages[stage] = spent
        self._began, self._compiling = now, []


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals: a function traced in another is reported twice but counts once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def run(given: Mapping[str, Any], folder: Path, device: str) -> dict[str, Any]:
    """Run the configured experiment in this process, from images to AUROC; `folder` must be empty.

    Returns:
      "stages": name -> {"seconds", "compiling"}; "auroc": mean over folds on the augmented test images by
      the deciding metric; "scored": number of images scored; "device".
    """
    from mim_jax.cli.runtime import choose_device, use_compilation_cache
    from mim_jax.evaluate.folds import load_folds
    from mim_jax.evaluate.statistics.summary import summarize
    from mim_jax.evaluate.test_set import make_test_set
    from mim_jax.train import config, mim, trainer
    from mim_jax.train.heap import keep_freed_memory
    from mim_jax.train.metric_writer import Recorder

    choose_device(device)
    use_compilation_cache()
    keep_freed_memory()
    import jax

    clock = Stopwatch()
    settings = config.parse(given)
    mim.check(settings)
    experiment = config.build(settings, mim, clinical=False)
    dataset = experiment.dataset
    clock.lap("read")
    with Recorder(folder) as recorder:
        trainer.train(mim.trainings(experiment, folder), settings.training, recorder)
    clock.lap("train")
    folds = load_folds(experiment, folder)
    clock.lap("load")
    options, seed = settings.evaluation, settings.seed
    test_set = make_test_set(dataset, experiment.splits, mode=options.augmentation, seed=seed)
    scores = []
    for fold, part in zip(folds, test_set.parts, strict=True):
        found = fold.detector.similarities(test_set.images[part])
        scores.append({name: values[0] for name, values in found.items()})
    scored = test_set.scored(scores)
    clock.lap("score")
    metric = mim.mim_settings(settings).measure.metric
    table = summarize({"mim": scored}, primary=metric, resamples=options.resamples, seed=seed)
    clock.lap("tables")
    return {
        "stages": clock.stages,
        "auroc": table["auroc"]["augmented"]["mim"][metric]["mean"],
        "scored": sum(map(len, scored)),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}",
    }


def make_config(size: str, epochs: int | None) -> dict[str, Any]:
    """Make the configuration of that size without the autoencoder; `epochs` None = its default."""
    config = mim.get_config(SIZES[size])
    config.training.autoencoder = False
    config.training.epochs = epochs or config.training.epochs
    return config.to_dict()


def run_child(options: argparse.Namespace, cache: str) -> dict[str, Any]:
    """Run this program in a fresh process; return the result of `run`, "total_s" and the stage "start"."""
    command = [sys.executable, "-m", "benchmarks.speedrun", "--child"]
    command += [f"--size={options.size}", f"--device={options.device}"]
    command += [f"--epochs={options.epochs}"] if options.epochs else []
    began = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    )
    total = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.returncode)  # the child has printed the reason
    found = json.loads(done.stdout.splitlines()[-1])
    start = total - sum(stage["seconds"] for stage in found["stages"].values())
    found["stages"] = {"start": {"seconds": start, "compiling": 0.0}, **found["stages"]}
    return {"total_s": total, **found}


def format_table(environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Format one line per stage and a pair of columns per run."""
    e = environment
    lines = [
        f"{e['machine']}, {e['cpus']} CPUs, load {e['load']:.1f} before, Python {e['python']}; "
        f"{rows[0]['device']}",
        f"{e['folds']} folds x {e['epochs']} epochs, batch {e['batch']} of "
        f"{e['image_size']}x{e['image_size']} pixels, width {e['width']}, precision {e['dtype']}; "
        f"{rows[0]['scored']} scores",
        "",
        f"{'seconds':28}" + "".join(f"{row['system']:>10}{'compiling':>12}" for row in rows),
    ]
    for stage, title in STAGES.items():
        parts = [row["stages"][stage] for row in rows]
        lines.append(f"{title:28}" + "".join(f"{p['seconds']:10.1f}{p['compiling']:12.1f}" for p in parts))
    totals = [(row["total_s"], sum(p["compiling"] for p in row["stages"].values())) for row in rows]
    lines.append(f"{'all':28}" + "".join(f"{total:10.1f}{compiling:12.1f}" for total, compiling in totals))
    lines.append(
        f"{'AUROC (procedural images)':28}" + "".join(f"{row['auroc']:10.4f}{'':12}" for row in rows)
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--epochs", type=positive, help="default: the value of configs/mim.py")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    config = make_config(options.size, options.epochs)
    if options.child:
        try:
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps(run(config, Path(folder), options.device)))
        except ValueError as error:
            sys.exit(f"benchmarks.speedrun: {error}")
        return
    folds, epochs = config["data"]["folds"], config["training"]["epochs"]
    environment = describe(config, device=options.device, size=options.size, folds=folds, epochs=epochs)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm"):
            rows.append({"system": name, **run_child(options, cache)})
            write_json(options.json, environment, rows)
    print(format_table(environment, rows))


if __name__ == "__main__":
    main()
