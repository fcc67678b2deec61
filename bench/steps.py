"""A training's settings, and a watch on its steps: the same clock for this project's and for a peer's."""

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from omegaconf import OmegaConf
from transformers import TrainerCallback, trainer

from bench.measuring import forget_peak, resident
from stages.lib.settings.train import Launch, Lora, Train

WARM_UP = 3  # steps that are not timed


class Clock(TrainerCallback):
    """When each optimiser step ended, its loss and its tokens, of the one Trainer of this process.

    `watch` must run before that Trainer is made: it adds the clock to the callbacks that every Trainer gets.
    """

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.losses: list[float] = []
        self.tokens: list[int] = []
        self.peaks: dict[str, int] = {}

    def on_train_begin(self, args, state, control, **_):
        """Forget what was taken before."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        forget_peak()

    def on_step_end(self, args, state, control, **_):
        """Note the time and the most memory until here."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ended.append(time.perf_counter())
        self.peaks = peaks()

    def on_log(self, args, state, control, logs, **_):
        """Note the loss of a step."""
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def counting(self, collate: Callable) -> Callable:
        """The collator, with its batches' tokens counted: all but padding."""

        def collate_and_count(rows: list) -> dict:
            batch = collate(rows)
            mask = batch.get("attention_mask")
            counted = mask.sum() if mask is not None else batch.get("tokens", batch["input_ids"].numel())
            self.tokens.append(int(counted))
            return batch

        return collate_and_count

    def save(self, path: Path, accumulation: int) -> None:
        """Write `tokens_per_second`, the median `step_seconds`, the `peaks` while it trained and the `losses`."""
        steps = len(self.ended)
        tokens = [sum(self.tokens[i * accumulation : (i + 1) * accumulation]) for i in range(steps)]
        timed = self.ended[-1] - self.ended[WARM_UP - 1]
        seconds = [after - before for before, after in pairwise(self.ended[WARM_UP - 1 :])]
        seen = {"tokens_per_second": sum(tokens[WARM_UP:]) / timed, "step_seconds": median(seconds)}
        path.write_text(json.dumps(seen | self.peaks | {"losses": self.losses}), encoding="utf-8")


def watch(cap_gib: float) -> Clock:
    """A clock on the Trainer that this process makes next; `cap_gib`, where not 0, is all that it may take of a GPU."""
    cap(cap_gib)
    clock = Clock()
    trainer.DEFAULT_CALLBACKS.append(clock)
    return clock


def cap(gib: float) -> None:
    """Let this process allocate no more than so much of a GPU; 0: as much as there is."""
    if gib and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / torch.cuda.mem_get_info()[1]))


def peaks() -> dict[str, int]:
    """Most bytes at once: `peak`, allocated on the GPU, and `reserved` by torch there; without one `peak`, resident."""
    if torch.cuda.is_available():
        return {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    return {"peak": resident()}


def section(method: str, **changes) -> dict:
    """The `train` section as conf/train/METHOD.yaml gives it, as plain values, with changes."""
    read = OmegaConf.merge(*(OmegaConf.load(f"conf/train/{name}.yaml") for name in ("lora", method)))
    values = OmegaConf.to_container(read)
    del values["defaults"]
    return values | {"launch": OmegaConf.to_container(OmegaConf.load("conf/train/launch/single.yaml"))} | changes


def chosen(section: dict) -> Train:
    """A `train` section of plain values as the stage has it."""
    return Train(**section | {"lora": Lora(**section["lora"]), "launch": Launch(**section["launch"])})
