"""The C library's memory allocator, for work that needs as much memory in each step as in the one before."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h numbers them


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, rather than give it back and have it cleared page by page.

    On a CPU that was a tenth of the time of training and of reading (bench/README.md); elsewhere nothing changes.
    Source: mallopt(3).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # bytes; the most that it takes
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
