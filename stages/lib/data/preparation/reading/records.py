"""What is read from a file: dialogues, questions, and rows that are neither, each with where it came from."""

import reprlib
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

LONGEST = 200_000  # characters of a text
SHOWN = reprlib.Repr()  # of a malformed row: so many characters of each text, so many keys
SHOWN.maxstring = SHOWN.maxother = 300
SHOWN.maxdict = 12


class Place(NamedTuple):
    """Where a record was: the line of JSON lines, elsewhere the number of the record, from 1."""

    source: str
    row: int
    file: str = ""  # of a source of several files


@dataclass(frozen=True)
class Dialogue:
    """A conversation as {role, content}: a system message or none, then user and assistant in turn.

    An assistant's message that must not be trained has `train` False.
    """

    place: Place
    messages: list[dict]


@dataclass(frozen=True)
class Question:
    """A question with two to five options A, B, ..., one of them right."""

    place: Place
    question: str
    options: dict[str, str]
    answer_idx: str
    meta_info: str


@dataclass(frozen=True)
class Malformed:
    """A row that is no such record, why (what was got and what was expected), and how it begins."""

    place: Place
    detail: str
    content: str


@dataclass(frozen=True)
class Origin:
    """A source as a reader needs it."""

    name: str
    records: str  # dialogues, train_questions or test_questions
    key: str  # where params.yaml has it: data.sources.0
    columns: dict[str, str] = field(default_factory=dict)  # our field -> the file's own name for it
    first_option: int | None = None  # the number that answers mean the first option by; None: as the file tells

    def mapping(self, ours: str, theirs: str) -> str:
        """The choice that reads a field from a column of the file."""
        return f"-S '+{self.key}.columns={{{ours}: {theirs}}}'"


@dataclass
class Seen:
    """What a reader saw of a source, beside its records."""

    shapes: Counter[str] = field(default_factory=Counter)  # how rows were read -> rows
    unread: Counter[str] = field(default_factory=Counter)  # column that no field was read from -> rows
    unread_in_messages: Counter[str] = field(default_factory=Counter)  # key of a message -> messages
    mapped: set[str] = field(default_factory=set)  # fields that were found in the column they are mapped to
    texts: set[str] = field(default_factory=set)  # columns that held a text
    numbers: set[str] = field(default_factory=set)  # columns of texts that held a number
    said: set[tuple[int, int, int]] = field(default_factory=set)  # hashes: what was asked, system text or 0, answer
    first: dict[int, int] = field(default_factory=dict)  # hash of what was asked -> the row that first asked it

    def add(self, row: int, asked: str, system: str, answer: str) -> None:
        """Note what a record says."""
        question = hash(asked)
        self.first.setdefault(question, row)
        self.said.add((question, hash(system) if system else 0, hash(answer)))

    def text(self, value: object, key: str, may_be_number: bool = False) -> str | None:
        """The text that a column's value is, a number as its text, None where it is missing; else raises ValueError.

        A column of nothing but numbers is refused in the end, unless each `may_be_number`.
        """
        if isinstance(value, str):
            if len(value) > LONGEST:
                raise ValueError(f"`{key}` is oversized: {len(value)} characters, expected at most {LONGEST}")
            self.texts.add(key)
            return value
        if value is None or value != value:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not may_be_number:
                self.numbers.add(key)
            return str(value)
        raise ValueError(f"`{key}` is {type(value).__name__}, expected text")
