"""The arithmetic that a training or a reading cannot do without, for model FLOP utilisation, and how fast it can be."""

import time
from statistics import median

import torch

from stages.lib.settings.train import LINEAR
from stages.lib.training import shapes


def of_training(config: dict, r: int, labelled: float, context: float = 0.0) -> float:
    """Floating-point operations a token of LoRA on every linear layer, forward and backward.

    A product with a frozen matrix is made twice, forward and for the gradient of its input; one with the adapter's
    matrices three times. The output matrix is needed where there is a label (`labelled`: the share of such tokens).
    `context` is the mean number of tokens that a token attends to. What checkpointing computes again does not count
    (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
    """
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    sides = shapes.of_layer(config)
    frozen = sum(rows * columns for rows, columns in sides.values())
    adapter = sum(r * sum(sides[name]) for name in LINEAR)
    width = sides["q_proj"][0]
    attention = 2 * 2 * width * context * 3  # two products a token attended to, forward, and twice that backward
    return layers * (4 * frozen + 6 * adapter + attention) + 4 * labelled * hidden * config["vocab_size"]


def of_reading(config: dict, tokens: int) -> float:
    """Floating-point operations for the next token's log-probabilities after a text of so many tokens.

    Each token goes once through each layer and attends to itself and those before it; the output matrix is needed
    once.
    """
    sides = shapes.of_layer(config)
    matrices = sum(rows * columns for rows, columns in sides.values())
    attention = 2 * sides["q_proj"][0] * tokens * (tokens + 1)  # two products for each pair of tokens, 2 x width each
    layers = config["num_hidden_layers"] * (2 * matrices * tokens + attention)
    return layers + 2 * config["hidden_size"] * config["vocab_size"]


def product_rate(rows: int, inner: int, columns: int, dtype: torch.dtype) -> float:
    """Operations a second of products of two matrices on this CPU; the median of a hundred."""
    one, other, times = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype), []
    for _ in range(100):
        start = time.perf_counter()
        one @ other
        times.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / median(times)
