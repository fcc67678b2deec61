"""What is looked at while a model trains: speed, memory, the loss, and a wish to stop."""

import logging
import math
import statistics
import time
from threading import Event

from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import Trainer, TrainerCallback

from stages.lib.errors import UserError
from stages.lib.machine import peak_memory

WINDOW = 50  # optimiser steps whose median loss is the usual one
SETTLED = 10  # of them must be there before a loss is called a spike


class Watch(TrainerCallback):
    """Follows each optimiser step of a trainer; what it sees goes into the trainer's log history.

    A step gets `tokens_per_second` (padding does not count) and `peak_memory` (bytes). A loss above
    `spike_factor` times the median of the steps before is logged with the ids of the records that were in the
    batch; one above `explosion_factor` times, or that is no number, raises UserError with them, before
    anything is saved. Where `stop` is set, the step that runs is finished, saved, and training ends.
    """

    def __init__(self, trainer: Trainer, spike_factor: float, explosion_factor: float, stop: Event) -> None:
        self.spike_factor, self.explosion_factor, self.stop = spike_factor, explosion_factor, stop
        self.processes = trainer.args.world_size
        self.bar = None
        self.collect = trainer.get_batch_samples
        trainer.get_batch_samples = self.get_batch_samples

    def get_batch_samples(self, *arguments):
        """The trainer's own batches of a step; their record ids and token counts stay here."""
        self.started = time.perf_counter()
        batches, labels = self.collect(*arguments)
        self.records = [record for batch in batches for record in batch.pop("record_ids")]
        self.tokens = sum(batch.pop("tokens") for batch in batches)
        return batches, labels

    def on_train_begin(self, args, state, control, **_):
        hidden = not state.is_world_process_zero
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="train", unit="step", disable=hidden)

    def on_step_end(self, args, state, control, **_):
        asked = gather_object([self.stop.is_set()]) if self.processes > 1 else [self.stop.is_set()]
        if any(asked):  # on every process at the same step, whichever of them the signal reached
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_log(self, args, state, control, logs, **_):
        if "loss" not in logs:
            return
        *earlier, entry = state.log_history
        seconds = time.perf_counter() - self.started
        entry |= {"tokens_per_second": self.processes * self.tokens / seconds, "peak_memory": peak_memory()}
        self.look_at(entry, [e["loss"] for e in earlier if "loss" in e][-WINDOW:])
        self.bar.set_postfix(loss=f"{entry['loss']:.3f}", tokens_s=f"{entry['tokens_per_second']:,.0f}", refresh=False)
        self.bar.update(entry["step"] - self.bar.n)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()

    def look_at(self, entry: dict, before: list[float]) -> None:
        """Note a spike in the entry of a step; raise UserError where its loss or gradient is beyond repair."""
        usual = statistics.median(before) if len(before) >= SETTLED else math.inf
        broken = not math.isfinite(entry["loss"]) or not math.isfinite(entry["grad_norm"])
        if not broken and entry["loss"] <= self.spike_factor * usual:
            return
        ids = [i for ids in gather_object([self.records]) for i in ids] if self.processes > 1 else self.records
        what = (
            f"step {entry['step']}: loss {entry['loss']:.4g}, gradient norm {entry['grad_norm']:.4g}, usual {usual:.4g}"
        )
        if broken or entry["loss"] > self.explosion_factor * usual:
            raise UserError(
                f"{what}; training stopped, nothing of this step is saved. Records of the batch: {', '.join(ids)}. "
                "Look at them in data/prepared/train.jsonl, or lower train.learning_rate"
            )
        logging.warning("%s: a spike. Records of the batch: %s", what, ", ".join(ids))
        entry |= {"usual_loss": usual, "spike_records": ids}
