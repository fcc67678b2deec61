"""A transformers model as evaluation and chat see it: token ids in, log-probabilities and ids out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from stages.lib.models import load_model


class TransformersModel:
    """Same methods as `stages.lib.gguf_model.GgufModel`, computed in float32 by transformers."""

    def __init__(self, folder: Path) -> None:
        self.model = load_model(folder)

    @torch.inference_mode()
    def answer_logprobs(self, prompt: list[int], answers: list[list[int]]) -> list[np.ndarray]:
        """Natural log-probability of every token of each answer after the prompt; float64, one array an answer."""
        longest = max(map(len, answers))
        # Padding stands at the right, where no answer's token can see it.
        rows = torch.tensor([prompt + answer + [0] * (longest - len(answer)) for answer in answers])
        logits = self.model(input_ids=rows, logits_to_keep=longest + 1).logits[:, :-1].double()
        picked = logits.log_softmax(-1).gather(2, rows[:, len(prompt) :].unsqueeze(2)).squeeze(2).numpy()
        return [row[: len(answer)] for row, answer in zip(picked, answers, strict=True)]

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
