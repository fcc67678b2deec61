"""The memory allocators of the C library and of CUDA, set for long work in steps that are much alike."""

import ctypes
import os
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


def use_expandable_segments() -> None:
    """Let torch grow its pieces of a GPU's memory, so that fewer gaps lie between tensors; before CUDA is first used.

    Source: torch's notes on CUDA semantics, memory management.
    """
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
