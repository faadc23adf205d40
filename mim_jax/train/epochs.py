"""Epochs of any training as one program: shuffled batches, a step on each, metrics averaged over examples.

The only module that jits and scans a training and donates its state.
"""

import functools
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from mim_jax.train.stored_programs import StoredPrograms

Metrics = dict[str, jax.Array]


class Task(Protocol):
    """A network to train: a frozen, hashable object of pure functions, such as `inpaint.gan.GanConfig`."""

    def init(self, key: jax.Array) -> Any:
        """Draw the initial state."""

    def step(self, state: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> tuple[Any, Metrics]:
        """Update once, on a batch of examples.

        `key` belongs to the whole training: the step folds the number of the update into it.
        """


@functools.partial(jax.jit, static_argnames="task")
def init_state(task: Task, key: jax.Array) -> Any:
    """Draw the initial state, as one program."""
    return task.init(key)


@functools.partial(
    jax.jit, static_argnames=("task", "batch_size", "drop_last", "split"), donate_argnames="state"
)
def run_epochs(
    task: Task,
    state: Any,
    epochs: jax.Array,
    *,
    examples: Mapping[str, jax.Array],
    scalars: Mapping[str, jax.Array],
    key: jax.Array,
    batch_size: int,
    drop_last: bool,
    split: NamedSharding | None = None,
) -> tuple[Any, Metrics]:
    """Run whole epochs of a task in one dispatch; `state`, from before them, is donated.

    Args:
      epochs: int32 `[E]`, the epoch numbers to run.
      examples: arrays `[N, ...]` by name, all on the device; a batch takes rows of each.
      scalars: additional values of every batch.
      key: the fold's key; the order of epoch e depends only on it and e.
      batch_size: examples per update; the last, shorter batch has its own static shape (no padding that
        BatchNorm would see).
      drop_last: skip the short batch.
      split: how a batch is split over the devices, along its first axis; None = one device. Each device
        computes all of a short last batch whose length is not a multiple of their number.

    Returns:
      The final state, and the metrics averaged over each epoch's examples: `[E]` each.
    """
    step_key = jax.random.fold_in(key, 1)
    count = len(next(iter(examples.values())))
    full = count // batch_size
    rest = 0 if drop_last else count % batch_size

    def step(state: Any, index: jax.Array) -> tuple[Any, Metrics]:
        batch = {name: column[index] for name, column in examples.items()}
        return task.step(state, {**batch, **scalars}, step_key)

    def update(state: Any, batch: jax.Array) -> tuple[Any, Metrics]:
        if split is None:
            return step(state, batch)
        share = len(batch) % split.num_devices == 0
        batch = lax.with_sharding_constraint(batch, split if share else _whole(split))
        # Otherwise the compiler may leave parts of the state on the device that computed them.
        return lax.with_sharding_constraint(step(state, batch), _whole(split))

    def epoch(state: Any, order: jax.Array) -> tuple[Any, Metrics]:
        batches = order[: full * batch_size].reshape(full, batch_size)
        state, metrics = lax.scan(update, state, batches)
        total = {name: jnp.sum(values) * batch_size for name, values in metrics.items()}
        if rest:
            state, last = update(state, order[full * batch_size :])
            total = {name: value + last[name] * rest for name, value in total.items()}
        return state, {name: value / (full * batch_size + rest) for name, value in total.items()}

    return lax.scan(epoch, state, epoch_orders(key, count, epochs))


def steps_per_epoch(examples: int, batch_size: int, *, drop_last: bool) -> int:
    """Updates in one pass over the data; a short last batch counts unless dropped."""
    return examples // batch_size if drop_last else -(-examples // batch_size)


def epoch_orders(key: jax.Array, examples: int, epochs: jax.Array) -> jax.Array:
    """A separate shuffle of 0 .. examples-1 for each number in `epochs` `[E]`: int32 `[E, examples]`."""
    shuffle = jax.random.fold_in(key, 0)
    return jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(shuffle, e), examples))(epochs)


def _whole(split: NamedSharding) -> NamedSharding:
    return NamedSharding(split.mesh, PartitionSpec())


class Program:
    """`run_epochs` for one training on one device group; it can be compiled ahead of time."""

    def __init__(
        self,
        task: Task,
        *,
        examples: Mapping[str, jax.Array],
        scalars: Mapping[str, jax.Array],
        key: jax.Array,
        programs: StoredPrograms | None = None,
        recipe: str = "",
        **static: Any,
    ):
        """Take the arguments of `run_epochs`; `static` are those that it is traced with.

        The traced program comes from `programs`, if given, where `recipe` is a text that determines `task`.
        """
        self._task, self._static = task, static
        self._arrays = {"examples": examples, "scalars": scalars, "key": key}
        self._programs, self._recipe = programs, f"{recipe} {static}"
        self._found = dict[int, Any]()  # number of epochs -> program

    def __call__(self, state: Any, epochs: jax.Array) -> tuple[Any, Metrics]:
        function, positional, named = self._bind(state, epochs)
        return function(*positional, **named)

    def lower(self, state: Any, epochs: jax.Array) -> Any:
        """Lower the program without compiling it, like `lower` of a jitted function."""
        function, positional, named = self._bind(state, epochs)
        return function.lower(*positional, **named)

    def _bind(self, state: Any, epochs: jax.Array) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Return the jitted function and its arguments."""
        if self._programs is None:
            return run_epochs, (self._task, state, epochs), {**self._arrays, **self._static}
        arguments = (state, epochs, self._arrays)
        if len(epochs) not in self._found:
            self._found[len(epochs)] = self._programs.find(self._recipe, self._trace, *arguments)
        return self._found[len(epochs)], arguments, {}

    def _trace(self, state: Any, epochs: jax.Array, arrays: Any) -> tuple[Any, Metrics]:
        return run_epochs(self._task, state, epochs, **arrays, **self._static)
