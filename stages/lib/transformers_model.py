"""A transformers model as evaluation and chat see it: token ids in, log-probabilities and ids out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from stages.lib.models import load_model, load_tuned
from stages.lib.space import require_memory


class TransformersModel:
    """Same methods as `stages.lib.gguf_model.GgufModel`, computed in float32 by transformers."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        """The model of a folder, with what was trained laid over it where `adapter` is given.

        Raises UserError where the machine has no room for it.
        """
        size = sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
        require_memory(2 * size, f"{folder}, whose 16-bit weights become float32,")
        self.model = load_tuned(folder, adapter) if adapter else load_model(folder)

    @torch.inference_mode()
    def answer_logprobs(self, prompt: list[int], answers: list[list[int]]) -> list[np.ndarray]:
        """Natural log-probability of every token of each answer after the prompt; float64, one array an answer.

        The prompt is read once; its keys and values are repeated for each answer.
        """
        read = self.model(input_ids=torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
        read.past_key_values.batch_repeat_interleave(len(answers))
        longest = max(map(len, answers))
        # Padding stands at the right, where no answer's token can see it.
        rows = torch.tensor([answer + [0] * (longest - len(answer)) for answer in answers])
        later = self.model(input_ids=rows, past_key_values=read.past_key_values, use_cache=True).logits
        logits = torch.cat([read.logits.expand(len(answers), 1, -1), later[:, :-1]], dim=1).double()
        picked = logits.log_softmax(-1).gather(2, rows.unsqueeze(2)).squeeze(2).numpy()
        return [row[: len(answer)] for row, answer in zip(picked, answers, strict=True)]

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits after each of the tokens, float32, shape (tokens, words)."""
        return self.model(input_ids=torch.tensor([ids])).logits[0].float().numpy()

    @torch.inference_mode()
    def generate(self, ids: list[int], max_new_tokens: int, stop_ids: set[int]) -> Iterator[int]:
        """Greedy continuation, token by token; ends before a stop token."""
        step, cache = torch.tensor([ids]), None
        for _ in range(max_new_tokens):
            output = self.model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, token = output.past_key_values, int(output.logits[0, -1].argmax())
            if token in stop_ids:
                return
            yield token
            step = torch.tensor([[token]])
