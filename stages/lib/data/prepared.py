"""The dialogues of a split, in an order that does not depend on how they were written."""

from pathlib import Path

from stages.lib.core.files import read_jsonl


def sorted_dialogues(path: Path) -> list[dict]:
    """The rows of data/prepared/SPLIT.jsonl, sorted by their ids."""
    return sorted((row for _, row in read_jsonl(path)), key=lambda row: row["id"])
