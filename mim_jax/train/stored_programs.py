"""Traced trainings, stored in a folder so that a later start neither traces nor lowers them again.

JAX's compilation cache spares a warm start XLA's compiler, but not tracing and lowering in Python, which then
take longest. So the traced program is stored too, as `jax.export` serializes it.

A stale program would silently train another network. So its name is a digest of all that it is made from: the
recipe of the task, the arguments' shapes and dtypes, JAX's settings, and the path, size and modification time
of every file of this package and of every other module that this process has loaded.
"""

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export

import mim_jax

Run = Callable[[Any, jax.Array, Any], tuple[Any, Any]]  # state, epochs, rest -> state after them, metrics


class StoredPrograms:
    """Traced trainings in a folder, private to this user like JAX's cache."""

    def __init__(self, folder: Path, code: Sequence[str] = ()):
        """`code` names files, other than modules, that can change a training: a --config file may."""
        self._folder, self._files = folder, code
        self._runs = dict[str, Any]()

    def find(self, recipe: str, run: Run, state: Any, epochs: jax.Array, rest: Any) -> Any:
        """Return `run` as a jitted function that donates its first argument; trace it only if it is new.

        Args:
          recipe: text that determines `run`, together with the code.
          run: function to trace; its metrics are a dict of arrays.
          state, epochs, rest: its arguments, on one device. Only shapes and dtypes matter.
        """
        leaves, tree = jax.tree.flatten((state, epochs, rest))
        types = map(jax.typeof, leaves)
        shapes = [(each.shape, str(each.dtype), getattr(each, "weak_type", False)) for each in types]
        settings = sorted(jax.config.values.items())
        made_from = (recipe, shapes, str(tree), jax.export.default_export_platform(), settings, self._code)
        name = _digest(repr(made_from).encode()).hex()
        if name not in self._runs:
            inner = jax.tree.structure(state)  # leaves are exported: `jax.export` knows no type of ours
            exported = self._load(name)
            if exported is None:
                exported = _export(run, inner, state, epochs, rest)
                self._save(name, exported.serialize())
            self._runs[name] = _jitted(exported, inner)
        return self._runs[name]

    @functools.cached_property
    def _code(self) -> bytes:
        """Digest of the code, from the first use on: tracing may load more modules."""
        return _digest(repr(_describe_code(self._files)).encode())

    def _load(self, name: str) -> jax.export.Exported | None:
        try:
            stored = (self._folder / f"{name}.stablehlo").read_bytes()
        except OSError:
            return None
        digest, program = stored[:32], stored[32:]
        return jax.export.deserialize(bytearray(program)) if _digest(program) == digest else None

    def _save(self, name: str, program: bytes | bytearray) -> None:
        """Store a program, complete or not at all; without a writable folder only time is lost."""
        unfinished = self._folder / f"{name}.{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            unfinished.write_bytes(_digest(program) + program)
            unfinished.replace(unfinished.with_suffix(".stablehlo"))
        except OSError:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)


def _export(run: Run, tree: Any, *arguments: Any) -> jax.export.Exported:
    state, epochs, rest = arguments

    def run_epochs(leaves: list[jax.Array], epochs: jax.Array, rest: Any) -> Any:
        state, metrics = run(jax.tree.unflatten(tree, leaves), epochs, rest)
        return jax.tree.leaves(state), metrics

    jitted = jax.jit(run_epochs, donate_argnums=0)
    return jax.export.export(jitted)(jax.tree.leaves(state), epochs, rest)


def _jitted(exported: jax.export.Exported, tree: Any) -> Any:
    @functools.partial(jax.jit, donate_argnums=0)
    def run_epochs(state: Any, epochs: jax.Array, rest: Any) -> tuple[Any, Any]:
        leaves, metrics = exported.call(jax.tree.leaves(state), epochs, rest)
        return jax.tree.unflatten(tree, leaves), metrics

    return run_epochs


def _describe_code(code: Sequence[str]) -> list[tuple[str, int, int]]:
    """Path, size and modification time of the files of this package, of all loaded modules, and of `code`."""
    own = Path(mim_jax.__file__).parent.rglob("*.py")
    loaded = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    found = []
    for path in {*map(str, own), *filter(None, loaded), *code}:
        with contextlib.suppress(OSError):  # a module out of an archive has no file of its own
            stat = Path(path).stat()
            found.append((path, stat.st_size, stat.st_mtime_ns))
    return sorted(found)


def _digest(data: bytes | bytearray) -> bytes:
    return hashlib.sha256(data).digest()
