"""What a test set has twice: questions, with the same answer or with different ones, and options of one question."""

import logging
from collections.abc import Sequence

SHOWN = 5  # records that a warning names


def repetitions(rows: Sequence[dict]) -> dict[str, int]:
    """Count what stands twice among the test questions, and warn of it with the records' numbers; nothing is dropped.

    `rows` have id, source, row, options and answer_idx; those of one id have the same words of question and options.
    `repeated` and `contradictory` (those of the repeated whose right answers differ) count distinct questions,
    `same_option_twice` rows.
    """
    same: dict[str, list[dict]] = {}
    for row in rows:
        same.setdefault(row["id"], []).append(row)
    repeated = [group for group in same.values() if len(group) > 1]
    contradictory = [group for group in repeated if len({row["answer_idx"] for row in group}) > 1]
    ambiguous = [[row] for row in rows if _has_an_option_twice(row)]
    for what, groups in (
        ("that stand more than once, each one question to an interval", repeated),
        ("that stand more than once with different right answers", contradictory),
        ("with two options of the same text", ambiguous),
    ):
        if groups:
            shown = ", ".join(_records(group) for group in groups[:SHOWN]) + ", …" * (len(groups) > SHOWN)
            logging.warning("test questions %s: %d (%s)", what, len(groups), shown)
    return {
        "distinct": len(same),
        "repeated": len(repeated),
        "contradictory": len(contradictory),
        "same_option_twice": len(ambiguous),
    }


def _has_an_option_twice(row: dict) -> bool:
    texts = {" ".join(text.casefold().split()) for text in row["options"].values()}
    return len(texts) < len(row["options"])


def _records(group: list[dict]) -> str:
    """Where the rows of a group stand, e.g. "medqa_test 1 and 21"."""
    return f"{group[0]['source']} {' and '.join(str(row['row']) for row in group)}"
