"""Fused linear cross-entropy: the logits of a large vocabulary never exist as a whole."""

from typing import Any

import torch
from torch.nn.functional import pad

CHUNK_BYTES = 1 << 26  # of float32 logits that are in memory at a time; on a GPU twice as many
TILE = 128  # rows of a matrix that a GPU's products work on at a time: fewer take as long
STEP = 64  # tokens of a line, and rows of logits, come in multiples of it: products are prepared for each new shape


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of -log softmax(hidden · weightᵀ)[target], and its gradients, computed chunk by chunk in one pass.

    hidden (tokens, width), weight (vocabulary, width), target (tokens). `rows` (n, width) stand in the place
    of the weight's rows `row_ids` (n): they are trained while the weight is frozen. Products are of hidden's
    dtype, sums and the softmax of float32. The gradient is made in the forward pass, as Liger's fused kernel
    does it (Hsu et al. 2024, arXiv:2410.10989, section 3.2), so memory is one chunk of logits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        rows: torch.Tensor | None,
        row_ids: torch.Tensor | None,
        target: torch.Tensor,
    ) -> torch.Tensor:
        """The loss, () of float32; gradients are kept for `backward` where any is needed."""
        learning, needs_weight, *_ = ctx.needs_input_grad  # without gradients, hidden needs none either
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if learning and needs_weight else None
        grad_rows = None if rows is None else torch.zeros_like(rows, dtype=torch.float32)
        matrix = weight.to(hidden.dtype)
        loss = hidden.new_zeros((), dtype=torch.float32)
        size = chunk_rows(weight.shape[0], hidden.is_cuda)
        for start in range(0, len(hidden), size):
            wanted = target[start : start + size, None]
            count = len(wanted)
            here = slice(start, start + count)
            part = filled(hidden[here], size)
            logits = part @ matrix.T
            if rows is not None:
                logits[:, row_ids] = part @ rows.to(part.dtype).T
            logprobs = logits.log_softmax(-1, dtype=torch.float32)
            loss -= logprobs[:count].gather(1, wanted).sum()
            if not learning:
                continue
            grad = logits_gradient(logprobs, wanted).to(hidden.dtype)
            if rows is not None and grad_rows is not None:
                grad_rows += (grad[:, row_ids].T @ part).float()
                grad_hidden[here] = (grad[:, row_ids] @ rows.to(part.dtype))[:count]
                grad[:, row_ids] = 0
                grad_hidden[here] += (grad @ matrix)[:count]
            else:
                grad_hidden[here] = (grad @ matrix)[:count]
            if grad_weight is not None:
                grad_weight += (grad.T @ part).float()
        ctx.save_for_backward(grad_hidden, grad_weight, grad_rows)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients that `forward` has made, times that of the loss."""
        grads = [None if grad is None else grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors]
        return *grads, None, None


def chunk_rows(vocab_size: int, gpu: bool) -> int:
    """Rows of logits at a time: as many as CHUNK_BYTES hold, on a GPU in whole tiles (measured: bench/README.md)."""
    rows = max(1, CHUNK_BYTES // (4 * vocab_size))
    return max(TILE, 2 * rows // TILE * TILE) if gpu else rows


def filled(part: torch.Tensor, size: int) -> torch.Tensor:
    """Rows (tokens, width) with rows of zeros up to a multiple of STEP, or to `size` rows where that is less."""
    filling = min(-len(part) % STEP, size - len(part))
    return pad(part, (0, 0, 0, filling))


def logits_gradient(logprobs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The gradient of the summed loss by the logits: softmax - one-hot(target), written over the log-probabilities.

    logprobs (rows, vocabulary), target (tokens, 1); rows beyond these tokens are filling, which has no gradient.
    """
    gradient = logprobs.exp_()
    count = len(target)
    gradient[:count].scatter_add_(1, target, gradient.new_full((1, 1), -1.0).expand_as(target))
    gradient[count:] = 0
    return gradient


def summed_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    rows: torch.Tensor | None = None,
    row_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """The fused linear cross-entropy (`LinearCrossEntropy`), in hidden's dtype whatever autocast says."""
    with torch.autocast(hidden.device.type, enabled=False):
        return LinearCrossEntropy.apply(hidden, weight, rows, row_ids, target)
