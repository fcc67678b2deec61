"""Packing: short documents side by side in sequences of one length."""

import bisect

import numpy as np

from stages.lib.model.chat import IGNORED


def pack(
    examples: list[tuple[np.ndarray, np.ndarray]], max_length: int, pad: int
) -> tuple[dict[str, np.ndarray], list[list[int]]]:
    """Best-fit decreasing packing of (input_ids, labels) into sequences of exactly `max_length` tokens.

    Returns input_ids, labels and position_ids, each int32 of shape (sequences, max_length), with `tokens`, how
    many of a sequence are not padding; and the examples that each sequence holds. position_ids restart at 0 with each
    document, and once more with the padding at the end: that is what keeps documents from attending to each
    other. The first label of a document is IGNORED, since the token before it belongs to
    another one. No document is cut; each must fit. Sequences stand in the order of their first document, so the
    order of the data survives.
    """
    by_length = sorted(range(len(examples)), key=lambda i: (-len(examples[i][0]), i))
    sequences: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, sequence), sorted: the tightest fit is found by bisection
    for i in by_length:
        length = len(examples[i][0])
        tightest = bisect.bisect_left(room, (length, -1))
        if tightest == len(room):
            free = max_length
            sequence = len(sequences)
            sequences.append([i])
        else:
            free, sequence = room.pop(tightest)
            sequences[sequence].append(i)
        bisect.insort(room, (free - length, sequence))
    members = [sorted(examples_of) for examples_of in sorted(sequences, key=min)]
    return _filled(members, examples, max_length, pad), members


def _filled(
    members: list[list[int]], examples: list[tuple[np.ndarray, np.ndarray]], max_length: int, pad: int
) -> dict[str, np.ndarray]:
    """The columns of the sequences that hold these examples, padded."""
    shape = (len(members), max_length)
    input_ids = np.full(shape, pad, np.int32)
    labels = np.full(shape, IGNORED, np.int32)
    position_ids = np.zeros(shape, np.int32)
    tokens = np.zeros(len(members), np.int32)
    for sequence, documents in enumerate(members):
        start = 0
        for ids, targets in (examples[i] for i in documents):
            end = start + len(ids)
            input_ids[sequence, start:end] = ids
            labels[sequence, start + 1 : end] = targets[1:]
            position_ids[sequence, start:end] = np.arange(len(ids))
            start = end
        position_ids[sequence, start:] = np.arange(max_length - start)
        tokens[sequence] = start
    return {"input_ids": input_ids, "labels": labels, "position_ids": position_ids, "tokens": tokens}
