"""Kinds of Llama, as small bases from scratch: tied or not, of either rope type, with BOS in front of a text or not."""

from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from transformers import LlamaConfig

from stages.lib.base import scratch
from stages.lib.base.template import install_template
from stages.lib.core.files import read_json, write_json
from support.settings import CHATML, SHAPE

ROPES = {
    "default": {"rope_type": "default", "rope_theta": 500000.0},
    "llama3": {  # scaled from 64 tokens on, so that a short text shows it
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip


class Kind(NamedTuple):
    tied: bool
    rope: str
    bos: bool

    def __str__(self) -> str:
        return f"{'tied' if self.tied else 'untied'}, {self.rope} rope, {'BOS' if self.bos else 'no BOS'}"


LLAMA3 = Kind(tied=False, rope="default", bos=True)
KINDS = [Kind(*choices) for choices in product((False, True), ROPES, (True, False))]


def make_base(kind: Kind, train: Path, folder: Path) -> None:
    """A base of that kind, trained for a few steps, with the ChatML template."""

    def config(**given) -> LlamaConfig:
        return LlamaConfig(**given | {"tie_word_embeddings": kind.tied, "rope_parameters": ROPES[kind.rope]})

    with patch.object(scratch, "LlamaConfig", config):
        scratch.from_scratch(SHAPE, train, folder, seed=1)
    if not kind.bos:
        write_json(folder / "tokenizer.json", read_json(folder / "tokenizer.json") | {"post_processor": None})
    install_template(folder, CHATML)
