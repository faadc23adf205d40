"""Time of one training step of each classifier, in this package and in PyTorch, on the same batch, in turn.

    python -m benchmarks.classifiers                                # pip install ".[bench]"
    python -m benchmarks.classifiers --device=gpu --dtype=bfloat16 --batch=128

A step is normalisation, forward pass, cross-entropy, backward pass and Adam on uint8 images that are on the
device. PyTorch runs torchvision's network in three forms: eager, with channels_last, and compiled with
channels_last. Each time is the fastest of several warm rounds; the first call, with compilation, is separate.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks.results import write_json
from benchmarks.vision import import_torchvision
from mim_jax.classifiers import CLASSIFIERS, step
from mim_jax.train.epochs import init_state, run_epochs

CLASSES = 2
STEPS = 2  # updates per call, for this package in one dispatch


def ours(name: str, images: np.ndarray, labels: np.ndarray, dtype: Any) -> Callable[[], None]:
    """Make a function that runs `STEPS` updates with the program used for training."""
    network = CLASSIFIERS[name](classes=CLASSES, dtype=dtype)
    rate = optax.constant_schedule(1e-3)
    task = step.ClassifierConfig(network, optax.adam(rate), rate, images.shape[1], flips=False)
    key = jax.random.key(0)
    state = init_state(task, key)
    many = {
        "images": jnp.asarray(np.tile(images, (STEPS, 1, 1, 1))),
        "labels": jnp.asarray(np.tile(labels, STEPS)),
    }
    run = functools.partial(
        run_epochs, task, examples=many, scalars={}, key=key, batch_size=len(images), drop_last=False
    )

    def update() -> None:
        nonlocal state
        state, metrics = run(state, jnp.arange(1))
        jax.block_until_ready((state, metrics))

    return update


def theirs(
    name: str, images: np.ndarray, labels: np.ndarray, dtype: Any, *, form: str, device: str
) -> Callable[[], None]:
    """Make a function that runs `STEPS` updates in PyTorch."""
    network = getattr(import_torchvision().models, name)(num_classes=CLASSES).to(device)
    layout = torch.contiguous_format if form == "eager" else torch.channels_last
    network = network.to(memory_format=layout).train()
    model = torch.compile(network) if form == "compiled" else network
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    mean, deviation = (
        torch.tensor(values, device=device)[:, None, None] for values in (step.MEAN, step.DEVIATION)
    )
    inputs = torch.tensor(images, device=device).permute(0, 3, 1, 2)
    targets = torch.tensor(labels, device=device).long()
    fast = {"device_type": device, "dtype": torch.bfloat16, "enabled": dtype == jnp.bfloat16}

    def update() -> None:
        for _ in range(STEPS):
            normal = ((inputs.float() / 255 - mean) / deviation).contiguous(memory_format=layout)
            with torch.autocast(**fast):
                logits = model(normal)
            loss = torch.nn.functional.cross_entropy(logits.float(), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return update


def seconds(update: Callable[[], None]) -> float:
    began = time.perf_counter()
    update()
    return (time.perf_counter() - began) / STEPS


def measure(makers: Mapping[str, Callable[[], Callable[[], None]]], rounds: int) -> list[dict[str, Any]]:
    """Time all systems in turn; return one row per system with its fastest round, or with an error.

    Args:
      makers: system name -> function that makes its update function.
      rounds: number of warm rounds.
    """
    rows: dict[str, dict[str, Any]] = {}
    updates: dict[str, Callable[[], None]] = {}

    def attempt(title: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # of a compiler, or out of memory: the other systems still get their rows
            updates.pop(title, None)
            lines = str(error).strip().splitlines() or [""]
            rows[title] = {"system": title, "error": f"{type(error).__name__}: {lines[0][:200]}"}

    def first(title: str) -> None:
        update = makers[title]()
        rows[title] = {"system": title, "first_call_s": STEPS * seconds(update)}
        updates[title] = update

    def warm(title: str) -> None:
        spent = seconds(updates[title])
        rows[title]["s_per_step"] = min(spent, rows[title].get("s_per_step", spent))

    for title in makers:
        attempt(title, functools.partial(first, title))
    for title in list(updates) * rounds:
        if title in updates:
            attempt(title, functools.partial(warm, title))
    ours = rows["mim_jax"].get("s_per_step")
    for row in rows.values():
        if ours and "s_per_step" in row:
            row["ours_over_this"] = ours / row["s_per_step"]
    return list(rows.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: seconds per step, and this package's time divided by that of each PyTorch form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--names", nargs="+", default=list(CLASSIFIERS), choices=list(CLASSIFIERS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--forms", nargs="+", default=["eager", "channels_last", "compiled"])
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write all results to this file")
    options = parser.parse_args(arguments)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs GPU memory too
    if options.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu" or not torch.cuda.is_available():
        sys.exit("benchmarks.classifiers: --device=gpu, but JAX or PyTorch finds no GPU; use --device=cpu")
    device, dtype = {"cpu": "cpu", "gpu": "cuda"}[options.device], jnp.dtype(options.dtype)
    generator = np.random.default_rng(0)
    shape = options.batch, options.size, options.size, 3
    images = generator.integers(0, 256, shape, dtype=np.uint8)
    labels = generator.integers(0, CLASSES, options.batch).astype(np.int32)
    environment = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": options.batch,
        "image_size": options.size,
        "dtype": options.dtype,
    }
    print(
        f"{environment['device']}, jax {jax.__version__}, torch {torch.__version__}, "
        f"{environment['threads']} threads; batch {options.batch}, {options.size} pixels, {options.dtype}"
    )
    print(f"{'network':20}{'':20}{'s/step':>8}{'ours/it':>9}{'first call, s':>15}")
    rows: list[dict[str, Any]] = []
    for name in options.names:
        makers = {"mim_jax": functools.partial(ours, name, images, labels, dtype)}
        for form in options.forms:
            makers[f"torch {form}"] = functools.partial(
                theirs, name, images, labels, dtype, form=form, device=device
            )
        found = measure(makers, options.rounds)
        rows += [{"network": name, **row} for row in found]
        print("\n".join(f"{name:20}{format_row(row)}" for row in found), flush=True)
        write_json(options.json, environment, rows)


def format_row(row: Mapping[str, Any]) -> str:
    """Format a line of the table, without the name of the network."""
    if "error" in row:
        return f"{row['system']:20}not measured: {row['error']}"
    ratio = f"{row['ours_over_this']:9.2f}" if "ours_over_this" in row else f"{'':9}"
    return f"{row['system']:20}{row['s_per_step']:8.3f}{ratio}{row['first_call_s']:15.1f}"


if __name__ == "__main__":
    main()
