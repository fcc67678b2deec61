"""A transformers model as evaluation and chat see it: token ids in, log-probabilities and ids out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import Cache

from stages.lib.allocator import keep_freed_memory
from stages.lib.models import load_model, load_tuned
from stages.lib.space import require_memory

ROOM = 1 << 12  # tokens of a batch, padding and what is generated included
ROWS = 64  # texts of a batch
LOGITS = 1 << 28  # numbers that the logits of a batch may take


class TransformersModel:
    """Same methods as `stages.lib.gguf_model.GgufModel`: in float32 on a CPU, in float16 on a GPU."""

    def __init__(self, folder: Path, adapter: Path | None = None, device: str = "cpu") -> None:
        """The model of a folder, with what was trained laid over it where `adapter` is given.

        Raises UserError where the machine has no room for it.
        """
        self.path, self.device = adapter or folder, device
        if device == "cpu":
            size = sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
            require_memory(2 * size, f"{folder}, whose 16-bit weights become float32,")
            keep_freed_memory()
        dtype = torch.float32 if device == "cpu" else torch.float16
        self.model = (load_tuned(folder, adapter, dtype) if adapter else load_model(folder, dtype)).to(device)
        self.vocab_size = self.model.config.vocab_size
        self.rows, self.tokens = ROWS, min(ROOM, LOGITS // self.vocab_size)

    @torch.inference_mode()
    def answer_logprobs(self, prompts: list[list[int]], answers: list[list[list[int]]]) -> list[list[np.ndarray]]:
        """Natural log-probability of every token of each answer after its prompt; float64, one array an answer.

        The prompts are one batch, each is read once; its keys and values are repeated for each of its answers.
        """
        cache, mask, next_logits = self._read(prompts)
        first = next_logits.double().log_softmax(-1).cpu()
        counts = [len(some) for some in answers]
        flat = [answer for some in answers for answer in some]
        owner = torch.arange(len(prompts)).repeat_interleave(torch.tensor(counts))
        scored = [[float(first[i, answer[0]])] for i, answer in zip(owner, flat, strict=True)]
        longest = max(map(len, flat))
        if longest > 1:
            owner = owner.to(self.device)
            cache.batch_select_indices(owner)
            # Padding stands at the right, where no answer's token can see it.
            rows = torch.tensor([answer[:-1] + [0] * (longest - len(answer)) for answer in flat], device=self.device)
            mask = torch.cat([mask[owner], torch.ones_like(rows)], 1)
            positions = mask.cumsum(1)[:, -rows.shape[1] :] - 1
            later = self.model(
                input_ids=rows,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).logits
            for row, answer, seen in zip(later, flat, scored, strict=True):
                rest = torch.tensor(answer[1:], device=self.device).unsqueeze(1)
                seen += row[: len(rest)].double().log_softmax(-1).gather(1, rest).flatten().tolist()
        arrays = iter(map(np.array, scored))
        return [[next(arrays) for _ in range(count)] for count in counts]

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits after each of the tokens, float32, shape (tokens, words)."""
        return self.model(input_ids=torch.tensor([ids], device=self.device)).logits[0].float().cpu().numpy()

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int]) -> Iterator[tuple[int, int]]:
        """Greedy continuations of one batch of prompts, as they come: (number of the prompt, id).

        Each ends before a stop token; the others go on without it.
        """
        cache, mask, next_logits = self._read(prompts)
        alive = list(range(len(prompts)))
        for _ in range(max_new_tokens):
            tokens = next_logits.argmax(-1).tolist()
            going = [row for row, token in enumerate(tokens) if token not in stop_ids]
            yield from ((alive[row], tokens[row]) for row in going)
            if not going:
                return
            if len(going) < len(alive):
                alive = [alive[row] for row in going]
                chosen = torch.tensor(going, device=self.device)
                cache.batch_select_indices(chosen)
                mask = mask[chosen]
            step = torch.tensor([[tokens[row]] for row in going], device=self.device)
            mask = torch.cat([mask, torch.ones_like(step)], 1)
            next_logits = self.model(
                input_ids=step,
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]

    def _read(self, prompts: list[list[int]]) -> tuple[Cache, torch.Tensor, torch.Tensor]:
        """Keys and values of the prompts, the mask that hides their padding from what follows, the logits after each.

        Padding stands at the right, where no token of a prompt can see it: reading needs no mask. Of the last layer
        nothing but its last token is wanted, so that one alone goes through the layer's feed-forward part, as in
        llama.cpp; what comes out is added to every token, and right for the last.
        """
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        longest, rows = int(lengths.max()), torch.arange(len(prompts), device=self.device)
        ids = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts], device=self.device)
        decoder = self.model.get_decoder()
        before = decoder.layers[-1].post_attention_layernorm
        hook = before.register_forward_pre_hook(lambda _, given: (given[0][rows, lengths - 1].unsqueeze(1),))
        try:
            read = decoder(input_ids=ids, use_cache=True)
        finally:
            hook.remove()
        mask = (torch.arange(longest, device=self.device) < lengths.unsqueeze(1)).long()
        ends = read.last_hidden_state[rows, lengths - 1]
        return read.past_key_values, mask, self.model.get_output_embeddings()(ends)
