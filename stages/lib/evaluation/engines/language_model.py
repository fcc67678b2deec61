"""A model as evaluation sees it, whatever runs it."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from stages.lib.core.errors import UserError
from stages.lib.evaluation.engines.gguf_model import GgufModel
from stages.lib.evaluation.engines.reply import Reply
from stages.lib.evaluation.engines.text import BATCH_TOKENS, Text
from stages.lib.evaluation.engines.transformers_model import TransformersModel
from stages.lib.model.device import device
from stages.lib.model.loading import load_tokenizer


class LanguageModel(Protocol):
    """Token ids in, natural log-probabilities, logits and greedy ids out."""

    path: Path

    def fits(self, texts: list[Text]) -> bool:
        """Whether these texts can be asked together."""
        ...

    def close(self) -> None:
        """Give its memory back."""
        ...

    def ask(
        self, prompts: list[list[int]], answers: list[list[list[int]]], max_new_tokens: int, stop_ids: set[int]
    ) -> list[Reply]:
        """The log-probabilities of each prompt's answers, and its greedy answer, cut at `max_new_tokens`; 0: none."""
        ...

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits after each of the tokens, float32, shape (tokens, vocabulary)."""
        ...

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int]) -> Iterator[tuple[int, int]]:
        """Greedy continuations of one batch of prompts, as they are decoded: (number of the prompt, id)."""
        ...


def open_model(path: Path, base: Path, context: int, rows: int = 1, tokens: int = BATCH_TOKENS) -> LanguageModel:
    """The model of a GGUF file (llama.cpp), of a folder, or of an adapter's folder and the base (transformers).

    `tokens` are those of a batch. `context` and `rows` are those of a GGUF: transformers needs neither, and takes a
    GPU where there is one, in float16. Raises UserError for a model of another vocabulary than the base's, and where
    the memory is too small.
    """
    if path.suffix == ".gguf":
        gguf_model = GgufModel(path, context, rows, tokens)
        _require_vocabulary_of(base, gguf_model.vocabulary(), path)
        return gguf_model
    where = device()
    dtype = torch.float16 if where == "cuda" else torch.float32
    adapted = (path / "adapter_config.json").is_file()
    folder, adapter = (base, path) if adapted else (path, None)
    model = TransformersModel(folder, adapter, where, dtype, tokens)
    _require_vocabulary_of(base, _vocabulary(path if (path / "tokenizer.json").is_file() else base), path)
    return model


def _require_vocabulary_of(base: Path, vocabulary: list[str], path: Path) -> None:
    """Raise UserError unless a model's tokens begin with the base's; rows that pad its matrices may follow."""
    pairs = zip_longest(vocabulary, _vocabulary(base))
    other = next((i for i, (own, bases) in enumerate(pairs) if own != bases and bases is not None), None)
    if other is not None:
        raise UserError(
            f"{path}: of {len(vocabulary)} tokens, number {other} is not {base}'s: "
            "it cannot be asked the same token ids; build it from that base with `dvc repro`"
        )


def _vocabulary(folder: Path) -> list[str]:
    tokenizer = load_tokenizer(folder)
    return list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
