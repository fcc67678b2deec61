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


def require(config: dict, train: Train, free: int) -> None:
    """Log what the training will take; raise UserError where that is more than `free` bytes, or train.lora.r too high.

    `config` is the base's config.json; every setting of `train` is decided (`hardware.resolved`). The error
    names the settings that would fit.
    """
    if train.method != "full":
        shapes.check_rank(config, train.lora)
    gpu = torch.cuda.is_available()
    parts = estimate(config, train, gpu)
    listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if name != "total" and size)
    logging.info("memory: about %.2f GiB (%s) of %.2f GiB free", parts["total"] / GIB, listed, free / GIB)
    if parts["total"] > free:
        batch = f"{train.per_device_train_batch_size} packed sequences of {train.max_length} tokens at a time"
        raise UserError(
            f"training takes about {parts['total'] / GIB:.2f} GiB (train.method={train.method}, train.quantization="
            f"{train.quantization}, {batch}), but {free / GIB:.2f} GiB are free; {advice(config, train, free, gpu)}"
        )


def advice(config: dict, train: Train, free: int, gpu: bool) -> str:
    """The smallest change of settings with which the training fits into `free` bytes, as options of `dvc exp run`."""

    def total(changes: list[dict]) -> int:
        return estimate(config, replace(train, **merged(changes)), gpu)["total"]

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
        kinds = ("none", "8bit", "4bit")
        yield from ({"quantization": kind} for kind in kinds[kinds.index(train.quantization) + 1 :])
    if train.optim == "adamw_torch_fused":
        yield {"optim": "paged_adamw_8bit" if gpu else "adamw_8bit"}
    if gpu and not train.activation_offload:
        yield {"gradient_checkpointing": True, "activation_offload": True}
