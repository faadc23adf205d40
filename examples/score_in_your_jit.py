"""MIM's scorer as a pure function inside your own `jit`: scores under noise, and a gradient, in one program.

    python examples/score_in_your_jit.py runs/quick                # generated images
    python examples/score_in_your_jit.py runs/quick photo.jpg ...  # your own images

`runs/quick` is the workdir of the first command of README; an export (`--mode=export`) works as well.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mim_jax
from mim_jax.deploy.export import golden_images


def make_study(
    fn: Callable[[Any, jax.Array], mim_jax.Similarities], *, draws: int, sigma: float
) -> Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]:
    """Compile a study of images `[B, S, S, 3]` around the scorer returned by `Detector.pure`."""

    @jax.jit
    def study(variables: Any, images: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        def noisy(key: jax.Array) -> jax.Array:
            noise = sigma * jax.random.normal(key, images.shape)
            return fn(variables, jnp.clip(images + noise, 0, 1)).ssim_hbd

        # One draw after the other needs the memory of one; `jax.vmap(noisy)` computes them at once.
        under_noise = jax.lax.map(noisy, jax.random.split(key, draws))
        # The gradient includes the network; SSIM only, because histogram counts have no gradient.
        slope = jax.grad(lambda x: fn(variables, x).ssim.sum())(images)
        return {
            "score": fn(variables, images).ssim_hbd,
            "mean": under_noise.mean(0),
            "spread": under_noise.std(0),
            "sensitivity": jnp.abs(slope).max(-1),  # [B, S, S]: high where a pixel changes the score
        }

    return study


def main(workdir: str, *paths: str, draws: int = 8) -> dict[str, np.ndarray]:
    """Print the study of some images and return it."""
    detector = mim_jax.load(workdir)
    if not isinstance(detector, mim_jax.Detector):
        raise ValueError(
            f"{workdir} holds {detector!r}, but this example needs MIM: give a run or an export of MIM"
        )
    size = detector.image_size
    images = (
        np.stack([mim_jax.load_image(each, size=size) for each in paths]) if paths else golden_images(size)
    )
    fn, variables = detector.pure()  # weights are an argument, not constants of the program
    study = make_study(fn, draws=draws, sigma=0.05)
    found = study(variables, jnp.asarray(images, jnp.float32) / 255, jax.random.key(0))
    print("score   under noise of sigma 0.05")
    for i, (score, mean, spread) in enumerate(
        zip(found["score"], found["mean"], found["spread"], strict=True)
    ):
        print(f"{score:.4f}  {mean:.4f} +- {spread:.4f}  {paths[i] if paths else f'generated image {i}'}")
    return {name: np.asarray(values) for name, values in found.items()}


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/score_in_your_jit.py WORKDIR [PHOTO ...]")
    main(*sys.argv[1:])
