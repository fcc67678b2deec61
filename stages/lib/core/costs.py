"""What each stage last took on this machine, below `.cost/`: untracked, for it decides nothing."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.lib.files import read_json, write_json

BEFORE = ("config", "fetch", "prepare", "base", "tokenize", "train", "merge", "convert", "imatrix")


@contextmanager
def measured(folder: Path, name: str) -> Iterator[None]:
    """Write folder/NAME.json when the block succeeds: {stage, seconds, peak_bytes, machine}.

    The peak is the most that was resident at once, of this process or of one that it started.
    """
    begin = time.perf_counter()
    yield
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    took = {"seconds": round(time.perf_counter() - begin, 1), "peak_bytes": peak * 1024}
    write_json(folder / f"{name}.json", {"stage": name} | took | {"machine": machine()})


def machine() -> str:
    """The processor, as Linux names it, and how many of its cores this process may use."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def read_costs(folder: Path, types: list[str], verified: list[str], models: list[str]) -> dict[str, dict | None]:
    """Stage or stage@item -> {seconds, peak_bytes, machine}, in the pipeline's order; None where it was not run here.

    The report itself is not among them: it has not ended when it reads this.
    """
    items = {"quantize": types, "verify": verified, "evaluate": models}
    names = [*BEFORE, *(f"{stage}@{item}" for stage, some in items.items() for item in some)]
    files = {name: folder / f"{name}.json" for name in names}
    return {name: read_json(file) if file.is_file() else None for name, file in files.items()}
