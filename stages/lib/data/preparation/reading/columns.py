"""Which of a row's columns holds which field, by the names that people give them."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

Aliases = tuple[tuple[str, tuple[str, ...]], ...]  # our field, the names, as `plain` writes them, that it is read from
Mapped = tuple[tuple[str, str], ...]  # our field, the file's own name for it

DIALOGUE: Aliases = (
    ("messages", ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")),
    ("instruction", ("instruction",)),
    ("input", ("input", "question", "prompt", "query", "patient", "user", "human")),
    ("output", ("output", "answer", "response", "completion", "doctor", "assistant", "reply")),
    ("system", ("system", "system_prompt")),
    ("history", ("history",)),
    ("context", ("context",)),
)
MESSAGE: Aliases = (("role", ("role", "from", "speaker")), ("content", ("content", "value", "text")))
QUESTION: Aliases = (
    ("question", ("question", "question_stem", "stem", "query", "input", "sent1")),
    ("rest", ("sent2",)),
    ("context", ("context", "contexts", "abstract")),
    ("options", ("options", "choices")),
    (
        "answer_idx",
        ("answer_idx", "answer_index", "answer_letter", "answer_key", "answerkey", "correct_option", "cop", "label"),
    ),
    ("answer", ("answer", "correct_answer", "answer_text", "final_decision")),
    ("meta_info", ("meta_info",)),
)
# Columns of one option each: opa, option_b, A; option1, ending0.
LETTERED_OPTION = re.compile("(op|option_?|choice_?|)([a-e])")
NUMBERED_OPTION = re.compile("(op|option_?|choice_?|ending_?)([0-9])")
KNOWN = {name for aliases in (DIALOGUE, QUESTION) for _, names in aliases for name in names}


class Layout(NamedTuple):
    """Where a row's fields are."""

    of: dict[str, str]  # our field -> the row's key
    unread: tuple[str, ...]  # keys that hold something and that no field is read from


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """A column's name in small letters with `_` between its words, so that "Correct Option" is "correct_option"."""
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()


def filled(row: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys that hold something, and those of blank texts; null, NaN and empty lists are nothing."""
    full: list[str] = []
    blank: list[str] = []
    for key, value in row.items():
        if isinstance(value, str):
            (full if value and not value.isspace() else blank).append(key)
        elif not is_missing(value):
            full.append(key)
    return tuple(full), tuple(blank)


@lru_cache(maxsize=4096)
def holds_options(keys: tuple[str, ...]) -> bool:
    """Whether these are columns of an exam question's options."""
    names = {plain(key) for key in keys}
    lettered = sum(1 for name in names if LETTERED_OPTION.fullmatch(name))
    return lettered > 2 or not names.isdisjoint(("options", "choices", "final_decision", "ending0"))


def unpacked(value: object) -> object:
    """The list or object that a text spells in JSON, as a CSV file has them; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def is_missing(value: object) -> bool:
    """Whether a value stands for none: null, the NaN that pandas writes for it, an empty list or object."""
    return value is None or (isinstance(value, float) and value != value) or value == [] or value == {}


@lru_cache(maxsize=4096)
def layout(keys: tuple[str, ...], blank: tuple[str, ...], aliases: Aliases, mapped: Mapped) -> Layout:
    """The fields of a row with these keys; a blank one counts only where no other holds the field.

    A mapped field is read from that column alone. Raises ValueError where two columns could be the same field.
    """
    own = dict(mapped)
    of: dict[str, str] = {}
    for field, name in own.items():
        matching = [key for key in (*keys, *blank) if key == name] or _named(plain(name), (*keys, *blank))
        if matching:
            of[field] = matching[0]
    for field, names in aliases:
        if field in own:
            continue
        for these in (keys, blank):
            matching = [key for name in names for key in _named(name, these) if key not in of.values()]
            if len(matching) > 1:
                listed = " and ".join(f"`{key}`" for key in matching)
                raise ValueError(f"{listed} may each be the {field}; choose one: columns={{{field}: {matching[0]}}}")
            if matching:
                of[field] = matching[0]
                break
    return Layout(of, tuple(key for key in keys if key not in of.values()))


def _named(name: str, keys: tuple[str, ...]) -> list[str]:
    return [key for key in keys if plain(key) == name]
