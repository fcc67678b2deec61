"""What stands in place of a row that can be told apart but not be read."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """A row, or a value within one, that cannot be read."""

    reason: str


def keyed(pairs: Iterable[tuple[str, object]]) -> dict | Defect:
    """A dict, or a defect where a key stands twice: a dict would keep the last and silently drop the others."""
    pairs = list(pairs)
    row = dict(pairs)
    return row if len(row) == len(pairs) else Defect("a key stands twice, expected each once")


def first_defect(row: object) -> Defect | None:
    """The first defect of a row at any depth; a loop, for a row nested as deeply as JSON is read."""
    if not isinstance(row, dict | Defect):
        return Defect(f"the record is {type(row).__name__}, expected an object")
    if isinstance(row, dict) and all(type(value) is str for value in row.values()):  # most are, so it is quick
        return None
    todo = [row]
    while todo:
        value = todo.pop()
        if isinstance(value, Defect):
            return value
        if isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
    return None


def readable(row: dict | Defect) -> dict:
    """The row; raises ValueError with the reason where it is a defect."""
    if isinstance(row, Defect):
        raise ValueError(row.reason)
    return row
