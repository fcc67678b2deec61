"""What happened to the data, in numbers: metrics/data.json."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from stages.lib.data.preparation.intake import NAMES
from stages.lib.data.preparation.reading.records import Seen


def statistics(
    rows: list[dict],
    sources: list[dict],
    seen: dict[str, Seen],
    steps: dict[str, dict[int, dict]],
    splits: dict[str, list[int]],
) -> dict:
    """How each source was read, its counts in and out of each step, changes and splits; lengths in words.

    `duplicate_rate` is the share of duplicates among the rows that came to the search for them.
    """
    indices: dict[str, list[int]] = {source["name"]: [] for source in sources}
    for i, row in enumerate(rows):
        indices[row["source"]].append(i)
    by_source = {
        source["name"]: {
            "records": source["records"],
            "shapes": dict(seen[source["name"]].shapes.most_common()),
            "unread": dict(seen[source["name"]].unread.most_common(NAMES)),
            "unread_in_messages": dict(seen[source["name"]].unread_in_messages.most_common(NAMES)),
            **_funnel(indices[source["name"]], steps),
            "splits": _splits(indices[source["name"]], splits),
            "changed": _changes(rows[i]["changes"] for i in indices[source["name"]]),
        }
        for source in sources
    }
    searched = sum(s["steps"]["exact_duplicates"]["in"] for s in by_source.values() if s["records"] != "test_questions")
    duplicates = len(steps["exact_duplicates"]) + len(steps["near_duplicates"])
    reasons = Counter(drop["reason"] for drops in steps.values() for drop in drops.values())
    return {
        "read": len(rows),
        "kept": sum(map(len, splits.values())),
        "duplicate_rate": round(duplicates / searched, 6) if searched else 0.0,
        "contaminated": len(steps["decontaminate"]),
        "dropped": dict(sorted(reasons.items())),
        "sources": by_source,
        "splits": {name: _lengths([rows[i] for i in kept]) for name, kept in splits.items()},
    }


def lengths_of(rows: list[dict], role: str) -> np.ndarray:
    """Words of each message of a role."""
    both = (zip(row["messages"], row["lengths"], strict=True) for row in rows)
    return np.array([length for row in both for message, length in row if message["role"] == role], int)


def _funnel(indices: list[int], steps: dict[str, dict[int, dict]]) -> dict:
    left = len(indices)
    counts = {}
    for step, drops in steps.items():
        reasons = Counter(drops[i]["reason"] for i in indices if i in drops)
        counts[step] = {"in": left, **dict(sorted(reasons.items())), "out": left - reasons.total()}
        left -= reasons.total()
    return {"read": len(indices), "kept": left, "steps": counts}


def _changes(each: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for changes in each:
        total.update(changes)
    return dict(sorted(total.items()))


def _splits(indices: list[int], splits: dict[str, list[int]]) -> dict[str, int]:
    mine = set(indices)
    return {name: sum(i in mine for i in kept) for name, kept in splits.items()}


def _lengths(rows: list[dict]) -> dict:
    lengths: dict[str, object] = {"rows": len(rows)}
    for role, name in (("user", "question"), ("assistant", "answer")):
        words = lengths_of(rows, role)
        lengths[f"{name}_words"] = int(words.sum())
        if len(words):
            low, median, high = np.percentile(words, (5, 50, 95))
            measured = {"p5": low, "median": median, "p95": high, "max": words.max()}
            lengths[f"{name}_length"] = {key: float(value) for key, value in measured.items()}
    return lengths
