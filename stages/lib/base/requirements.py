"""What a base must be, looked at when it comes, and not by the stage that would fail on it hours later."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from stages.lib.base.byte_level import KINDS, kind_of
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json
from stages.lib.model.weights import stored_in

ROPES = ("default", "llama3")


def require_llama(folder: Path) -> None:
    """Raise UserError unless a folder holds a Llama that can be tuned, merged, converted and quantised.

    Unquantised safetensors of all the shapes that its config names, and a tokenizer that llama.cpp knows.
    """
    config = _config(folder)
    require_weights(folder, config, {name: one.shape for name, one in stored_in(folder).items()})
    _require_tokenizer(folder, config.vocab_size)


def require_weights(model: Path, config: LlamaConfig, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise UserError unless a model has every tensor that its config tells of, each of its shape, and no other."""
    with torch.device("meta"):
        expected: dict[str, Any] = LlamaForCausalLM(config).state_dict()
    if config.tie_word_embeddings:
        del expected["lm_head.weight"]
    for name, tensor in expected.items():
        shape = shapes.get(name, "missing")
        if shape != tuple(tensor.shape):
            raise UserError(f"{model}: {name} is {shape}, expected {tuple(tensor.shape)} as its config has it")
    if strange := sorted(set(shapes) - set(expected)):
        raise UserError(f"{model}: its config has no place for {strange[0]}; save it anew with transformers")


def _config(folder: Path) -> LlamaConfig:
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise UserError(f"{folder}: an adapter, expected a whole model: merge it into its base first")
        raise UserError(f"{path}: no such file, expected a model's config")
    read = read_json(path)
    kind = read.get("model_type")
    if kind != "llama" or "LlamaForCausalLM" not in (read.get("architectures") or ["LlamaForCausalLM"]):
        raise UserError(f"{path}: model_type is {kind!r}, architectures {read.get('architectures')}, expected a Llama")
    if quantised := read.get("quantization_config"):
        method = quantised.get("quant_method", "quantised")
        raise UserError(f"{path}: the weights are quantised ({method}), expected 16 bits: take the original checkpoint")
    try:
        config = LlamaConfig.from_dict(read)
    except (StrictDataclassError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a Llama's config: {' '.join(str(error).split())}") from error
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    if rope not in ROPES:
        raise UserError(f"{path}: rope type is {rope!r}, expected {' or '.join(ROPES)}")
    return config


def _require_tokenizer(folder: Path, vocab_size: int) -> None:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; save the tokenizer there with transformers' `save_pretrained`")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path}: not a tokenizer: {error}") from error
    if kind_of(tokenizer) is None:
        kinds = " nor ".join(KINDS)
        raise UserError(f"{path}: it splits text as neither {kinds} does, so llama.cpp would read it otherwise")
    if (tokens := tokenizer.get_vocab_size()) > vocab_size:
        raise UserError(f"{path}: {tokens} tokens, but the model has rows for {vocab_size}")
