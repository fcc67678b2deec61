"""One run of this project's training: `python -m bench.train_ours SETTINGS OUT`, as bench.train asks for it.

SETTINGS is a JSON file, OUT gets what `bench.steps.Clock` saw.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.steps import watch
from stages.lib import finetune as training
from stages.lib.train_schema import Launch, Lora, Train


def train(settings: dict, out: Path) -> None:
    """Tune with `settings["train"]`, a section of params.yaml; nothing is evaluated, and saved only after the last step.

    `loss: plain` leaves transformers' own loss in place, with all its logits. `attention: sdpa` is transformers',
    with its mask of tokens × tokens; `flat: false` keeps the rows apart, padding and all, as that mask is made for.
    """
    clock = watch(settings["cap_gib"])
    section = settings["train"]
    chosen = Train(**section | {"lora": Lora(**section["lora"]), "launch": Launch(**section["launch"])})
    chosen.attention = settings["attention"]  # after the checks: not all that is compared is offered
    if settings["loss"] == "plain":
        training.without_logits = lambda *_: None
    training.collate = clock.counting(training.collate if settings["flat"] else rows_apart)
    with tempfile.TemporaryDirectory() as folder:
        places = Path(settings["tokenized"]), Path(settings["base"]), Path(folder) / "run", Path(folder) / "adapter"
        training.finetune(chosen, [], settings["seed"], *places)
    clock.save(out, chosen.gradient_accumulation_steps)


def rows_apart(rows: list[dict]) -> dict:
    """Packed rows one below the other, shape (rows, tokens), each with its padding."""
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])).long() for name in ("input_ids", "labels")}
    batch["position_ids"] = torch.from_numpy(np.stack([row["position_ids"] for row in rows])).long()
    return batch | {"record_ids": [i for row in rows for i in row["record_ids"]]}


if __name__ == "__main__":
    train(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
