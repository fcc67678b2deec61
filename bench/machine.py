"""What a measurement runs on: `python -m bench.machine SETTINGS OUT`, as bench.train_8b asks for it."""

import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from statistics import median

import torch

from bench.processes import Answers, asked
from stages.lib.core.resources import processor
from stages.lib.model.device import device, driver

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "triton")
SIDE = 8192  # of the square matrices whose product is timed


def describe(answers: Answers) -> None:
    """Versions, processor and card; on a GPU how fast its bfloat16 products are."""
    found = versions(*PACKAGES)
    answers.add(", ".join(f"{name} {number}" for name, number in found.items()), versions=found)
    answers.add(processor(), processor=processor())
    if device() != "cuda":
        answers.add("no GPU: cut down, and no product is timed")
        return
    free, total = torch.cuda.mem_get_info()
    card = f"{torch.cuda.get_device_name()}, {total / 2**30:.1f} GiB, {free / 2**30:.1f} of them free"
    installed = driver()
    answers.add(f"{card}, driver {installed}, CUDA {torch.version.cuda}", driver=installed, total=total, free=free)
    rate = gpu_product_rate()
    answers.add(f"a bfloat16 product of {SIDE:,}³: {rate / 1e12:.0f} TFLOP/s", product_flops_per_second=rate)


def device_name() -> str:
    """The GPU's name, or `CPU`; raises UserError for a GPU that torch cannot use."""
    return torch.cuda.get_device_name() if device() == "cuda" else "CPU"


def gpu_product_rate() -> float:
    """Operations a second of the product of two square bfloat16 matrices on the GPU; the median of twenty."""
    one, other = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        one @ other
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * SIDE**3 / median(times)


def versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


if __name__ == "__main__":
    describe(asked()[1])
