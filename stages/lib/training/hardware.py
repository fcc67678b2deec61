"""What the machine does best, where a setting of training says `auto`."""

import importlib.util
import logging
import resource
from dataclasses import replace
from typing import Any

import psutil
import torch

from stages.lib.core.errors import UserError
from stages.lib.core.resources import cpu_flags
from stages.lib.settings.train import Launch, Train
from stages.lib.training.attention import DOCUMENTS

CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # flags of /proc/cpuinfo: x86, x86, Arm


def resolved(train: Train) -> Train:
    """The settings with every `auto`, and the optimiser, decided by the machine; each choice is logged.

    bf16 where the processor multiplies it in hardware, else fp32. FlashAttention where it is installed beside
    a GPU, else our attention by document (measured: bench/README.md). Paged 8-bit AdamW needs a GPU to page
    from; a CPU gets the same optimiser unpaged.
    """
    gpu = torch.cuda.is_available()
    fast_bf16 = torch.cuda.is_bf16_supported() if gpu else any(flag in cpu_flags() for flag in CPU_BF16)
    flash = gpu and importlib.util.find_spec("flash_attn") is not None
    best = {
        "precision": "bf16" if fast_bf16 else "fp32",
        "attention": "flash_attention_2" if flash else DOCUMENTS,
    }
    chosen: dict[str, Any] = {name: value for name, value in best.items() if getattr(train, name) == "auto"}
    if train.optim == "paged_adamw_8bit" and not gpu:
        chosen["optim"] = "adamw_8bit"
    for name, value in chosen.items():
        logging.info("train.%s: %s → %s on this %s", name, getattr(train, name), value, "GPU" if gpu else "CPU")
    return replace(train, **chosen)


def require_gpu(launch: Launch) -> None:
    """Raise UserError where the model is to be sharded and there is no GPU: Accelerate shards among GPUs only."""
    if launch.strategy == "fsdp" and not torch.cuda.is_available():
        raise UserError(
            "params.yaml: train.launch.strategy is 'fsdp', which shards the model among GPUs, but no GPU was found; "
            "processes on CPUs train with -S train/launch=ddp -S train.launch.processes=1"
        )


def free_memory() -> int:
    """Bytes that a training could take: of the first GPU, else of the machine."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available


def peak_memory() -> int:
    """Most bytes that this process had at once: allocated on the GPU, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
