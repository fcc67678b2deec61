"""The trainer's log history: as tables and as a summary."""

import csv
import io
import math
from collections.abc import Iterable
from statistics import median

LOSS = ("step", "epoch", "learning_rate", "grad_norm", "loss", "eval_loss", "eval_perplexity")
SPIKES = ("step", "loss", "usual_loss", "records")


def steps(history: list[dict]) -> list[dict]:
    """One row an optimiser step, in order: its training and its validation figures together.

    `peak_memory` (bytes) becomes `peak_memory_gb` (10⁹ bytes); `eval_perplexity` is exp(`eval_loss`). Where
    a step was logged twice, the later figures count.
    """
    rows: dict[int, dict] = {}
    for entry in sorted(history, key=lambda entry: entry["step"]):
        if "loss" in entry or "eval_loss" in entry:
            rows.setdefault(entry["step"], {}).update(entry)
    for row in rows.values():
        if "eval_loss" in row:
            row["eval_perplexity"] = math.exp(row["eval_loss"])
        if "peak_memory" in row:
            row["peak_memory_gb"] = row.pop("peak_memory") / 1e9
    return list(rows.values())


def tables(history: list[dict]) -> dict[str, str]:
    """CSV texts by name, `loss` and `spikes`: what the inputs alone decide, nothing that the machine does.

    In `loss`, a step without a measurement of the validation loss leaves its columns empty. In `spikes`,
    the ids of the batch's records are separated by spaces.
    """
    rows = steps(history)
    spikes = [row | {"records": " ".join(row["spike_records"])} for row in rows if "spike_records" in row]
    return {"loss": table(LOSS, rows), "spikes": table(SPIKES, spikes)}


def table(columns: tuple[str, ...], rows: Iterable[dict]) -> str:
    """CSV of these columns, floats with every digit; what a row lacks is empty, what it has besides is left out."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def tokens_per_second(history: list[dict]) -> float:
    """The median over the steps, to one decimal."""
    return round(median(row["tokens_per_second"] for row in steps(history) if "tokens_per_second" in row), 1)


def summary(history: list[dict]) -> dict:
    """Steps, the last training loss, the least validation loss and its step (None where never measured), spikes.

    The trainer's own `train_loss` is not used: after a resume it averages just a part of the steps.
    """
    rows = steps(history)
    last = [row for row in rows if "loss" in row][-1]
    best = min((row for row in rows if "eval_loss" in row), key=lambda row: row["eval_loss"], default={})
    return {
        "steps": last["step"],
        "train_loss": last["loss"],
        "eval_loss": best.get("eval_loss"),
        "eval_perplexity": best.get("eval_perplexity"),
        "best_step": best.get("step"),
        "spikes": sum("spike_records" in row for row in rows),
    }
