"""Shared settings: implicit rank promotion is an error, so that a broadcasting slip cannot pass unseen."""

import atexit
import gc
import os
import shutil
import signal
import tempfile

# One compilation cache for all tests: pytest workers and child processes inherit its folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mim_jax-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's threads wait for each other where cores are shared

import jax
import pytest
from jax._src import compiler

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(50_000)  # as `mim_jax.cli.runtime.prepare` does: a tenth of the time of tests that trace
# A background shell ignores SIGINT, and child processes would inherit that; some tests interrupt theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def compiled_quickly():
    """Compile in a tenth of the time, into slower programs. Not for tests of the exact bits that users get.

    The last bits of results differ: compile both sides of a comparison this way.
    """
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    options = compiler.get_compile_options

    def changed(*args, env_options_overrides=None, **rest):
        more = {"xla_cpu_use_fusion_emitters": False, **(env_options_overrides or {})}
        return options(*args, env_options_overrides=more, **rest)

    with pytest.MonkeyPatch.context() as patch:
        # JAX has no public setting for XLA's options in a process that runs already.
        patch.setattr(compiler, "get_compile_options", changed)
        yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def with_small_networks():
    """All trainings of a module have small networks in place of MIM's."""
    from small_training import small_networks

    with small_networks():
        yield
