"""A scheduler asks processes to stop whose main thread never comes back from compiled code."""

import re
import signal
import subprocess
import sys
import time

import pytest

TRAINING = """
import sys, time
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
sys.path.insert(0, "tests")
from test_devices import SETTINGS, counting
from mim_jax import recorder, stopping, trainer
from dataclasses import replace

stopping.GRACE = 0.4
forever = jax.jit(lambda x: jax.lax.while_loop(lambda x: x > 0, lambda x: x + 1, x))
one = counting(Path(sys.argv[1]), 0)

def begin(place):
    run = one.begin(place)
    def slow(state, numbers):
        state, metrics = run(state, numbers)
        if int(numbers[0]) == 3:  # its fourth epoch
            print("hangs", flush=True)
            return state, {"loss": forever(1.0)[None]}
        time.sleep(0.3)
        return state, metrics
    return slow

with recorder.Recorder(Path(sys.argv[1])) as own:
    trainer.train([replace(one, begin=begin)], {**SETTINGS, "epochs": 9, "checkpoint_every": 9}, own)
"""
EVALUATION = """
import jax, jax.numpy as jnp
from mim_jax import stopping

stopping.GRACE = 0.4
with stopping.terminable("stopped"):
    print("hangs", flush=True)
    jax.jit(lambda x: jax.lax.while_loop(lambda x: x > 0, lambda x: x + 1, x))(1.0).block_until_ready()
"""


def stopped(code, *arguments):
    """What the process says and the seconds that it takes from SIGTERM to its end, with status 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "hangs\n", process.stderr.read()
        time.sleep(0.3)
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        return said, time.perf_counter() - began
    finally:
        process.kill()


def test_an_epoch_without_end_is_given_up_and_the_one_before_it_saved(tmp_path):
    said, seconds = stopped(TRAINING, str(tmp_path))
    assert re.search("stopped after epoch 3 of fold 1 and saved: the same command", said)
    assert [int(step.name) for step in (tmp_path / "fold_0" / "checkpoints").iterdir()] == [3]
    assert seconds < 10


def test_what_has_nothing_to_save_ends_too():
    said, seconds = stopped(EVALUATION)
    assert said.endswith("launch.py: stopped\n") and seconds < 10


def test_termination_is_an_exception_where_python_runs():
    from mim_jax.train import preemption

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(preemption.Terminated), preemption.terminable("stopped"):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
