"""Many texts through a model, those of like length together."""

import logging
import time

import numpy as np
from tqdm import tqdm

from stages.lib.core.errors import UserError
from stages.lib.evaluation.engines.language_model import LanguageModel


def batches(rows: list[int], tokens: list[int], most_rows: int, most_tokens: int) -> list[list[int]]:
    """Numbers of the texts by batch, the longest first, as many as fit.

    Text i takes `rows[i]` rows and `tokens[i]` tokens, padding not counted: a batch is as wide as its longest text.
    One that exceeds what fits is alone.
    """

    def fits(batch: list[int]) -> bool:
        width = tokens[batch[0]]  # of its longest text, to which the others are padded
        return len(batch) * width <= most_tokens and sum(rows[i] for i in batch) <= most_rows

    made: list[list[int]] = []
    for i in sorted(range(len(tokens)), key=lambda i: (-tokens[i], i)):
        if made and fits([*made[-1], i]):
            made[-1].append(i)
        else:
            made.append([i])
    return made


def answer_logprobs(
    model: LanguageModel, prompts: list[list[int]], answers: list[list[list[int]]], what: str
) -> list[list[np.ndarray]]:
    """Log-probabilities (nats) of the tokens of each answer after its prompt, in the given order.

    Raises UserError where one is NaN or infinite.
    """
    sizes = [len(ids) + sum(map(len, own)) for ids, own in zip(prompts, answers, strict=True)]
    scored: list[list[np.ndarray]] = [[] for _ in prompts]
    begin = time.perf_counter()
    with tqdm(total=len(prompts), desc=what) as bar:
        for batch in batches([len(own) for own in answers], sizes, model.rows, model.tokens):
            logprobs = model.answer_logprobs([prompts[i] for i in batch], [answers[i] for i in batch])
            for i, arrays in zip(batch, logprobs, strict=True):
                scored[i] = arrays
            bar.update(len(batch))
    _log_rates(what, len(prompts), sum(sizes), "tokens read", begin)
    broken = sum(not all(np.isfinite(array).all() for array in arrays) for arrays in scored)
    if broken:
        raise UserError(
            f"{model.path}: {what}: the log-probabilities of {broken} of {len(prompts)} texts are NaN or infinite, "
            "expected finite ones; build the model anew with `dvc repro`"
        )
    return scored


def greedy(
    model: LanguageModel, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int], what: str
) -> list[list[int]]:
    """Ids of the greedy answer to each prompt, in the given order, without the stop token that ended it."""
    sizes = [len(ids) + max_new_tokens for ids in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    begin = time.perf_counter()
    with tqdm(total=len(prompts), desc=what) as bar:
        for batch in batches([1] * len(prompts), sizes, model.rows, model.tokens):
            for number, token in model.generate([prompts[i] for i in batch], max_new_tokens, stop_ids):
                answers[batch[number]].append(token)
            bar.update(len(batch))
    _log_rates(what, len(prompts), sum(map(len, answers)), "tokens generated", begin)
    return answers


def _log_rates(what: str, texts: int, tokens: int, kind: str, begin: float) -> None:
    seconds = time.perf_counter() - begin
    rates = f"{texts / seconds:.1f} texts/s, {tokens / seconds:.0f} {kind}/s"
    logging.info("%s: %d texts in %.1f s, %s", what, texts, seconds, rates)
