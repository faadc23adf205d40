"""Pillow's global settings, at their defaults while images are decoded and given back afterwards.

They belong to whoever imports this package, and decide what is accepted: half an image, or how large a one.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator

from PIL import BmpImagePlugin, Image, ImageFile, TiffImagePlugin

_SETTINGS = (
    (ImageFile, "LOAD_TRUNCATED_IMAGES", False),
    (Image, "MAX_IMAGE_PIXELS", None),  # the loader has a limit of its own
    (TiffImagePlugin, "READ_LIBTIFF", False),
    (BmpImagePlugin, "USE_RAW_ALPHA", False),
)
# Settings, and the filters that `warnings.catch_warnings` saves and restores, are those of all threads:
# decoders that overlap would restore each other's. So the first one in sets them, and the last one out
# restores them.
_lock = threading.Lock()
_decoding = 0
_changed = contextlib.ExitStack()


@contextlib.contextmanager
def defaults() -> Iterator[None]:
    """Set Pillow's defaults, and keep its warnings from the user: what matters is in the reason."""
    global _decoding
    with _lock:
        if _decoding == 0:
            _changed.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
            for module, name, value in _SETTINGS:
                _changed.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, value)
        _decoding += 1
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            if _decoding == 0:
                _changed.close()
