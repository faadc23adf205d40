"""Processes end on a scheduler's request even if the main thread never returns from compiled code."""

import re
import signal
import time

import pytest
from launching import LIMIT, start

from mim_jax.train import preemption

TRAINING = """
import sys, time
from dataclasses import replace
from pathlib import Path
import jax
from small_training import SETTINGS, counting
from mim_jax.train import metric_writer, preemption, trainer

preemption.GRACE = 0.4
forever = jax.jit(lambda x: jax.lax.while_loop(lambda x: x > 0, lambda x: x + 1, x))

def wrap(run):
    def slow(state, numbers):
        state, metrics = run(state, numbers)
        if int(numbers[0]) == 3:  # its fourth epoch
            print("hangs", flush=True)
            return state, {"loss": forever(1.0)[None]}
        time.sleep(0.3)
        return state, metrics
    return slow

path, settings = Path(sys.argv[1]), replace(SETTINGS, epochs=9, checkpoint_every=9)
with metric_writer.Recorder(path) as recorder:
    trainer.train([counting(path, 0)], settings, recorder, wrap=wrap)
"""
EVALUATION = """
import jax
from mim_jax.train import preemption

preemption.GRACE = 0.4
with preemption.terminable("stopped"):
    print("hangs", flush=True)
    jax.jit(lambda x: jax.lax.while_loop(lambda x: x > 0, lambda x: x + 1, x))(1.0).block_until_ready()
"""


def stopped(*arguments):
    """Output of a process between SIGTERM and its end, which only the watcher can bring about."""
    process = start("-c", *arguments)
    try:
        assert process.stdout.readline() == "hangs\n", process.stderr.read()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, said
        return said
    finally:
        process.kill()


def test_an_epoch_without_end_is_given_up_and_the_one_before_it_saved(tmp_path):
    said = stopped(TRAINING, tmp_path)
    assert re.search("stopped after epoch 3 of fold 0 and saved: the same command", said)
    assert [int(step.name) for step in (tmp_path / "fold_0" / "checkpoints").iterdir()] == [3]


def test_what_has_nothing_to_save_ends_too():
    assert stopped(EVALUATION).endswith("mim_jax: stopped\n")


def test_termination_is_an_exception_where_python_runs():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(preemption.Terminated), preemption.terminable("stopped"):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
