"""Memory that is freed after a step is there for the next one."""

import platform
import subprocess
import sys

import pytest

STEP = """
import psutil
import torch
{call}
process = psutil.Process()
before = process.memory_info().rss
del [torch.ones(5 << 20) for _ in range(10)][:]
print(process.memory_info().rss - before)
"""
KEEP = "from stages.lib.model.allocator import keep_freed_memory; keep_freed_memory()"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_what_a_step_frees_stays_with_the_process():
    """Of 200 MB; left alone, glibc gives them back."""
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", STEP.format(call=call)], capture_output=True, check=True).stdout)
        for call in ("", KEEP)
    )
    assert given_back < 50e6 < 200e6 < kept
