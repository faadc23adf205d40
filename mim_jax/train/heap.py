"""Reuse of freed memory with glibc; a no-op with other C libraries.

A program on the CPU has one buffer for all its temporary arrays, allocated anew by every dispatch. By default
glibc maps each large block from the kernel, which zeroes every page again. Blocks kept in the heap reuse
their pages; but one small block that outlives a dispatch can split the free space, and then the heap grows by
the next buffer. So blocks of 1 GiB and more are still mapped, and if the heap would have to grow for a
smaller one, its free pages are returned to the system first.

glibc gives threads heaps ("arenas") of their own, of at most 64 MiB each, and maps larger blocks of these
threads anew. So either the main thread, which has the one heap without this limit, allocates the arrays, or
all threads share that heap. Sharing has a price: compiling fragments the heap, and XLA's threads wait for its
lock, in compiling and later in every dispatch.
"""

import ctypes
import platform

import jax

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
LARGEST = 2**30  # bytes: largest block kept in the heap, and most free space kept at the heap's end
SPARE = 2**22  # bytes reserved in addition to the block

_kept: ctypes.CDLL | None = None  # the C library, once it keeps freed memory


def keep_freed_memory(largest: int = LARGEST, *, any_thread: bool = False) -> bool:
    """Make this process reuse freed memory permanently; return whether it does.

    Call it before JAX has a device: threads started earlier may have heaps of their own. Blocks of up to
    `largest` bytes are kept. With `any_thread` all threads share one heap, for a server, in which other
    threads than the main one call JAX's programs. Otherwise programs on the CPU whose inputs are ready run in
    the thread that calls them.
    """
    global _kept
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.malloc_trim.argtypes = [ctypes.c_size_t], [ctypes.c_size_t]
    libc.free.argtypes, libc.sbrk.argtypes = [ctypes.c_void_p], [ctypes.c_ssize_t]
    # A C library that rejects so large a threshold is left unchanged.
    if not libc.mallopt(_M_MMAP_THRESHOLD, largest):
        return False
    libc.mallopt(_M_TRIM_THRESHOLD, largest)
    if any_thread:
        libc.mallopt(_M_ARENA_MAX, 1)
    else:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    _kept = libc
    return True


def make_room(size: float) -> None:
    """Return the heap's free pages to the system if the heap would have to grow for a block of this size.

    Otherwise the block's former space, split by a small allocation, would stay allocated as well. Call it
    before a dispatch; a no-op unless `keep_freed_memory` succeeded.
    """
    if _kept is None:
        return
    if size >= LARGEST:  # free memory left by compiling is of no use to a mapped block
        _kept.malloc_trim(0)
        return
    end = _kept.sbrk(0)
    _reserve(_kept, size)
    if _kept.sbrk(0) != end:
        _kept.malloc_trim(0)
        _reserve(_kept, size)  # otherwise the heap would have to grow before the next dispatch too


def _reserve(libc: ctypes.CDLL, size: float) -> None:
    """Make the heap hold a free block of this size, plus room for a dispatch's earlier allocations."""
    libc.free(libc.malloc(int(size) + SPARE))  # the pages are not touched, so they use no memory
