"""Put short documents side by side into rows of one length."""

import bisect

import numpy as np

from stages.lib.chat import IGNORED


def pack(
    examples: list[tuple[np.ndarray, np.ndarray]], max_length: int, pad: int
) -> tuple[dict[str, np.ndarray], list[list[int]]]:
    """Best-fit decreasing packing of (input_ids, labels) into rows of exactly `max_length` tokens.

    Returns input_ids, labels and position_ids, each int32 of shape (rows, max_length), with `tokens`, how
    many of a row are not padding; and the examples that each row holds. position_ids restart at 0 with each
    document, and once more with the padding at the end: that is what keeps documents from attending to each
    other. The first label of a document is IGNORED, since the token before it belongs to
    another one. No document is cut; each must fit. Rows stand in the order of their first document, so the
    order of the data survives.
    """
    by_length = sorted(range(len(examples)), key=lambda i: (-len(examples[i][0]), i))
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (free tokens, row), sorted: the tightest fit is found by bisection
    for i in by_length:
        length = len(examples[i][0])
        at = bisect.bisect_left(open_rows, (length, -1))
        if at == len(open_rows):
            rows.append([i])
            free, row = max_length, len(rows) - 1
        else:
            free, row = open_rows.pop(at)
            rows[row].append(i)
        bisect.insort(open_rows, (free - length, row))
    rows = [sorted(members) for members in sorted(rows, key=min)]
    return _filled(rows, examples, max_length, pad), rows


def _filled(rows: list[list[int]], examples: list, max_length: int, pad: int) -> dict[str, np.ndarray]:
    shape = (len(rows), max_length)
    input_ids, labels = np.full(shape, pad, np.int32), np.full(shape, IGNORED, np.int32)
    position_ids, tokens = np.zeros(shape, np.int32), np.zeros(len(rows), np.int32)
    for row, members in enumerate(rows):
        at = 0
        for ids, targets in (examples[i] for i in members):
            end = at + len(ids)
            input_ids[row, at:end] = ids
            labels[row, at + 1 : end] = targets[1:]
            position_ids[row, at:end] = np.arange(len(ids))
            at = end
        position_ids[row, at:] = np.arange(max_length - at)
        tokens[row] = at
    return {"input_ids": input_ids, "labels": labels, "position_ids": position_ids, "tokens": tokens}
