"""The memory that a program needs is compared with free memory before it runs."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax.train import memory

GIB = 2**30
MEMINFO = "MemTotal: 100 kB\nMemAvailable: 4194304 kB\nSwapFree: 1048576 kB\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 5 GiB free, swap included; the function returned adds a control group."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(MEMINFO)

    def group(line, folder, **files):
        (tmp_path / "proc" / "self" / "cgroup").write_text(line + "\n")
        (tmp_path / "cgroup" / folder).mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / "cgroup" / folder / name.replace("__", ".")).write_text(str(text))

    return group


def test_free_is_what_the_machine_has(machine):
    assert memory.free_memory() == 5 * GIB


def test_free_is_what_a_control_group_leaves_with_files_that_can_be_dropped(machine):
    held = {"memory__current": 2 * GIB, "memory__stat": f"anon 5\ninactive_file {GIB}\n"}
    machine("0::/job/step", "job", memory__max=3 * GIB, **held)
    assert memory.free_memory() == 2 * GIB


def test_free_is_what_an_old_control_group_leaves(machine):
    machine("4:memory:/box", "memory", memory__limit_in_bytes=3 * GIB, memory__usage_in_bytes=2 * GIB)
    assert memory.free_memory() == GIB


def test_a_group_without_a_limit_leaves_what_the_machine_has(machine):
    machine("0::/", ".", memory__max="max", memory__current=2 * GIB)
    assert memory.free_memory() == 5 * GIB


def test_free_memory_is_none_if_unknown(machine, tmp_path):
    (tmp_path / "proc" / "meminfo").unlink()
    assert memory.free_memory() is None


def test_a_gpu_says_what_it_may_hold():
    class Card:
        platform = "gpu"

        def __init__(self, stats):
            self.memory_stats = lambda: stats

    assert memory.free_memory(Card({"bytes_limit": 10, "bytes_in_use": 4})) == 6
    assert memory.free_memory(Card(None)) is None


@pytest.fixture
def told(monkeypatch):
    """Function of a program's needs and of free memory, in GiB, that returns the warnings."""

    def told(needed, free):
        monkeypatch.setattr(memory, "estimate", lambda compiled: needed * GIB)
        monkeypatch.setattr(memory, "free_memory", lambda device: free * GIB)
        program, said = jax.jit(lambda state, epochs: epochs), []
        given = {"what": "the training", "smaller": ("batch", "width"), "say": said.append}
        assert memory.check_program(program, None, jnp.arange(1), **given) == needed * GIB
        return said

    return told


def test_a_program_that_barely_fits_is_warned_about(told):
    assert told(7.9, 10) == []
    assert told(9, 10) == [
        "memory: the training needs 9.0 GiB of memory, and 10.0 GiB are free, which is close; if the run is "
        "killed, lower --config.batch or --config.width in a new --workdir, or use a GPU"
    ]


def test_what_does_not_fit_is_refused_with_both_figures(told):
    with pytest.raises(
        ValueError, match=r"^the training needs 11\.0 GiB .* 10\.0 GiB are free: lower --conf"
    ):
        told(11, 10)


def test_a_program_is_compiled_once_and_refused_where_it_does_not_fit(monkeypatch):
    compiled = []

    def hear(event, duration_secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    def body(state, epochs, side):
        return state + jnp.sum(jnp.sin(jnp.outer(side, side)) @ jnp.ones((len(side), 3))) + epochs[0], {}

    run, side = jax.jit(body, donate_argnames="state"), jnp.arange(1000.0)
    program = SimpleNamespace(lower=functools.partial(run.lower, side=side))
    state, epochs = jnp.float32(0), jax.device_put(np.arange(1, dtype=np.int32))
    given = {"what": "it", "smaller": ("data.image_size", "training.batch_size"), "say": pytest.fail}
    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        memory.check_program(program, state, epochs, **given)
        run(state, epochs, side=side)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert len(compiled) == 1
    monkeypatch.setattr(memory, "free_memory", lambda device: 1e6)  # the square has 4 MB
    with pytest.raises(ValueError, match=r"data\.image_size or --config\.training\.batch_size.*a GPU$"):
        memory.check_program(program, jnp.float32(0), epochs, **given)
