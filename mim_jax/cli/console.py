"""Lines for the user, and exit statuses. Needs no JAX: help and mistakes should not wait for it."""

import contextlib
import os
import sys
from typing import TextIO

UNUSABLE_FILES, INTERRUPTED = 2, 130  # exit statuses: some images cannot be used; stopped by Ctrl-C


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line, to stdout by default; a full, closed or non-Unicode console is no error."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except (OSError, ValueError):
        # Otherwise what is left in the buffer would fail again at exit.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
