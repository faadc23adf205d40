"""MIM (Mask, Inpainting and Measure): one-class novelty detection by masked inpainting, in JAX.

Names are loaded on first use, so importing one part does not import the others.
"""

import importlib
from typing import Any

__version__ = "0.1.0"  # single definition; pyproject.toml reads it from here

_HOME = {
    "Detector": "mim_jax.detector",
    "Assessment": "mim_jax.decide.decision",
    "Decision": "mim_jax.decide.decision",
    "load": "mim_jax.deploy.export",
    "load_exported": "mim_jax.deploy.export",
    "Similarities": "mim_jax.measure.similarity",
    "similarities": "mim_jax.measure.similarity",
    "ssim": "mim_jax.measure.ssim",
    "ms_ssim": "mim_jax.measure.ssim",
    "hbd": "mim_jax.measure.similarity",
    "psnr": "mim_jax.measure.similarity",
    "composite_similarities": "mim_jax.measure.similarity",
    "load_image": "mim_jax.data.images",
    "UnusableImage": "mim_jax.data.images",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mim_jax' has no attribute {name!r}; it offers {', '.join(_HOME)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
