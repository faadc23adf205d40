"""Settings of the process: device, compilation cache, memory, profile.

The library does none of this on its own; `mim_jax.cli.main` and the benchmarks do.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def choose_device(device: str) -> None:
    """Choose where JAX computes; ValueError where a GPU is asked for and not found."""
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif device == "gpu":
        try:
            jax.devices("gpu")
        except RuntimeError as error:
            raise ValueError(
                f"--device=gpu was asked for, but JAX finds none ({str(error).splitlines()[0]}): install the "
                "[cuda12] extra and an NVIDIA driver, or use --device=auto"
            ) from error


def use_compilation_cache() -> None:
    """Keep compiled programs in a folder of this user alone: JAX trusts what it finds there."""
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mim_jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except (OSError, RuntimeError):
        return  # no home, or one that cannot be written, costs time, nothing else
    jax.config.update("jax_compilation_cache_dir", str(folder))


class Profile:
    """Recording of one dispatch of a training, once it is compiled: a trace for Perfetto or XProf."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.done = False  # whether the trace is written

    def wrap(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function that runs epochs: its second dispatch is recorded, unless one already is."""
        seen = set[int]()

        def dispatch(state: Any, epochs: Any) -> Any:
            # Another number of epochs is another program, which compiles first.
            if self.done or len(epochs) not in seen:
                seen.add(len(epochs))
                return run(state, epochs)
            self.done = True
            with jax.profiler.trace(self.folder):
                return jax.block_until_ready(run(state, epochs))

        return dispatch
