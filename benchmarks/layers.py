"""Time both forms of a transposed convolution in one run: the reason for matrix products on CPUs.

python -m benchmarks.layers
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mim_jax.inpaint import convolution

# Layers of the full-size generator: side, features in, features out (4x4 kernel, stride 2, padding 1).
CASES = ((14, 512, 256), (28, 256, 128), (56, 128, 64))
FORMS = {"lax": convolution._conv_transpose_lax, "matrix": convolution._conv_transpose_matrix}


def milliseconds(function: Callable[..., Any], *arguments: jax.Array, repeats: int = 3) -> float:
    """Time the fastest of `repeats` warm calls, in milliseconds."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def main(batch: int = 8) -> None:
    """Print a table: forward pass, and gradients of both arguments."""
    rng = np.random.default_rng(0)
    print(
        f"batch {batch}, float32, {jax.devices()[0].device_kind}, jax {jax.__version__}; warm, milliseconds"
    )
    for side, before, after in CASES:
        x = jax.numpy.asarray(rng.standard_normal((batch, side, side, before), np.float32))
        kernel = jax.numpy.asarray(0.02 * rng.standard_normal((4, 4, before, after), np.float32))
        cotangent = jax.numpy.asarray(rng.standard_normal((batch, 2 * side, 2 * side, after), np.float32))
        for name, form in FORMS.items():
            forward = jax.jit(lambda x, w, form=form: form(x, w, 2, 1))
            backward = jax.jit(lambda x, w, y, form=form: jax.vjp(lambda a, b: form(a, b, 2, 1), x, w)[1](y))
            print(
                f"{before:>4} -> {after:<4} at {side}x{side}  {name:6}",
                f"forward {milliseconds(forward, x, kernel):8.1f}",
                f"gradients {milliseconds(backward, x, kernel, cotangent):8.1f}",
            )


if __name__ == "__main__":
    main()
