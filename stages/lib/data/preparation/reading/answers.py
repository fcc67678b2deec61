"""Which option of an exam question is the right one: by its letter, its text or its number."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stages.lib.data.medqa import OPTION_LETTERS
from stages.lib.data.preparation.reading.options import Options
from stages.lib.data.preparation.reading.records import SHOWN, Seen
from stages.lib.data.preparation.reading.values import unpacked

LETTER = re.compile(r"(?:option\s+)?[(\[]?([A-E])[)\].:]{0,2}", re.IGNORECASE)
LETTER_AND_TEXT = re.compile(r"[(\[]?([A-E])[)\].:]{1,2}\s+(.+)", re.DOTALL | re.IGNORECASE)
NUMBER = re.compile(r"(-?\d{1,3})(\.0+)?")


@dataclass(frozen=True)
class Reading:
    """What the value of an answer's column may say."""

    letters: frozenset[str]  # options by letter or text
    number: int | None  # of the option, from 0 or 1
    shown: str


def readings(value: object, key: str, options: Options, seen: Seen, by_position: bool) -> Reading:
    """Every way to read a value as one of the options; raises ValueError where it is no text or number.

    A number is a position; only a text of digits may also be an option's text. With `by_position` the column is known
    to hold letters or numbers, so that a text is tried last.
    """
    value = unpacked(value, key)
    if isinstance(value, list) and len(value) == 1:  # as bigbio's files have it
        value = value[0]
    text = seen.text(value, key, may_be_number=True)
    if text is None:
        raise ValueError(f"`{key}` is missing, expected the right option's letter, number or text")
    said = text.strip()
    counted = NUMBER.fullmatch(said)
    number = int(counted[1]) if counted else None
    letter = match[1].upper() if (match := LETTER.fullmatch(said)) else ""
    letters = {letter} & options.texts.keys()
    if not (by_position and (letters or counted)) and isinstance(value, str):
        letters |= {letter for letter, option in options.texts.items() if same(option, said)}
        if (match := LETTER_AND_TEXT.fullmatch(said)) and same(options.texts.get(match[1].upper(), ""), match[2]):
            letters.add(match[1].upper())
    return Reading(frozenset(letters), number, SHOWN.repr(value))


def same(one: str, other: str) -> bool:
    """Whether two texts are the same but for case and blanks."""
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def right_letter(options: Options, answers: dict[str, Reading], first: int | None) -> str:
    """The one option that every column can mean, numbers counted from `first`; raises ValueError."""
    fitting = {key: _letters(reading, options, first) for key, reading in answers.items()}
    for key, letters in fitting.items():
        if not letters:
            expected = f"one of {', '.join(options.texts)}, an option's text or its number"
            raise ValueError(f"`{key}` is {answers[key].shown}, expected {expected}")
    common = set.intersection(*fitting.values())
    if len(common) == 1:
        return common.pop()
    said = ", ".join(f"`{key}` is {reading.shown}" for key, reading in answers.items())
    if common:
        more = f"; columns={{answer_idx: {next(iter(answers))}}} says that it is a letter or number"
        raise ValueError(f"{said}, which may be any of {', '.join(sorted(common))}; expected the letter{more}")
    raise ValueError(f"{said}: not the same option")


def first_option(asked: Iterable[tuple[Options, dict[str, Reading]]]) -> tuple[int | None, str]:
    """The number that answers mean the first option by, and what is contradictory or untold about it, or "".

    0 or 1 is taken where some questions can be read so only and none can be read the other way only. Questions whose
    options are numbered themselves need no telling.
    """
    only: dict[int, list[int]] = {0: [], 1: []}  # first option -> numbers of questions that are read with it only
    either: list[int] = []  # numbers of questions that are read with both, differently
    for options, answers in asked:
        numbers = [reading.number for reading in answers.values() if reading.number is not None]
        told = any(reading.number is not None and reading.letters for reading in answers.values())  # by text as well
        if not numbers or told or options.first is not None:
            continue
        right = [_right_or_none(options, answers, first) for first in (0, 1)]
        if None not in right and right[0] != right[1]:
            either += numbers
        for first in (0, 1):
            if right[first] and not right[1 - first]:
                only[first] += numbers
    if only[0] and only[1]:
        return None, f"answers such as {only[0][0]} count the options from 0, others such as {only[1][0]} from 1"
    if not only[0] and not only[1] and either:
        return None, f"answers are the numbers {sorted(set(either))}, which may count the options from 0 or from 1"
    return (0 if only[0] else 1 if only[1] else None), ""


def _right_or_none(options: Options, answers: dict[str, Reading], first: int) -> str | None:
    try:
        return right_letter(options, answers, first)
    except ValueError:
        return None


def _letters(reading: Reading, options: Options, first: int | None) -> set[str]:
    letters = set(reading.letters)
    if reading.number is not None and first is not None and 0 <= reading.number - first < len(options.texts):
        letters.add(OPTION_LETTERS[reading.number - first])
    return letters
