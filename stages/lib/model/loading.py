"""Every from_pretrained: tokenizers and models from a folder of this repository."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json

if TYPE_CHECKING:
    from peft import PeftModel

TRAINED_TOKENS = "trained_tokens.json"  # in a base: markers that its vocabulary lacked, whose rows are to be trained


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, with its chat template."""
    _require(folder)
    return AutoTokenizer.from_pretrained(folder)


def trained_token_ids(base: Path) -> list[int]:
    """Ids of the tokens whose rows an adapter is to train."""
    tokenizer = load_tokenizer(base)
    return [tokenizer.get_vocab()[token] for token in read_json(base / TRAINED_TOKENS)]


def load_model(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    quantization: str = "none",
    kind: type[AutoModelForCausalLM] | type[PreTrainedModel] = AutoModelForCausalLM,
    device: str = "cpu",
) -> PreTrainedModel:
    """The causal language model of a folder, in eval mode, without a key-value cache by default.

    The cache is off because packed documents are kept apart by their position_ids only where it is
    (transformers 5.23: otherwise documents attend to each other silently). `quantization` is none,
    8bit (Dettmers et al. 2022, arXiv:2208.07339) or 4bit (nf4, its constants quantised too: Dettmers et al.
    2023, arXiv:2305.14314); embedding, norms and output matrix keep `dtype`. `kind` is the class that it
    becomes: by default the one that its config.json names. Its weights go to the `device` one by one, which
    quantises them: the machine's memory never holds them all where that is a GPU.
    """
    _require(folder)
    nf4: dict[str, Any] = {
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }
    methods: dict[str, dict[str, Any]] = {"8bit": {"load_in_8bit": True}, "4bit": {"load_in_4bit": True} | nf4}
    quantized = methods.get(quantization)
    # On a GPU it warns of every product in 8 bits whose input is bfloat16: millions of lines in a training.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    model = kind.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=attention,
        quantization_config=BitsAndBytesConfig(**quantized) if quantized else None,
        device_map={"": device} if quantized or device != "cpu" else None,
    )
    model.config.use_cache = False
    return model.eval()


def load_tuned(
    base: Path, adapter: Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> "PreTrainedModel | PeftModel":
    """The base with its adapter laid over it, on the device; where the whole model was trained, that model.

    Trained token rows are written into their matrices, which PEFT would copy as a whole in every forward pass.
    """
    if not (adapter / "adapter_config.json").is_file():
        return load_model(adapter, dtype, device=device)
    from peft import PeftModel
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    tuned = PeftModel.from_pretrained(load_model(base, dtype, device=device), adapter).eval()
    for module in tuned.modules():
        if isinstance(module, TrainableTokensLayer):
            module.merge()
    return tuned


def _require(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no model there; build it with `dvc repro`, or fetch it with `dvc pull`")
