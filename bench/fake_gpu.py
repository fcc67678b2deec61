"""A GPU's paths through a training on fake tensors, which have shapes but no values: for `bench.memory`."""

from typing import Any

import bitsandbytes as bnb
import torch
import torch.nn.attention.varlen  # registers its operator
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.initialization import no_init_weights

# Bytes that kernels of a GPU take and give back inside an operator, read from their source.
INSIDE = {
    # FlashAttention's backward pass: dq in float32; dk and dv for every query head
    torch.ops.torch_attn._varlen_attn_backward.default: lambda grad, query, *_: query.numel() * (4 + 2 + 2),
    # bitsandbytes: the int32 product and its float16
    torch.ops.bitsandbytes.int8_scaled_mm.default: lambda a, b, *_: a.numel() // a.shape[-1] * b.shape[0] * (4 + 2),
    # absolute values and which of them are outliers
    torch.ops.bitsandbytes.int8_vectorwise_quant.default: lambda a, *_: a.numel() * (2 + 1),
}


def on_every_token(func, args: tuple):
    """A choice by a mask of which no value is known, as if it chose all; NotImplemented of another operator."""
    if func not in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default):
        return NotImplemented
    whole, mask = args[0], args[1][0]
    if mask is None or mask.dtype != torch.bool:
        return NotImplemented
    if func is torch.ops.aten.index.Tensor:
        return whole.new_empty(mask.numel(), *whole.shape[mask.dim() :])
    return torch.empty_like(whole) if func is torch.ops.aten.index_put.default else whole


def fused_dropout(x: torch.Tensor, p: float, training: bool, inplace: bool) -> torch.Tensor:
    """Dropout as a GPU's kernel makes it: a byte an element says what was dropped."""
    return torch.native_dropout(x, p, training)[0] if training and p else x


def fake_model(
    config: dict, _, dtype: torch.dtype, attention: str, quantization: str, kind: type[LlamaForCausalLM], *__: str
) -> LlamaForCausalLM:
    """A model without values, its linear layers quantised as bitsandbytes keeps them."""
    with no_init_weights():
        model = kind._from_config(LlamaConfig(**config), dtype=dtype, attn_implementation=attention)
    model.config.use_cache = False
    linears = {name: module for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    for name, linear in linears.items():
        if quantization != "none" and "layers" in name:
            model.set_submodule(name, in_8bit(linear) if quantization == "8bit" else in_4bit(linear, dtype))
    model.is_loaded_in_8bit = quantization == "8bit"
    model.is_loaded_in_4bit = quantization == "4bit"
    return model.eval()


def in_8bit(linear: torch.nn.Linear) -> bnb.nn.Linear8bitLt:
    """A linear layer as bitsandbytes keeps it in 8 bits: each output has a float32 scale."""
    outputs, inputs = linear.weight.shape
    with unset_fake_temporarily(), torch.device("meta"):
        quantized = bnb.nn.Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False)
    del quantized.weight
    weight: Any = torch.nn.Parameter(torch.empty(outputs, inputs, dtype=torch.int8), requires_grad=False)
    weight.CB = weight.data
    weight.SCB = torch.empty(outputs)
    weight.has_fp16_weights = False
    quantized.weight = weight
    return quantized


def in_4bit(linear: torch.nn.Linear, dtype: torch.dtype) -> bnb.nn.Linear4bit:
    """A linear layer as bitsandbytes keeps it in nf4, its constants quantised too."""
    outputs, inputs = linear.weight.shape
    count = outputs * inputs
    with unset_fake_temporarily(), torch.device("meta"):
        quantized = bnb.nn.Linear4bit(inputs, outputs, bias=False, compute_dtype=dtype, quant_type="nf4")
    del quantized.weight
    weight: Any = torch.nn.Parameter(torch.empty(count // 2, 1, dtype=torch.uint8), requires_grad=False)
    constants = bnb.functional.QuantState(
        torch.empty(count // 64 // 256), code=torch.empty(256), blocksize=256, dtype=torch.float32
    )
    weight.quant_state = bnb.functional.QuantState(
        absmax=torch.empty(count // 64, dtype=torch.uint8),
        shape=(outputs, inputs),
        code=torch.empty(16),
        blocksize=64,
        quant_type="nf4",
        dtype=dtype,
        offset=torch.empty(()),
        state2=constants,
    )
    weight.compress_statistics = True
    weight.quant_type = "nf4"
    quantized.weight = weight
    return quantized
