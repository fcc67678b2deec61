"""What a transformers Trainer does step by step: the same clock for this project's training and for a peer's."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import TrainerCallback, trainer


class Clock(TrainerCallback):
    """When each optimiser step ended, and its loss, of the one Trainer of this process.

    `watch` must run before that Trainer is made: it adds the clock to the callbacks that every Trainer gets.
    """

    def __init__(self) -> None:
        self.ended, self.losses, self.tokens = [], [], []

    def on_step_end(self, args, state, control, **_):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ended.append(time.perf_counter())

    def on_log(self, args, state, control, logs, **_):
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def counting(self, collate: Callable) -> Callable:
        """The collator, with its batches' tokens counted: all but padding."""

        def collate_and_count(rows: list) -> dict:
            batch = collate(rows)
            mask = batch.get("attention_mask")
            self.tokens.append(int(mask.sum()) if mask is not None else batch["input_ids"].numel())
            return batch

        return collate_and_count

    def save(self, path: Path, accumulation: int) -> None:
        """Write `ended` (seconds), `losses` and `tokens`, one of each a step, and the peak of the GPU's memory (bytes)."""
        steps = len(self.ended)
        tokens = [sum(self.tokens[i * accumulation : (i + 1) * accumulation]) for i in range(steps)]
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        seen = {"ended": self.ended, "losses": self.losses, "tokens": tokens, "peak_gpu": peak}
        path.write_text(json.dumps(seen), encoding="utf-8")


def watch(cap_gib: float = 0.0) -> Clock:
    """A clock on the Trainer that this process makes next; `cap_gib` is all the memory that it may take on a GPU."""
    if cap_gib and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(cap_gib * 2**30 / torch.cuda.mem_get_info()[1])
    clock = Clock()
    trainer.DEFAULT_CALLBACKS.append(clock)
    return clock
