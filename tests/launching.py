"""Start Python processes from tests, with their working directory, environment and time limit."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 1200  # seconds; only ends a hang, far more than a loaded machine needs
# Like the fixture compiled_quickly.
QUICKLY = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
# A run of MIM that takes seconds.
TINY = {
    "data.image_size": 32,
    "mask.size": 16,
    "data.folds": 2,
    "data.procedural_positives": 12,
    "data.procedural_negatives": 18,
    "generator.width": 4,
    "generator.bottleneck_channels": 8,
    "discriminator.width": 4,
    "training.epochs": 6,
    "training.batch_size": 4,
    "training.checkpoint_every": 2,
    "training.panel_every": 3,
    "evaluation.resamples": 50,
    "evaluation.procedural_clinical": 18,
    "evaluation.robustness_images": 3,
}


def environment(**changed):
    """Environment of a child process; it shares the compilation cache set in tests/conftest.py."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return {**os.environ, "PYTHONPATH": path, **changed}


def start(*arguments, **changed):
    """Start Python with these arguments and changed environment variables."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment(**changed),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes, expect=0):
    """Wait until all processes exit with status `expect`; return (stdout, stderr) of each."""
    try:
        said = [process.communicate(timeout=LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert {process.returncode for process in processes} == {expect}, [err[-3000:] for _, err in said]
    return said


def has_ended(process, *, timeout=None):
    """Whether a process ends within `timeout` seconds; raise SystemExit if it failed."""
    try:
        _, said = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return False
    if process.returncode:
        raise SystemExit(f"a start ended with {process.returncode}: {said[-2000:]}")
    return True


def launch(*arguments, expect=0, **changed):
    """Run launch.py with these arguments and changed environment variables; return (stdout, stderr)."""
    (said,) = finish(start("launch.py", *arguments, **changed), expect=expect)
    return said


def tiny(workdir, *rest, **fields):
    """Arguments of launch.py for the `TINY` run in a workdir."""
    flags = [f"--config.{name}={value}" for name, value in {**TINY, **fields}.items()]
    return ["--config=configs/mim.py:quick", f"--workdir={workdir}", *flags, *rest]
