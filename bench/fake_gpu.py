"""A GPU's paths through a training on fake tensors, which have shapes but no values: for `bench.memory`."""

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
    config: dict, _, dtype: torch.dtype, attention: str, quantization: str, kind: type[LlamaForCausalLM]
) -> LlamaForCausalLM:
    """A model without values, its linear layers quantised as bitsandbytes keeps them."""
    with no_init_weights():
        model = kind._from_config(LlamaConfig(**config), dtype=dtype, attn_implementation=attention)
    model.config.use_cache = False
    for name, linear in [(n, m) for n, m in model.named_modules() if type(m) is torch.nn.Linear and "layers" in n]:
        if quantization == "none":
            break
        rows, columns = linear.weight.shape
        count = rows * columns
        with unset_fake_temporarily(), torch.device("meta"):
            if quantization == "8bit":
                new = bnb.nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False)
            else:
                new = bnb.nn.Linear4bit(columns, rows, bias=False, compute_dtype=dtype, quant_type="nf4")
        del new.weight
        if quantization == "8bit":
            weight = torch.nn.Parameter(torch.empty(rows, columns, dtype=torch.int8), requires_grad=False)
            weight.CB, weight.SCB, weight.has_fp16_weights = weight.data, torch.empty(rows), False
        else:
            weight = torch.nn.Parameter(torch.empty(count // 2, 1, dtype=torch.uint8), requires_grad=False)
            constants = bnb.functional.QuantState(
                torch.empty(count // 64 // 256), code=torch.empty(256), blocksize=256, dtype=torch.float32
            )
            weight.quant_state = bnb.functional.QuantState(
                torch.empty(count // 64, dtype=torch.uint8), (rows, columns), torch.empty(16), 64, "nf4", dtype,
                torch.empty(()), constants,
            )  # fmt: skip
            weight.compress_statistics, weight.quant_type = True, "nf4"
        new.weight = weight
        model.set_submodule(name, new)
    model.is_loaded_in_8bit, model.is_loaded_in_4bit = quantization == "8bit", quantization == "4bit"
    return model.eval()
