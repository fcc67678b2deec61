"""What is looked at after each step of a training: speed, memory, the loss, and whether it was asked to stop."""

import logging
import math
import statistics
import time
from threading import Event
from typing import Any, NamedTuple

from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.lib.core.errors import UserError
from stages.lib.training.hardware import peak_memory

WINDOW = 50  # optimiser steps whose 90th percentile of the loss is the usual one: of every source in turn
SETTLED = 10  # of them must be there before a loss is called a spike


class StepData(NamedTuple):
    """What an optimiser step reads: when it began (`time.perf_counter`), its records, its tokens without padding."""

    started: float
    record_ids: list[str]
    tokens: int


class Monitor(TrainerCallback):
    """Follows each optimiser step of a `PackedTrainer`, which sets `step`; the trainer's log history gets what it sees.

    A step gets `tokens_per_second` (padding does not count) and `peak_memory` (bytes). A loss above
    `spike_factor` times the 90th percentile of the steps before is logged with the ids of the records that were in
    the batch; one above `divergence_factor` times, or that is not finite, raises UserError with them, before
    anything is saved.
    """

    step: StepData
    bar: tqdm
    processes: int

    def __init__(self, spike_factor: float, divergence_factor: float) -> None:
        self.spike_factor = spike_factor
        self.divergence_factor = divergence_factor

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Draw the one progress bar."""
        self.processes = args.world_size
        hidden = not state.is_world_process_zero
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="train", unit="step", disable=hidden)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Add speed and memory to the entry of a step, and look at its loss."""
        if not logs or "loss" not in logs:
            return
        *earlier, entry = state.log_history
        seconds = time.perf_counter() - self.step.started
        entry["tokens_per_second"] = self.processes * self.step.tokens / seconds
        entry["peak_memory"] = peak_memory()
        self.look_at(entry, [e["loss"] for e in earlier if "loss" in e][-WINDOW:])
        self.bar.set_postfix(loss=f"{entry['loss']:.3f}", tokens_s=f"{entry['tokens_per_second']:,.0f}", refresh=False)
        self.bar.update(entry["step"] - self.bar.n)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the bar as it is."""
        self.bar.close()

    def look_at(self, entry: dict[str, Any], before: list[float]) -> None:
        """Note a spike in the entry of a step; raise UserError where its loss or gradient has diverged."""
        usual = statistics.quantiles(before, n=10, method="inclusive")[-1] if len(before) >= SETTLED else math.inf
        diverged = not math.isfinite(entry["loss"]) or not math.isfinite(entry["grad_norm"])
        if not diverged and entry["loss"] <= self.spike_factor * usual:
            return
        ids = of_all_processes(self.step.record_ids, self.processes)
        what = (
            f"step {entry['step']}: loss {entry['loss']:.4g}, gradient norm {entry['grad_norm']:.4g}, usual {usual:.4g}"
        )
        if diverged or entry["loss"] > self.divergence_factor * usual:
            raise UserError(
                f"{what}; training stopped, nothing of this step is saved. Records of the batch: {', '.join(ids)}. "
                "Look at them in data/prepared/train.jsonl, or lower train.learning_rate"
            )
        logging.warning("%s: a spike. Records of the batch: %s", what, ", ".join(ids))
        entry["usual_loss"] = usual
        entry["spike_records"] = ids


class StopWhenAsked(TrainerCallback):
    """Where `stop` is set, the step that runs is finished, saved, and training ends."""

    def __init__(self, stop: Event) -> None:
        self.stop = stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for it on every process at the same step, whichever of them the signal reached."""
        if any(of_all_processes([self.stop.is_set()], args.world_size)):
            control.should_save = True
            control.should_training_stop = True
            control.should_evaluate = False


def of_all_processes(items: list, processes: int) -> list:
    """The items of every process, in their order; each must call this at the same moment."""
    if processes == 1:
        return items
    gathered = gather_object([items])
    return [item for some in gathered for item in some]
