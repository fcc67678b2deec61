"""Many texts through a model, those of like length together."""

import logging
import time

import numpy as np
from tqdm import tqdm

from stages.lib.errors import UserError


def batches(rows: list[int], tokens: list[int], most_rows: int, most_tokens: int) -> list[list[int]]:
    """Numbers of the texts by batch, the longest first, as many as fit.

    Text i takes `rows[i]` rows and `tokens[i]` tokens, padding not counted: a batch is as wide as its longest text.
    One that exceeds what fits is alone.
    """
    order = sorted(range(len(tokens)), key=lambda i: (-tokens[i], i))
    made, width, used = [], 0, 0
    for i in order:
        full = used + rows[i] > most_rows or (len(made[-1]) + 1) * width > most_tokens if made else True
        if full:
            made.append([])
            width, used = tokens[i], 0
        made[-1].append(i)
        used += rows[i]
    return made


def answer_logprobs(
    model, prompts: list[list[int]], answers: list[list[list[int]]], what: str
) -> list[list[np.ndarray]]:
    """Log-probabilities (nats) of the tokens of each answer after its prompt, in the given order.

    Raises UserError where one is no number.
    """
    sizes = [len(ids) + sum(map(len, some)) for ids, some in zip(prompts, answers, strict=True)]
    scored: list[list[np.ndarray]] = [[] for _ in prompts]
    begin = time.perf_counter()
    with tqdm(total=len(prompts), desc=what) as bar:
        for some in batches([len(each) for each in answers], sizes, model.rows, model.tokens):
            found = model.answer_logprobs([prompts[i] for i in some], [answers[i] for i in some])
            for i, arrays in zip(some, found, strict=True):
                scored[i] = arrays
            bar.update(len(some))
    _say(what, len(prompts), sum(sizes), "tokens read", begin)
    broken = sum(not all(np.isfinite(each).all() for each in arrays) for arrays in scored)
    if broken:
        raise UserError(
            f"{model.path}: {what}: the log-probabilities of {broken} of {len(prompts)} texts are NaN or infinite, "
            "expected finite ones; build the model anew with `dvc repro`"
        )
    return scored


def greedy(model, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int], what: str) -> list[list[int]]:
    """Ids of the greedy answer to each prompt, in the given order, without the stop token that ended it."""
    sizes = [len(ids) + max_new_tokens for ids in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    begin = time.perf_counter()
    with tqdm(total=len(prompts), desc=what) as bar:
        for some in batches([1] * len(prompts), sizes, model.rows, model.tokens):
            for number, token in model.generate([prompts[i] for i in some], max_new_tokens, stop_ids):
                answers[some[number]].append(token)
            bar.update(len(some))
    _say(what, len(prompts), sum(map(len, answers)), "tokens written", begin)
    return answers


def _say(what: str, texts: int, tokens: int, kind: str, begin: float) -> None:
    seconds = time.perf_counter() - begin
    rates = f"{texts / seconds:.1f} texts/s, {tokens / seconds:.0f} {kind}/s"
    logging.info("%s: %d texts in %.1f s, %s", what, texts, seconds, rates)
