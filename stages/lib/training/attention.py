"""Attention within each document of packed sequences, without a mask of tokens × tokens."""

from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

DOCUMENTS = "documents"


def boundaries(position_ids: torch.Tensor) -> dict[str, torch.Tensor | int]:
    """Where documents start and end among tokens laid end to end, as transformers names it for FlashAttention.

    A document starts wherever a position is 0. Of tokens of shape (1, tokens): cu_seq_lens_q and _k are
    int32 of shape (documents + 1), max_length_q and _k the tokens of the longest document.
    """
    starts = (position_ids[0] == 0).nonzero().flatten()
    edges = torch.cat([starts, starts.new_tensor([position_ids.shape[1]])]).to(torch.int32)
    longest = int(edges.diff().max())
    return {"cu_seq_lens_q": edges, "cu_seq_lens_k": edges, "max_length_q": longest, "max_length_k": longest}


def documents(  # noqa: PLR0913 (transformers passes these to every attention)
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of every token to its own document only.

    (1, heads, tokens, width) in, (1, tokens, heads, width) out.

    On a GPU one kernel with the boundaries (torch's FlashAttention, which has no float32), else one call a
    document: what lies between documents is never computed, whatever a mask would have hidden.
    """
    if query.is_cuda and value.dtype != torch.float32:
        # Where the whole model learns, the rotary positions have made float32 of queries and keys.
        q, k, v = (states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value))
        attended: Any = varlen_attn(
            q,
            k,
            v,
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return attended.unsqueeze(0), None
    lengths = cu_seq_lens_q.diff().tolist()
    # float32, which autocast would undo: the CPU kernel's backward pass takes half as long in it as in bfloat16 for
    # documents of a hundred tokens, as long at 256, longer from about 1,000 (bench/README.md).
    parts = zip(*(states.float().split(lengths, dim=2) for states in (query, key, value)), strict=True)
    with torch.autocast(query.device.type, enabled=False):
        answers = [
            scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True) for q, k, v in parts
        ]
    return torch.cat(answers, dim=2).transpose(1, 2).to(query.dtype), None


AttentionInterface.register(DOCUMENTS, documents)
