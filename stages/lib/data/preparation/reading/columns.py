"""Which of a row's columns holds which field, by the names that people give them."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from stages.lib.data.preparation.reading.values import is_missing

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
TEXTS = {"instruction", "input", "output", "role", "content", "question"}  # fields that a blank text may be
# Columns that change what is said or trained, in ways that are not read here.
REFUSED = re.compile(r"(tool|function|image|audio|video)s?|(.*_)?(masks?|masked|train|trained|trainable|loss_weight)")
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
def require_text_only(unread: tuple[str, ...]) -> None:
    """Raise ValueError where a row has columns without which it must not be trained."""
    if refused := [key for key in unread if REFUSED.fullmatch(plain(key))]:
        raise ValueError(f"the row has `{refused[0]}`, which is not read; take that column out, or the row")


@lru_cache(maxsize=4096)
def holds_options(keys: tuple[str, ...]) -> bool:
    """Whether these are columns of an exam question's options."""
    names = {plain(key) for key in keys}
    lettered, numbered = (sum(map(bool, map(one.fullmatch, names))) for one in (LETTERED_OPTION, NUMBERED_OPTION))
    return lettered > 2 or numbered > 1 or not names.isdisjoint(("options", "choices", "final_decision"))


@lru_cache(maxsize=4096)
def layout(keys: tuple[str, ...], blank: tuple[str, ...], aliases: Aliases, mapped: Mapped) -> Layout:
    """The fields of a row with these keys; a blank text counts only where no other holds the field.

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
        for these in (keys, blank if field in TEXTS else ()):
            matching = [key for name in names for key in _named(name, these) if key not in of.values()]
            if field == "input" and "instruction" in of and matching:  # beside a prompt that may hold the whole
                matching += [key for key in _named("input", blank) if key not in matching]
            if len(matching) > 1:
                raise ValueError(_either(field, matching, aliases))
            if matching:
                of[field] = matching[0]
                break
    return Layout(of, tuple(key for key in keys if key not in of.values()))


def _either(field: str, keys: list[str], aliases: Aliases) -> str:
    """That a field may be in either column, and how to say which."""
    listed = " and ".join(f"`{key}`" for key in keys)
    if aliases is MESSAGE:
        return f"{listed} of a message may each be its {field}, expected one of them"
    name = keys[0] if re.fullmatch(r"\w+", keys[0], re.ASCII) else f'"{keys[0]}"'
    return f"{listed} may each be the {field}; choose one: columns={{{field}: {name}}}"


def _named(name: str, keys: tuple[str, ...]) -> list[str]:
    return [key for key in keys if plain(key) == name]
