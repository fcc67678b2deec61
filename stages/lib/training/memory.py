"""A training that does not fit into memory is refused before any weight is loaded, with settings that would fit."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch

from stages.lib.core.errors import UserError
from stages.lib.settings.train import Train
from stages.lib.training import shapes
from stages.lib.training.memory_estimate import estimate

GIB = 1 << 30
FRAGMENTED = 0.05  # of what a GPU's tensors take: gaps that none of them fits into
LESS = 0.9  # of a training that ran out of memory: how much a smaller one may take


def require(config: dict, train: Train, free: int) -> None:
    """Log what the training will take; raise UserError where that is more than `free` bytes, or train.lora.r too high.

    `config` is the base's config.json; every setting of `train` is decided (`hardware.resolved`). The error
    names the settings that would fit.
    """
    if train.method != "full":
        shapes.check_rank(config, train.lora)
    gpu = torch.cuda.is_available()
    parts = needed(config, train, gpu)
    listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if name != "total" and size)
    logging.info("memory: about %.2f GiB (%s) of %.2f GiB free", parts["total"] / GIB, listed, free / GIB)
    if parts["total"] > free:
        raise UserError(
            f"training takes about {parts['total'] / GIB:.2f} GiB ({described(train)}), but {free / GIB:.2f} GiB are "
            f"free; {advice(config, train, free, gpu)}"
        )


def exhausted(config: dict, train: Train, error: torch.OutOfMemoryError) -> UserError:
    """What to say where a GPU's memory did not last for a training that was to fit: settings that take less."""
    total = needed(config, train, gpu=True)["total"]
    return UserError(
        f"the GPU has no memory left ({str(error).partition('. GPU')[0]}), though training was estimated at "
        f"{total / GIB:.2f} GiB ({described(train)}); {advice(config, train, int(LESS * total), gpu=True)}"
    )


def described(train: Train) -> str:
    """The settings that decide most of the memory."""
    batch = f"{train.per_device_train_batch_size} packed sequences of {train.max_length} tokens at a time"
    return f"train.method={train.method}, train.quantization={train.quantization}, {batch}"


def needed(config: dict, train: Train, gpu: bool) -> dict[str, int]:
    """The estimate in bytes, by part and in `total`, on a GPU with a margin for the gaps between tensors."""
    parts = estimate(config, train, gpu)
    margin = int(FRAGMENTED * parts["total"]) + GIB // 2 if gpu else 0
    return parts | {"margin": margin, "total": parts["total"] + margin}


def advice(config: dict, train: Train, free: int, gpu: bool) -> str:
    """The smallest change of settings with which the training fits into `free` bytes, as options of `dvc exp run`."""

    def total(changes: list[dict]) -> int:
        return needed(config, replace(train, **merged(changes)), gpu)["total"]

    changes: list[dict] = []
    for change in savings(train, gpu):
        changes.append(change)
        if total(changes) <= free:
            break
    fits = total(changes) <= free
    for change in changes[:-1] if fits else []:  # what a later one made needless
        fewer = [other for other in changes if other is not change]
        if total(fewer) <= free:
            changes = fewer
    new = {name: value for name, value in merged(changes).items() if value != getattr(train, name)}
    options = " ".join(f"-S train.{name}={str(value).lower()}" for name, value in new.items())
    size = f"{total(changes) / GIB:.2f} GiB"
    if fits:
        return f"it fits ({size}) with {options}"
    smaller = "train.method=lora" if train.method == "full" else "a smaller base"
    least = f"even with {options} it takes {size}" if options else "none takes less"
    return f"no setting fits: {least}; take shorter sequences (train.max_length), {smaller} or another machine"


def merged(changes: list[dict]) -> dict:
    """All changes as one; of two values for a setting the later one counts."""
    return {name: value for change in changes for name, value in change.items()}


def savings(train: Train, gpu: bool) -> Iterator[dict]:
    """Changes of settings that save memory, the one that costs least first; the effective batch stays as it is."""
    if not train.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    sequences = train.per_device_train_batch_size
    batches = train.gradient_accumulation_steps
    while sequences % 2 == 0:
        sequences //= 2
        batches *= 2
        yield {"per_device_train_batch_size": sequences, "gradient_accumulation_steps": batches}
    if train.method != "full":
        kinds = ("none", "4bit") if train.launch.strategy == "fsdp" else ("none", "8bit", "4bit")
        yield from ({"quantization": kind} for kind in kinds[kinds.index(train.quantization) + 1 :])
    if train.optim == "adamw_torch_fused":
        yield {"optim": "paged_adamw_8bit" if gpu else "adamw_8bit"}
    if gpu and not train.activation_offload:
        yield {"gradient_checkpointing": True, "activation_offload": True}
