"""Weights that are kept in 16 bits and multiplied in float32: half a float32 model's memory, and its results."""

import torch
from torch import nn
from torch.nn.functional import linear

BAND = 1 << 26  # elements of a weight that are float32 at a time
TOKENS, SCORED = 4096, 1024  # of a batch, and those of them that have logits at a time, at most: it is short of memory


class WideningLinear(nn.Module):
    """A linear layer whose 16-bit weight becomes float32 a band of rows at a time, while it is multiplied."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, inputs) in, (…, outputs) out, float32."""
        bands = self.weight.split(max(1, BAND // self.weight.shape[1]))
        outputs = torch.cat([linear(hidden, band.float()) for band in bands], dim=-1)
        return outputs if self.bias is None else outputs + self.bias


class WideningEmbedding(nn.Module):
    """An embedding in 16 bits whose vectors become float32."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(…) in, (…, width) out, float32."""
        return nn.functional.embedding(ids, self.weight).float()


def widen(model: nn.Module) -> None:
    """Let every 16-bit linear layer and embedding of a model compute in float32; its weights stay as they are."""
    for name, module in list(model.named_modules(remove_duplicate=False)):  # PEFT has some under two names
        if type(module) is nn.Linear and module.weight.itemsize == 2:
            model.set_submodule(name, WideningLinear(module))
        elif type(module) is nn.Embedding:
            model.set_submodule(name, WideningEmbedding(module))
