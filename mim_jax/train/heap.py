"""What a process does with memory that it has freed, where the C library is glibc; elsewhere nothing.

A program on the CPU has one buffer for all its temporary arrays, made anew by every dispatch. glibc maps a
large block from the kernel each time, which clears every page again. Kept in the heap, the pages are reused;
but one small block that outlives a dispatch can split the hole, and then the heap grows by the next buffer.
So blocks of a GiB and more are mapped all the same, and where the heap would have to grow for a smaller one,
what is free in it is given back first.
"""

import ctypes
import platform

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
LARGEST = 2**30  # bytes of a block that is kept, and of what is kept behind the last one in use
SPARE = 2**22  # bytes of room beside the block

_kept: ctypes.CDLL | None = None  # the C library, once it keeps


def keep_freed_memory(largest: int = LARGEST) -> bool:
    """Let this process reuse what it frees, for good; return whether it does.

    Called before JAX has a device, whose threads make the arrays of scoring: threads that are there earlier
    may use arenas of their own, which map each large block anew. Scoring then takes 1.25 times as long.

    Args:
      largest: bytes of a block that is kept.
    """
    global _kept
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.malloc_trim.argtypes = [ctypes.c_size_t], [ctypes.c_size_t]
    libc.free.argtypes, libc.sbrk.argtypes = [ctypes.c_void_p], [ctypes.c_ssize_t]
    # One that refuses so large a threshold stays as it is.
    if not libc.mallopt(_M_MMAP_THRESHOLD, largest):
        return False
    libc.mallopt(_M_TRIM_THRESHOLD, largest)
    libc.mallopt(_M_ARENA_MAX, 1)  # all threads share the heap: other arenas are too small, and map
    _kept = libc
    return True


def make_room(size: float) -> None:
    """Give the system every free page of the heap where the heap would have to grow for a block of this size.

    Otherwise the hole that the block had, and that something small has split, would stay beside it. Called
    before a dispatch; where nothing is kept it does nothing.
    """
    if _kept is None:
        return
    if size >= LARGEST:  # what compiling left is of no use for a block that is mapped
        _kept.malloc_trim(0)
        return
    end = _kept.sbrk(0)
    _reserve(_kept, size)
    if _kept.sbrk(0) != end:
        _kept.malloc_trim(0)
        _reserve(_kept, size)  # or the heap would have to grow before the next dispatch too


def _reserve(libc: ctypes.CDLL, size: float) -> None:
    """Let the heap have a hole of this size, and some room for what a dispatch may lay there first."""
    libc.free(libc.malloc(int(size) + SPARE))  # its pages are not touched, so they take no memory
