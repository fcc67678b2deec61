"""Many texts through a model, those of like length together."""

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from stages.lib.core.errors import UserError
from stages.lib.evaluation.engines.language_model import LanguageModel
from stages.lib.evaluation.engines.reply import Reply
from stages.lib.evaluation.engines.text import Text


def batches(texts: list[Text], fits: Callable[[list[Text]], bool]) -> list[list[int]]:
    """Numbers of the texts by batch, the longest first, as many as `fits` says; one that does not fit is alone."""
    made: list[list[int]] = []
    for i in sorted(range(len(texts)), key=lambda i: (-texts[i].tokens, i)):
        if made and fits([texts[j] for j in (*made[-1], i)]):
            made[-1].append(i)
        else:
            made.append([i])
    return made


def ask(
    model: LanguageModel,
    prompts: list[list[int]],
    answers: list[list[list[int]]],
    max_new_tokens: int,
    stop_ids: set[int],
    what: str,
) -> list[Reply]:
    """The reply to each prompt, in the given order: its answers' log-probabilities, and the greedy answer.

    The greedy answer ends before a stop token, or at `max_new_tokens`. Raises UserError where a log-probability is NaN
    or infinite, or a GPU's memory is too small.
    """
    texts = [
        Text(len(ids), [len(answer) for answer in own], max_new_tokens)
        for ids, own in zip(prompts, answers, strict=True)
    ]
    replies: list[Reply] = [Reply([], []) for _ in prompts]
    begin = time.perf_counter()
    with tqdm(total=len(prompts), desc=what) as bar:
        for batch in batches(texts, model.fits):
            given = [answers[i] for i in batch]
            try:
                replied = model.ask([prompts[i] for i in batch], given, max_new_tokens, stop_ids)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"{model.path}: {what}: the GPU has no memory left for {len(batch)} texts together "
                    f"({str(error).partition('. ')[0]}); free some, or lower evaluate.predict.batch_tokens where "
                    "predict says so"
                ) from error
            for i, reply in zip(batch, replied, strict=True):
                replies[i] = reply
            bar.update(len(batch))
    read = sum(text.tokens - text.generated for text in texts)
    _log_rates(what, len(prompts), read, sum(len(reply.greedy) for reply in replies), begin)
    broken = sum(not all(np.isfinite(array).all() for array in reply.logprobs) for reply in replies)
    if broken:
        raise UserError(
            f"{model.path}: {what}: the log-probabilities of {broken} of {len(prompts)} texts are NaN or infinite, "
            "expected finite ones; build the model anew with `dvc repro`"
        )
    return replies


def answer_logprobs(
    model: LanguageModel, prompts: list[list[int]], answers: list[list[list[int]]], what: str
) -> list[list[np.ndarray]]:
    """Log-probabilities (nats) of the tokens of each answer after its prompt, in the given order; raises as `ask`."""
    return [reply.logprobs for reply in ask(model, prompts, answers, 0, set(), what)]


def greedy(
    model: LanguageModel, prompts: list[list[int]], max_new_tokens: int, stop_ids: set[int], what: str
) -> list[list[int]]:
    """Ids of the greedy answer to each prompt, in the given order, without the stop token that ended it."""
    replies = ask(model, prompts, [[] for _ in prompts], max_new_tokens, stop_ids, what)
    return [reply.greedy for reply in replies]


def _log_rates(what: str, texts: int, read: int, generated: int, begin: float) -> None:
    seconds = time.perf_counter() - begin
    rates = f"{texts / seconds:.1f} texts/s, {(read + generated) / seconds:.0f} tokens/s"
    logging.info(
        "%s: %d texts in %.1f s, %d tokens read, %d generated, %s", what, texts, seconds, read, generated, rates
    )
