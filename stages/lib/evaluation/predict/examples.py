"""What every evaluated model is asked: the same prompts and answers, as the same token ids."""

import logging
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from stages.lib import chat
from stages.lib.errors import UserError
from stages.lib.files import read_json
from stages.lib.gguf_model import GgufModel
from stages.lib.medqa import LETTERS, answer_text
from stages.lib.models import load_tokenizer
from stages.lib.transformers_model import TransformersModel


class LanguageModel(Protocol):
    """Token ids in, natural log-probabilities and greedy ids out; a batch of texts has at most `rows` and `tokens`."""

    path: Path
    rows: int
    tokens: int

    def answer_logprobs(self, prompts: list[list[int]], answers: list[list[list[int]]]) -> list[list[np.ndarray]]: ...
    def generate(
        self, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int]
    ) -> Iterator[tuple[int, int]]: ...


def open_model(path: Path, base: Path, context: int, rows: int = 1) -> LanguageModel:
    """The model of a GGUF file (llama.cpp), of a folder, or of an adapter's folder and the base (transformers).

    transformers uses a GPU where torch finds one. Raises UserError for a model of another vocabulary than the base's.
    """
    adapted = (path / "adapter_config.json").is_file()
    if path.suffix == ".gguf":
        model = GgufModel(path, context, rows=rows)
        words = model.words()
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = TransformersModel(base, path, device) if adapted else TransformersModel(path, device=device)
        words = _words(path if (path / "tokenizer.json").is_file() else base)
    expected = zip_longest(words, _words(base))
    other = next((i for i, (one, two) in enumerate(expected) if one != two and two is not None), None)
    if other is not None:
        raise UserError(
            f"{path}: of {len(words)} tokens, number {other} is not {base}'s: it cannot be asked the same token ids; "
            "build it from that base with `dvc repro`"
        )
    return model


def _words(folder: Path) -> list[str]:
    tokenizer = load_tokenizer(folder)
    return tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))


def stop_ids_of(folder: Path) -> set[int]:
    """The ids that end an answer, as the model's generation config lists them."""
    listed = read_json(folder / "generation_config.json")["eos_token_id"]
    return set(listed if isinstance(listed, list) else [listed])


def answer_examples(tokenizer: PreTrainedTokenizerBase, dialogues: list[dict], max_length: int) -> list[dict]:
    """Prompt ids and reference answer of each dialogue; those over `max_length` tokens are counted and left out.

    Raises UserError where none is left.
    """
    examples = []
    for row in dialogues:
        *context, answer = row["messages"]
        prompt = chat.prompt_ids(tokenizer, context)
        answer_ids = chat.content_ids(tokenizer, answer["content"])
        examples.append(row | {"prompt_ids": prompt, "answer_ids": answer_ids, "reference": answer["content"]})
    fitting = [e for e in examples if len(e["prompt_ids"]) + len(e["answer_ids"]) < max_length]
    logging.info(
        "%d test dialogues, %d of them too long for %d tokens", len(examples), len(examples) - len(fitting), max_length
    )
    if not fitting:
        raise UserError(
            f"data/prepared/test.jsonl: no dialogue fits {max_length} tokens; raise evaluate.measure.context"
        )
    return fitting


def question_examples(tokenizer: PreTrainedTokenizerBase, questions: list[dict], context: int) -> list[dict]:
    """Prompt ids of each question and the ids of its four answers as they are trained, end token included.

    Raises UserError where there is no question, or one exceeds the context.
    """
    if not questions:
        raise UserError("data/prepared/medqa_test.jsonl: no question there; give a test set with questions")
    examples = []
    for row in questions:
        prompt = chat.prompt_ids(tokenizer, row["messages"])
        texts = [answer_text(letter, row["options"]) for letter in LETTERS]
        answers = [[*chat.content_ids(tokenizer, text), tokenizer.eos_token_id] for text in texts]
        length = len(prompt) + sum(map(len, answers))  # in llama.cpp they lie beside each other
        if length > context:
            raise UserError(
                f"data/prepared/medqa_test.jsonl: question {row['id']} has {length} tokens, "
                f"more than evaluate.measure.context={context}; raise it"
            )
        examples.append(row | {"prompt_ids": prompt, "answers_ids": answers})
    return examples
