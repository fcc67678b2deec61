"""The machine: its processor, its build of llama.cpp, room on disk and in memory; asked for before long work starts."""

import os
import platform
import shutil
from functools import cache
from pathlib import Path

import psutil

from stages.lib.core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def llama_cpp_build() -> Path:
    """The build: `$LLAMA_CPP_DIR`, else llama.cpp/build of the main checkout beside a temporary one of DVC.

    Raises UserError where nothing was built there.
    """
    named = os.environ.get("LLAMA_CPP_DIR")
    folder = Path(named) if named else Path(os.environ.get("DVC_ROOT", ROOT)) / "llama.cpp" / "build"
    if not any((folder / "bin").glob("llama-*")):
        fix = "point LLAMA_CPP_DIR at a build" if named else "build it with `make llama.cpp`"
        raise UserError(f"{folder}: no llama.cpp build there; {fix}")
    return folder


def require_disk(folder: Path, size: float, what: str) -> None:
    """Raise UserError where the disk of a folder, which need not exist yet, has less than `size` bytes free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise UserError(f"{folder}: {what} takes {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make room")


def require_memory(size: float, what: str) -> None:
    """Raise UserError where the machine has less than `size` bytes of memory available."""
    free = psutil.virtual_memory().available
    if size > free:
        raise UserError(f"{what} takes about {size / 1e9:.2f} GB of memory, {free / 1e9:.2f} GB are free; free some")


def processor() -> str:
    """The processor, as Linux names it, and how many of its cores this process may use."""
    name = next(iter(_cpuinfo("model name")), platform.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def cpu_flags() -> set[str]:
    """What the processor can do, as Linux lists it (`flags` of x86, `Features` of Arm); nothing elsewhere."""
    return {flag for line in _cpuinfo("flags", "Features") for flag in line.split()}


@cache
def _cpuinfo(*names: str) -> tuple[str, ...]:
    """The values of /proc/cpuinfo's lines of these names; none where the system has no such file."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.partition(":") for line in lines)
    return tuple(value.strip() for name, _, value in pairs if name.strip() in names)
