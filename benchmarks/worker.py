"""A system of `benchmarks.systems` in its own process, with separate memory and threads."""

import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax

from benchmarks.memory import resident
from benchmarks.systems import SYSTEMS, Inputs


class Failed(Exception):
    """A system cannot be measured; the message says why."""


class Worker:
    """A system in its own process, which only works while it answers a request."""

    def __init__(self, name: str, inputs: Inputs, *, timeout: float | None = None):
        spawn = multiprocessing.get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(other, name), daemon=True)
        self._process.start()
        other.close()
        try:
            self.name = self.ask(inputs, timeout=timeout)
        except Failed:
            self.stop()
            raise

    def ask(self, question: Any, *, timeout: float | None = None) -> Any:
        """Send "update", "product" or "peak" with its arguments, and return the answer.

        Raises:
          Failed: An error in the process, its end, or no answer within `timeout` seconds.
        """
        try:
            self._pipe.send(question)
            if not self._pipe.poll(timeout):
                raise Failed(f"took longer than {timeout:g} seconds")
            fine, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            killed = " (out of memory?)" if self._process.exitcode == -9 else ""
            raise Failed(f"its process ended with status {self._process.exitcode}{killed}") from error
        if not fine:
            raise Failed(answer)
        return answer

    def stop(self) -> None:
        """End the process and release its memory."""
        self._pipe.close()
        self._process.join(5)  # it ends by itself unless it is busy
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, name: str) -> None:
    """Run in the worker process: make the system from the `Inputs` received first, then answer requests."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # other processes use the GPU too
    with tempfile.TemporaryDirectory() as cache:  # empty, so that nothing compiled earlier is reused
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        jax.config.update("jax_enable_compilation_cache", False)
        try:
            _answer(pipe, name)
        except EOFError:
            return  # the other end has closed the pipe
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            # PyTorch ends its messages with debugging advice.
            message = " ".join([line for line in lines if not line.startswith("Set TORCH")][:2])[:300]
            named = isinstance(error, ValueError | ModuleNotFoundError) and message
            pipe.send((False, message if named else f"{type(error).__name__}: {message}"))


def _answer(pipe: Connection, name: str) -> None:
    if name.startswith("torch"):
        import torch  # noqa: F401 (imported before memory is measured, so as not to count as training's)
    held = resident("VmRSS")
    inputs = pipe.recv()
    system, on_host = SYSTEMS[name](inputs), inputs.device == "cpu"
    del inputs
    pipe.send((True, system.name))
    first = True
    while True:
        what, *arguments = pipe.recv()
        if what == "peak":
            answer: Any = system.peak() if not on_host else resident("VmHWM") - held if held else None
        else:
            began = time.perf_counter()
            found = getattr(system, what)(*arguments)
            answer = time.perf_counter() - began, found
        if first and on_host and held:
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        first = False
        pipe.send((True, answer))
