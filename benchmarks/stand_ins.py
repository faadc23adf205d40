"""Stand-ins for packages that GPU machines often lack, limited to the functions that the benchmarks use.

Only `benchmarks` uses them: the package itself needs the real packages.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any


class ConfigDict(dict[str, Any]):
    """Replaces ml-collections': fields by attribute, and `to_dict`; it does not check types."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__

    def to_dict(self) -> dict[str, Any]:
        return {name: v.to_dict() if isinstance(v, ConfigDict) else v for name, v in self.items()}


def flip_left_right(image: Any) -> Any:
    """Equals `dm_pix.flip_left_right` of `[H, W, 3]`."""
    return image[:, ::-1]


def flip_up_down(image: Any) -> Any:
    """Equals `dm_pix.flip_up_down` of `[H, W, 3]`."""
    return image[::-1]


def adjust_saturation(image: Any, factor: Any) -> Any:
    """Equals `dm_pix.adjust_saturation` of `[H, W, 3]` in [0, 1] up to rounding, without converting to HSV.

    In HSV the value is the largest channel, and the saturation is the distance of the smallest channel below
    it, relative to the value. The factor scales the distance of all channels to the value, at most until the
    smallest is 0.
    """
    import jax.numpy as jnp

    value, least = (reduce(image, axis=-1, keepdims=True) for reduce in (jnp.max, jnp.min))
    spread = value - least
    most = jnp.where(spread > 0, value / jnp.where(spread > 0, spread, 1), 1)
    return value - (value - image) * jnp.minimum(factor, most)


def ssim(*_: Any) -> Any:
    """Raise, because there is no stand-in for the comparison with dm_pix."""
    raise ModuleNotFoundError("dm_pix is not installed")


class _Unread:
    """A TensorBoard event, part of one or its writer, all empty: the benchmarks never read them."""

    START = 0
    Value = Image = lambda *_, **__: None

    def __init__(self, *_: Any, **__: Any):
        pass

    def SerializeToString(self) -> bytes:
        return b""

    def write(self, data: bytes) -> None:
        pass


MODULES: dict[str, dict[str, Any]] = {
    "ml_collections": {"ConfigDict": ConfigDict},
    "dm_pix": {
        "flip_left_right": flip_left_right,
        "flip_up_down": flip_up_down,
        "adjust_saturation": adjust_saturation,
        "ssim": ssim,
    },
    "tensorboard": {"__path__": []},
    "tensorboard.compat": {"__path__": []},
    "tensorboard.compat.proto": {"__path__": []},
    "tensorboard.compat.proto.event_pb2": {"Event": _Unread, "SessionLog": _Unread},
    "tensorboard.compat.proto.summary_pb2": {"Summary": _Unread},
    "tensorboard.summary": {"__path__": []},
    "tensorboard.summary.writer": {"__path__": []},
    "tensorboard.summary.writer.record_writer": {"RecordWriter": _Unread},
}


def install() -> list[str]:
    """Replace each missing package by its stand-in; return the names of these packages."""
    roots = dict.fromkeys(name.partition(".")[0] for name in MODULES)
    missing = [name for name in roots if name not in sys.modules and importlib.util.find_spec(name) is None]
    for name, content in MODULES.items():
        if name.partition(".")[0] in missing:
            sys.modules[name] = module = ModuleType(name, "A stand-in; see benchmarks/stand_ins.py.")
            vars(module).update(content)
    return missing
