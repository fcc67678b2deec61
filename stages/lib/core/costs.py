"""What each stage last took on this machine, below `.cost/`: untracked, for it decides nothing."""

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.lib.core.files import write_text
from stages.lib.core.resources import processor


@contextmanager
def measured(folder: Path, name: str) -> Iterator[dict[str, float]]:
    """Write folder/NAME.js when the block succeeds; it may put rates of its own into the dict that it is given.

    The file is a script for report.html, which shows these figures without having them in itself: `cost({stage,
    seconds, peak_bytes, machine, …})`. The peak is the most that was resident at once, of this process or of one that
    it started.
    """
    begin = time.perf_counter()
    rates: dict[str, float] = {}
    yield rates
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    took = {"seconds": round(time.perf_counter() - begin, 1), "peak_bytes": peak * 1024}
    figures = {"stage": name, "machine": processor()} | took | rates
    write_text(folder / f"{name}.js", f"cost({json.dumps(figures)})\n")
