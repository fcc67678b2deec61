"""Memory that is freed after a step is there for the next one."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
{call}
for number in range(6):
    if number == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.ones(1 << 20) for _ in range(8)]
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from stages.lib.allocator import keep_freed_memory; keep_freed_memory()"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_the_steps_after_the_first_take_no_new_pages():
    """Of 32 MB in each of five steps; left alone, glibc gives them back and takes them anew."""
    taken = [
        int(subprocess.run([sys.executable, "-c", STEPS.format(call=call)], capture_output=True, check=True).stdout)
        for call in ("", KEEP)
    ]
    assert taken[1] < taken[0] / 5
