"""A base from a GGUF: weights dequantised to bfloat16, the config that belongs to them, and the tokenizer."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import LlamaFileType, ReaderTensor
from gguf.quants import dequantize
from tqdm import tqdm
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from stages.lib.base import gguf_tokenizer
from stages.lib.base.gguf_file import read_gguf
from stages.lib.base.requirements import require_weights
from stages.lib.core.errors import UserError
from stages.lib.core.files import write_json
from stages.lib.core.resources import require_disk
from stages.lib.model import weights

BAND = 1 << 24  # weights that are dequantised at a time
# A Llama's tensors by their names in a GGUF and in a checkpoint.
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"  # what each rotary frequency is divided by: no weight, the config says it
# Llama-3.1's and 3.2's rope (their config.json), but for `factor`, which the greatest of these shows.
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SIXTEEN_BITS = ("ALL_F32", "MOSTLY_F16", "MOSTLY_BF16")


def from_gguf(file: Path, folder: Path) -> None:
    """Write a Llama's GGUF as a model folder, a band of rows at a time.

    Raises UserError, before anything is written, where the file is cut off, is no whole Llama, or has a tokenizer or
    rotary positions that are not known here.
    """
    reader = read_gguf(file)
    keys = Metadata(file, {key: field.contents() for key, field in reader.fields.items()})
    if (architecture := keys.get("general.architecture")) != "llama":
        raise UserError(f"{file}: its architecture is {architecture!r}, expected 'llama'; take another base")
    gguf_tokenizer.require_known(file, keys)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    factors = tensors.pop(ROPE_FACTORS, None)
    named = {_checkpoint_name(file, name): tensor for name, tensor in tensors.items()}
    config = _config(keys, tied="lm_head.weight" not in named)
    config.rope_parameters = _rope(file, config, keys, factors)
    shapes = {name: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in named.items()}
    require_weights(file, config, shapes)
    require_disk(folder, sum(2 * math.prod(shape) for shape in shapes.values()), "the dequantised base")

    folder.mkdir(parents=True)
    gguf_tokenizer.write_tokenizer(keys, folder)
    config.save_pretrained(folder)
    if kind := quantised_as(keys):
        written = config.to_diff_dict() | {weights.DEQUANTISED_FROM: kind}
        write_json(folder / "config.json", written)
    with weights.writing(folder / "model.safetensors", shapes, torch.bfloat16) as out:
        for name, tensor in tqdm(named.items(), desc="dequantise", unit="tensor"):
            for rows in _rows(tensor, _row_order(name, config)):
                out.write(rows.bfloat16().view(torch.uint8).numpy().data)


class Metadata(dict[str, Any]):
    """The keys of a GGUF; asking for one that it lacks raises UserError."""

    def __init__(self, file: Path, keys: dict[str, Any]) -> None:
        super().__init__(keys)
        self.file = file

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.file}: it has no {key}; take another base")


def quantised_as(keys: dict[str, Any]) -> str | None:
    """The type that most weights of a GGUF are quantised to, such as "Q4_1"; None where they have 16 bits or more."""
    name = LlamaFileType(keys.get("general.file_type", LlamaFileType.MOSTLY_F16)).name
    return None if name in SIXTEEN_BITS else name.removeprefix("MOSTLY_")


def _config(keys: dict[str, Any], tied: bool) -> LlamaConfig:
    heads = keys["llama.attention.head_count"]
    width = keys["llama.embedding_length"]
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        hidden_size=width,
        intermediate_size=keys["llama.feed_forward_length"],
        num_hidden_layers=keys["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=keys.get("llama.attention.head_count_kv", heads),
        head_dim=keys.get("llama.attention.key_length", width // heads),
        vocab_size=len(keys["tokenizer.ggml.tokens"]),
        max_position_embeddings=keys["llama.context_length"],
        rms_norm_eps=_decimal(keys["llama.attention.layer_norm_rms_epsilon"]),
        tie_word_embeddings=tied,
        bos_token_id=keys["tokenizer.ggml.bos_token_id"],
        eos_token_id=keys["tokenizer.ggml.eos_token_id"],
        dtype="bfloat16",
    )


def _rope(file: Path, config: LlamaConfig, keys: dict[str, Any], factors: ReaderTensor | None) -> dict[str, Any]:
    """The config's rope_parameters; raises UserError for factors that are neither none nor Llama-3.1's kind."""
    theta = _decimal(keys.get("llama.rope.freq_base", 10000.0))
    plain = {"rope_type": "default", "rope_theta": theta}
    if (scaling := keys.get("llama.rope.scaling.type", "none")) != "none":
        raise UserError(f"{file}: its rope scaling is {scaling!r}, expected none or Llama-3.1's; take another base")
    if factors is None:
        return plain
    scaled = plain | LLAMA3_ROPE | {"rope_type": "llama3", "factor": _decimal(factors.data.max())}
    config.rope_parameters = plain
    unscaled = LlamaRotaryEmbedding(config).inv_freq
    config.rope_parameters = scaled
    if not np.allclose(unscaled / LlamaRotaryEmbedding(config).inv_freq, factors.data, rtol=1e-4):
        raise UserError(f"{file}: {ROPE_FACTORS} are no rotary positions of Llama-3.1's kind; take another base")
    return scaled


def _decimal(number: float) -> float:
    """A float32 as the shortest decimal that names it: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def _checkpoint_name(file: Path, name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if kind == "weight":
        if stem in WHOLE:
            return f"{WHOLE[stem]}.weight"
        block, _, layer_and_part = stem.partition(".")
        layer, _, part = layer_and_part.partition(".")
        if block == "blk" and part in IN_LAYER:
            return f"model.layers.{layer}.{IN_LAYER[part]}.weight"
    raise UserError(f"{file}: a plain Llama has no tensor {name}; take another base")


def _row_order(name: str, config: LlamaConfig) -> np.ndarray | None:
    """Which row of a GGUF's matrix each row of the checkpoint's is; None where they are in the same order.

    llama.cpp has the two numbers that a rotation turns beside each other, transformers half a head apart.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return None
    width = config.head_dim or config.hidden_size // config.num_attention_heads
    return np.arange(heads * width).reshape(heads, width // 2, 2).swapaxes(1, 2).ravel()


def _rows(tensor: ReaderTensor, order: np.ndarray | None) -> Iterator[torch.Tensor]:
    """A tensor's numbers as float32, a band of rows at a time."""
    data = tensor.data if tensor.data.ndim > 1 else tensor.data[None]
    step = max(1, BAND // int(tensor.shape[0]))
    for first in range(0, len(data), step):
        band = data[order[first : first + step]] if order is not None else data[first : first + step]
        yield torch.tensor(dequantize(np.ascontiguousarray(band), tensor.tensor_type))
