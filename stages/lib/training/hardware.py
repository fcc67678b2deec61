"""What the machine does best, where a setting of training says `auto`."""

import importlib.util
import logging
import resource
from dataclasses import replace
from typing import Any

import torch

from stages.lib.core.errors import UserError
from stages.lib.core.resources import cpu_flags
from stages.lib.model.device import device
from stages.lib.settings.train import Launch, Train
from stages.lib.training.attention import DOCUMENTS

CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # flags of /proc/cpuinfo: x86, x86, Arm


def resolved(train: Train) -> Train:
    """The settings with every `auto`, and the optimiser, decided by the machine; each choice is logged.

    bf16 where the processor multiplies it in hardware, else fp32. FlashAttention where it is installed beside
    a GPU, else our attention by document (measured: bench/README.md). Paged 8-bit AdamW needs a GPU to page
    from; a CPU gets the same optimiser unpaged. Raises UserError for a GPU that torch cannot use, and for Liger's
    kernels where they cannot run.
    """
    gpu = device() == "cuda"
    if train.use_liger_kernel and not (gpu and importlib.util.find_spec("liger_kernel")):
        missing = "is not installed: `pip install liger-kernel`" if gpu else "needs a GPU, and none was found"
        raise UserError(f"params.yaml: train.use_liger_kernel is true, but it {missing}; or take false")
    if gpu:
        fast_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast_bf16 = any(flag in cpu_flags() for flag in CPU_BF16)
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


def peak_memory() -> int:
    """Most bytes that this process had at once: allocated on the GPU, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
