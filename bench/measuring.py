"""Wall time and memory of a command and all its processes."""

import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil

EVERY = 0.05  # seconds between two looks at the memory
# Else glibc's malloc keeps much of what was freed, and the resident memory is that of its habits.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def measure(command: list[str]) -> dict:
    """Wall seconds of a command and the peaks (MB) of its processes' memory together: resident, and anonymous alone.

    Anonymous memory is that of no file: pages of mapped files are the system's to take back. Pages that forked
    processes share are counted once for each. Raises RuntimeError where the command fails.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        peak, done = [0, 0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peak, done))
        watcher.start()
        status = process.wait()
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        if status:
            said.seek(0)
            raise RuntimeError(f"{command[0]} ended with status {status}: {said.read()[-2000:].decode()}")
    return {"seconds": seconds, "peak_mb": peak[0] / 1e6, "peak_anonymous_mb": peak[1] / 1e6}


def _watch(pid: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(EVERY):
        try:
            top = psutil.Process(pid)
            family = [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        totals = [0, 0]
        for process in family:
            try:
                said = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                continue
            for i, name in enumerate(("VmRSS", "RssAnon")):
                totals[i] += 1024 * int((re.findall(rf"{name}:\s+(\d+)", said) or [0])[0])
        peak[:] = map(max, peak, totals)


def forget_peak() -> None:
    """Let the peak of this process's resident memory start anew."""
    Path("/proc/self/clear_refs").write_text("5")


def resident() -> int:
    """Peak bytes of this process's resident memory."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
