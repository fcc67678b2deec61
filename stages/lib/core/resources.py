"""Room on disk and in memory, asked for before long work starts."""

import shutil
from pathlib import Path

import psutil

from stages.lib.errors import UserError


def require_disk(folder: Path, size: int, what: str) -> None:
    """Raise UserError where the disk of a folder, which need not exist yet, has less than `size` bytes free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise UserError(f"{folder}: {what} takes {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make room")


def require_memory(size: int, what: str) -> None:
    """Raise UserError where the machine has less than `size` bytes of memory available."""
    free = psutil.virtual_memory().available
    if size > free:
        raise UserError(f"{what} takes about {size / 1e9:.2f} GB of memory, {free / 1e9:.2f} GB are free; free some")
