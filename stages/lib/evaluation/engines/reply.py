"""What a model makes of a prompt, and how far its greedy answer is known from the answers that it was to score."""

from typing import NamedTuple

import numpy as np


class Reply(NamedTuple):
    """The log-probabilities (nats) of each given answer's tokens, float64, and the ids of the greedy answer."""

    logprobs: list[np.ndarray]
    greedy: list[int]


class Known(NamedTuple):
    """A greedy answer as far as it is that of a given answer, which was read already."""

    answer: int  # number of the given answer that it follows
    ids: list[int]  # as many of that one's first ids as it says
    token: int  # what it says next


def follow(token: int, answers: list[list[int]], likeliest: list[list[int]], stop_ids: set[int]) -> Known:
    """Follow a greedy answer, which begins with `token`, along the given answer that it says.

    `likeliest[a][k]` is the likeliest token after the first k + 1 ids of answer a, so that nothing need be read again:
    a model that was trained on an exam's answers says one of the options word by word.
    """
    chosen = next((number for number, answer in enumerate(answers) if answer[0] == token), 0)
    ids: list[int] = []
    for given, after in zip(answers[chosen], likeliest[chosen], strict=False):
        if token != given or token in stop_ids:
            break
        ids.append(token)
        token = after
    return Known(chosen, ids, token)
