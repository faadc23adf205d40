"""Pillow's global settings: set to fixed values while images are decoded, and restored afterwards.

They belong to the importing program, and decide what is accepted: truncated images, or how large ones.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator

from PIL import BmpImagePlugin, Image, ImageFile, TiffImagePlugin

_SETTINGS = (
    (ImageFile, "LOAD_TRUNCATED_IMAGES", False),
    (Image, "MAX_IMAGE_PIXELS", None),  # the loader has its own limit
    (TiffImagePlugin, "READ_LIBTIFF", False),
    (BmpImagePlugin, "USE_RAW_ALPHA", False),
)
# These settings, and the filters that `warnings.catch_warnings` saves and restores, are shared by all
# threads: overlapping decoders would restore each other's. So the first one in sets them, and the last one
# out restores them.
_lock = threading.Lock()
_decoding = 0
_changed = contextlib.ExitStack()


@contextlib.contextmanager
def defaults() -> Iterator[None]:
    """Fix Pillow's settings and silence its warnings: the reason for a refusal says what matters."""
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
