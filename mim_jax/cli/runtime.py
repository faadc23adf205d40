"""Process-wide settings: device, compilation cache, memory, profile.

The library does none of this on its own; `mim_jax.cli.main` and the benchmarks do.
"""

import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from mim_jax.train.heap import keep_freed_memory
from mim_jax.train.stored_programs import StoredPrograms


def prepare(device: str, *, any_thread: bool = False) -> None:
    """Set up a computing process: device, dtypes, compilation cache, reuse of memory, garbage collection.

    `any_thread` says whether other threads than the main one compute; see `keep_freed_memory`.
    """
    keep_freed_memory(any_thread=any_thread)  # first: see there
    choose_device(device)
    # Not JAX_NUMPY_DTYPE_PROMOTION=strict: Optax and dm-pix do not run under it.
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    use_compilation_cache()
    # Tracing makes objects by the hundred thousand, nearly all of which live on; at Python's default, 700,
    # looking for garbage among them takes a fifth of its time.
    gc.set_threshold(50_000)


def choose_device(device: str) -> None:
    """Choose "cpu", "gpu" or "auto"; ValueError if the one requested, also by JAX_PLATFORMS, is not found."""
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    asked = "--device=gpu" if device == "gpu" else f"JAX_PLATFORMS={jax.config.values['jax_platforms']}"
    try:
        jax.devices("gpu" if device == "gpu" else None)
    # JAX raises RuntimeError, and AssertionError for CUDA without a driver.
    except (RuntimeError, AssertionError) as error:
        reason = (str(error) or "no device").splitlines()[0]
        raise ValueError(
            f"{asked} was asked for, but JAX finds none ({reason}): install the [cuda12] extra and an NVIDIA "
            "driver, or use --device=cpu"
        ) from error


def use_compilation_cache() -> None:
    """Cache compiled programs in a folder private to this user, because JAX trusts its contents."""
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mim_jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except (OSError, RuntimeError):
        return  # without a writable home only time is lost
    jax.config.update("jax_compilation_cache_dir", str(folder))


def stored_programs(code: Sequence[str]) -> StoredPrograms | None:
    """Store traced trainings beside the compiled programs, if those are stored; `code` as in the class."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    enabled = folder and jax.config.values["jax_enable_compilation_cache"]
    return StoredPrograms(Path(folder) / "traced", code) if enabled else None


class Profile:
    """Records one training dispatch after compilation, as a trace for Perfetto or XProf."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.done = False  # whether the trace is written

    def wrap(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function that runs epochs: a repeated dispatch is recorded, unless one was already."""
        seen = set[int]()

        def dispatch(state: Any, epochs: Any) -> Any:
            # A different number of epochs is a different program, which compiles first.
            if self.done or len(epochs) not in seen:
                seen.add(len(epochs))
                return run(state, epochs)
            self.done = True
            with jax.profiler.trace(self.folder):
                return jax.block_until_ready(run(state, epochs))

        return dispatch
