"""What a process does with memory that it has freed, where the C library is glibc; elsewhere nothing.

A program on the CPU has one buffer for all its temporary arrays, made anew by every dispatch. glibc maps a
large block from the kernel each time, which clears every page again. Kept in the heap, the pages are reused;
but one small block that outlives a dispatch can split the hole, and then the heap grows by the next buffer.
So blocks of a GiB and more are mapped all the same, and a training gives back what the ones before it left.
"""

import ctypes
import os
import platform
from pathlib import Path

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
LARGEST = 2**30  # bytes of a block that is kept, and of what is kept behind the last one in use
GROWTH = 1.1  # times what a training had resident after its first dispatch

_kept: ctypes.CDLL | None = None  # the C library, once it keeps


def keep_freed_memory() -> bool:
    """Let this process reuse what it frees, for good; return whether it does."""
    global _kept
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # Older versions refuse so large a threshold: then all stays as it is.
    if not libc.mallopt(_M_MMAP_THRESHOLD, LARGEST):
        return False
    libc.mallopt(_M_TRIM_THRESHOLD, LARGEST)
    libc.mallopt(_M_ARENA_MAX, 1)  # the arenas of other threads are too small, and fall back to mapping
    _kept = libc
    return True


class Watch:
    """What a training keeps: begun with nothing that others left, and given back where it grows."""

    def __init__(self) -> None:
        self._first = 0
        give_back()

    def look(self) -> None:
        """Give back what is free where this process has grown since the first look."""
        now = resident()
        if not self._first:
            self._first = now
        elif now > GROWTH * self._first:
            give_back()


def give_back() -> None:
    """Give the system every free page of the heap, where `keep_freed_memory` keeps them."""
    if _kept is not None:
        _kept.malloc_trim(0)


def resident() -> int:
    """Return the bytes of this process that lie in memory; 0 where the system is not Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
