"""The arithmetic that a training cannot do without, for model FLOP utilisation."""

from stages.lib import shapes
from stages.lib.train_schema import LINEAR


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
