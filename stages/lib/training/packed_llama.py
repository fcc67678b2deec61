"""A Llama as training calls it: packed sequences in, their loss out, and no logits."""

from contextlib import nullcontext
from typing import Any, cast

import torch
from peft.utils.other import TrainableTokensWrapper
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from stages.lib.model.chat import IGNORED
from stages.lib.training.loss import summed_loss


class OutputMatrix(torch.nn.Linear):
    """The output matrix; called, it computes the loss itself, so that FSDP has brought its shards together."""

    def forward(self, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """The summed loss of vectors (tokens, width) that predict the ids of `target` (tokens)."""
        return summed_loss(hidden, self.weight, target)


class TrainedRows(TrainableTokensWrapper):
    """PEFT's wrapper of an output matrix of which some rows are trained; called, it computes the loss itself.

    PEFT's own call would make a whole matrix with these rows in it, and of that the logits.
    """

    def __init__(self, wrapper: TrainableTokensWrapper) -> None:
        adapter = wrapper.token_adapter
        (name,) = adapter.token_indices
        super().__init__(adapter.base_layer, name, adapter.token_indices[name], adapter.tied_adapter)
        self.token_adapter = adapter  # with the very rows that PEFT has made, in the type that it gave them
        self.register_buffer("row_ids", torch.tensor(adapter.token_indices[name]), persistent=False)

    def forward(self, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """As `OutputMatrix` has it."""
        (name,) = self.active_adapters
        adapter = self.token_adapter
        weight = cast(torch.Tensor, adapter.base_layer.weight)
        return summed_loss(hidden, weight, target, adapter.trainable_tokens_delta[name], self.row_ids)


class PackedLlama(LlamaForCausalLM):
    """A Llama whose forward pass returns the loss of packed sequences, also below a PEFT wrapper.

    With `offload`, what the checkpointed layers keep for the backward pass waits in the memory of the CPU.
    """

    accepts_loss_kwargs = True  # transformers' Trainer then passes num_items_in_batch, and divides by nothing itself
    offload = False

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.lm_head = OutputMatrix(config.hidden_size, config.vocab_size, bias=False)

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int, **positions: Any
    ) -> CausalLMOutputWithPast:
        """The sum over the labels that are not IGNORED, divided by `num_items_in_batch`, those of the whole batch.

        input_ids and labels: (1, tokens); `positions` as `trainer.collate` has them. A label is predicted by the token
        before it, and only such tokens reach the output matrix.
        """
        pinned = input_ids.is_cuda  # pages that the GPU reads and writes without the CPU
        with torch.autograd.graph.save_on_cpu(pin_memory=pinned) if self.offload else nullcontext():
            hidden = self.model(input_ids=input_ids, use_cache=False, **positions).last_hidden_state
        predicted = labels[:, 1:] != IGNORED
        loss = self.lm_head(hidden[:, :-1][predicted], labels[:, 1:][predicted])
        return CausalLMOutputWithPast(loss=loss / num_items_in_batch)
