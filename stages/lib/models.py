"""Every from_pretrained: tokenizers and models from a folder of this repository."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stages.lib.errors import UserError


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, with its chat template."""
    _require(folder)
    return AutoTokenizer.from_pretrained(folder)


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The causal language model of a folder, in eval mode, without a key-value cache by default.

    The cache is off because packed rows are kept apart by their position_ids only where it is
    (transformers 5.23: otherwise documents attend to each other without a word).
    """
    _require(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    model.config.use_cache = False
    return model.eval()


def _require(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no model there; build it with `dvc repro`, or fetch it with `dvc pull`")
