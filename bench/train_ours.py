"""One run of this project's training: `python -m bench.train_ours SETTINGS OUT`, as bench.train asks for it."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.steps import chosen, watch
from stages.lib import finetune as training


def tune(settings: dict, out: Path) -> None:
    """Tune with `settings["train"]`, a section of params.yaml; nothing is evaluated; it is saved once, at the end.

    `plain_loss` leaves transformers' own loss in place, with all its logits; `dense_mask` its attention, with a mask
    of tokens × tokens for each row, the rows one below the other.
    """
    clock = watch(settings["cap_gib"])
    train = chosen(settings["train"])
    if settings["plain_loss"]:
        training.without_logits = lambda *_: None
    if settings["dense_mask"]:
        train.attention, training.collate = "sdpa", rows_apart  # after the checks: it is not offered
    training.collate = clock.counting(training.collate)
    with tempfile.TemporaryDirectory() as folder:
        places = Path(settings["tokenized"]), Path(settings["base"]), Path(folder) / "run", Path(folder) / "adapter"
        training.finetune(train, [], settings["seed"], *places)
    clock.save(out, train.gradient_accumulation_steps)


def rows_apart(rows: list[dict]) -> dict:
    """Packed rows one below the other, shape (rows, tokens), each with its padding."""
    names = ("input_ids", "labels", "position_ids")
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])).long() for name in names}
    told = {"record_ids": [i for row in rows for i in row["record_ids"]], "tokens": sum(row["tokens"] for row in rows)}
    return batch | told


if __name__ == "__main__":
    tune(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
