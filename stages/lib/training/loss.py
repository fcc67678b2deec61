"""Cross-entropy straight from hidden states: the logits of a large vocabulary never exist as a whole."""

from contextlib import nullcontext
from types import MethodType

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from stages.lib.chat import IGNORED

CHUNK_BYTES = 1 << 26  # of float32 logits that are in memory at a time
STEP = 64  # tokens of a line, and rows of logits, come in multiples of it: products are prepared for each new shape


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of -log softmax(hidden · weightᵀ)[target], and its gradients, computed chunk by chunk in one pass.

    hidden (tokens, width), weight (vocabulary, width), target (tokens). `rows` (n, width) stand in the place
    of the weight's rows `row_ids`: they are trained while the weight is frozen. Products are of hidden's
    dtype, sums and the softmax of float32. The gradient is made in the forward pass, as Liger's fused kernel
    does it (Hsu et al. 2024, arXiv:2410.10989, section 3.2), so memory is one chunk of logits.
    """

    @staticmethod
    def forward(ctx, hidden, weight, rows, row_ids, target):
        learning, needs_weight, *_ = ctx.needs_input_grad  # without gradients, hidden needs none either
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if learning and needs_weight else None
        grad_rows = torch.zeros_like(rows, dtype=torch.float32) if rows is not None else None
        matrix = weight.to(hidden.dtype)
        loss = hidden.new_zeros((), dtype=torch.float32)
        size = max(1, CHUNK_BYTES // (4 * weight.shape[0]))
        for start in range(0, len(hidden), size):
            wanted = target[start : start + size, None]
            count = len(wanted)
            filling = min(-count % STEP, size - count)  # rows of zeros that count for nothing
            part = pad(hidden[start : start + count], (0, 0, 0, filling))
            logits = part @ matrix.T
            if rows is not None:
                logits[:, row_ids] = part @ rows.to(part.dtype).T
            logprobs = logits.log_softmax(-1, dtype=torch.float32)
            loss -= logprobs[:count].gather(1, wanted).sum()
            if not learning:
                continue
            grad = logprobs.exp_()
            grad[:count].scatter_add_(1, wanted, grad.new_full((1, 1), -1.0).expand_as(wanted))
            grad[count:] = 0
            grad, here = grad.to(hidden.dtype), slice(start, start + count)
            if rows is not None:
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
    def backward(ctx, grad_loss):
        grads = [None if grad is None else grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors]
        return *grads, None, None


def without_logits(model: PreTrainedModel, trained_ids: list[int], offload: bool) -> None:
    """Make a Llama's forward pass return the loss and no logits, also below a PEFT wrapper.

    The loss is the sum over the labels that are not IGNORED, divided by `num_items_in_batch`: the labels of
    the whole accumulated batch. A label is predicted by the token before it, and only such tokens reach the
    output matrix. `trained_ids` are the rows of that matrix which PEFT trains. With `offload`, what the
    checkpointed layers keep for the backward pass waits in the memory of the CPU.
    """

    def forward(self, input_ids, labels, num_items_in_batch, **positions) -> CausalLMOutputWithPast:
        with torch.autograd.graph.save_on_cpu() if offload else nullcontext():
            hidden = self.model(input_ids=input_ids, use_cache=False, **positions).last_hidden_state
        predicted = labels[:, 1:] != IGNORED
        loss = self.lm_head(hidden[:, :-1][predicted], labels[:, 1:][predicted])
        return CausalLMOutputWithPast(loss=loss / num_items_in_batch)

    def summed_loss(self, hidden, target) -> torch.Tensor:
        trained = self.token_adapter if trained_ids else None
        weight = trained.base_layer.weight if trained else self.weight
        rows = trained.trainable_tokens_delta["default"] if trained else None
        with torch.autocast(hidden.device.type, enabled=False):
            return LinearCrossEntropy.apply(hidden, weight, rows, trained_ids, target)

    model.forward = MethodType(forward, model)
    # The output matrix itself computes the loss: FSDP brings its shards together when it is called.
    model.lm_head.forward = MethodType(summed_loss, model.lm_head)
