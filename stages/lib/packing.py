"""Put short documents side by side into rows of one length."""

import bisect

from stages.lib.chat import IGNORED


def pack(examples: list[tuple[list[int], list[int]]], max_length: int, pad: int) -> list[dict[str, list[int]]]:
    """Best-fit decreasing packing of (input_ids, labels) into rows of exactly `max_length` tokens.

    Each row has input_ids, labels and position_ids. position_ids restart at 0 with each document, and once
    more with the padding at the end: that is what keeps documents from attending to each other. The first
    label of a document is IGNORED, since the token before it belongs to another one. No document is cut;
    each must fit. Rows stand in the order of their first document, so the order of the data survives.
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
    return [_row([examples[i] for i in sorted(members)], max_length, pad) for members in sorted(rows, key=min)]


def _row(examples: list[tuple[list[int], list[int]]], max_length: int, pad: int) -> dict[str, list[int]]:
    row = {"input_ids": [], "labels": [], "position_ids": []}
    for input_ids, labels in examples:
        row["input_ids"] += input_ids
        row["labels"] += [IGNORED, *labels[1:]]
        row["position_ids"] += range(len(input_ids))
    padding = max_length - len(row["input_ids"])
    row["input_ids"] += [pad] * padding
    row["labels"] += [IGNORED] * padding
    row["position_ids"] += range(padding)
    return row
