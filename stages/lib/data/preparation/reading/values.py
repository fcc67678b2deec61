"""Values of a row as they are meant: nothing, or a list that a CSV file can only spell."""

import ast
import json
import re
from typing import TypeGuard

SPELLED = re.compile(r"\s*[\[{]\s*['\"\[{]")  # how a list or object of texts begins, in JSON as in Python


def is_missing(value: object) -> bool:
    """Whether a value stands for none: null, the NaN that pandas writes for it, an empty list or object."""
    return value is None or (isinstance(value, float) and value != value) or value == [] or value == {}


def unpacked(value: object, name: str) -> object:
    """The list or object that a text spells in JSON or, as pandas writes it, in Python; any other value as it is.

    Raises ValueError where it begins as such a text and cannot be read, as those with numpy's arrays.
    """
    if not isinstance(value, str) or not SPELLED.match(value):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise ValueError(f"`{name}` spells a list or object that is no JSON; write the file as JSON lines or Parquet")


def is_chat(value: object) -> TypeGuard[list[dict]]:
    """Whether a value is a list of objects, as messages are."""
    return isinstance(value, list) and bool(value) and all(isinstance(message, dict) for message in value)
