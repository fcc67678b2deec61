"""One run of this project's training: `python -m bench.train_ours SETTINGS OUT`, as bench.train asks for it."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from bench.steps import chosen, watch
from stages.lib.training import adapters
from stages.lib.training import trainer as training


def tune(settings: dict, out: Path) -> None:
    """Tune with `settings["train"]`, a section of params.yaml; nothing is evaluated, and no adapter is saved.

    `plain_loss` leaves transformers' own loss in place, with all its logits; `dense_mask` its attention, with a mask
    of tokens × tokens for each packed sequence, the sequences one below the other.
    """
    clock = watch(settings["cap_gib"])
    train = chosen(settings["train"])
    if settings["plain_loss"]:
        adapters.PackedLlama = LlamaForCausalLM  # an attribute `offload` means nothing to it
    if settings["dense_mask"]:
        train.attention = "sdpa"  # after the checks: it is not offered
        training.collate = apart
    training.collate = clock.counting(training.collate)
    training.save = lambda *_: None  # it would hash the base: 16 GB of an 8B model
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(settings["tokenized"]), Path(settings["base"])
        training.finetune(
            train, [], settings["seed"], training.Places(*inputs, Path(folder) / "run", Path(folder) / "adapter")
        )
    clock.save(out, train.gradient_accumulation_steps)


def apart(sequences: list[dict]) -> dict:
    """Packed sequences one below the other, shape (sequences, tokens), each with its padding."""
    names = ("input_ids", "labels", "position_ids")
    batch = {name: torch.from_numpy(np.stack([sequence[name] for sequence in sequences])).long() for name in names}
    record_ids = [record for sequence in sequences for record in sequence["record_ids"]]
    return batch | {"record_ids": record_ids, "tokens": sum(sequence["tokens"] for sequence in sequences)}


if __name__ == "__main__":
    tune(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
