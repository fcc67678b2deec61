"""Dialogues and questions in the shapes that medical data comes in, each with where it came from."""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.lib.data.medqa import LETTERS
from stages.lib.data.preparation.defects import Defect
from stages.lib.data.preparation.readers import read_rows

LONGEST = 200_000  # characters of a text
SHOWN = reprlib.Repr()  # of a malformed row: so many characters of each text, so many keys
SHOWN.maxstring = SHOWN.maxother = 300
SHOWN.maxdict = 12
FIVE = (*LETTERS, "E")


@dataclass(frozen=True)
class Dialogue:
    """A conversation as {role, content}: a system message or none, then user and assistant in turn."""

    source: str
    row: int
    messages: list[dict]


@dataclass(frozen=True)
class Question:
    """A question with four options A-D, one of them right."""

    source: str
    row: int
    question: str
    options: dict[str, str]
    answer_idx: str
    meta_info: str


@dataclass(frozen=True)
class Malformed:
    """A row that is no such record, why (what was got and what was expected), and how it begins."""

    source: str
    row: int
    detail: str
    content: str


def read_dialogues(path: Path, source: str, format: str, columns: dict[str, str]) -> Iterator[Dialogue | Malformed]:
    """Yield each row that has `messages` as they are, any other as {instruction, input, output}.

    `columns` maps those names to the file's own where they differ. Raises UserError as `read_rows` does.
    """
    for number, row in read_rows(path, format):
        try:
            yield Dialogue(source, number, _messages(_readable(row), columns))
        except ValueError as error:
            yield Malformed(source, number, str(error), SHOWN.repr(row))


def read_questions(
    path: Path, source: str, format: str, columns: dict[str, str], reduce_options: bool
) -> Iterator[Question | Malformed]:
    """Yield each row's {question, options, answer_idx, answer, meta_info}; the last two may be missing.

    With `reduce_options` a question of five options loses its last wrong one. `columns` is as in `read_dialogues`.
    Raises UserError as `read_rows` does.
    """
    for number, row in read_rows(path, format):
        try:
            yield Question(source, number, *_question(_readable(row), columns, FIVE if reduce_options else LETTERS))
        except ValueError as error:
            yield Malformed(source, number, str(error), SHOWN.repr(row))


def _readable(row: dict | Defect) -> dict:
    """The row; raises ValueError with the reason where it is a defect."""
    if isinstance(row, Defect):
        raise ValueError(row.reason)
    return row


def _messages(row: dict, columns: dict[str, str]) -> list[dict]:
    """The messages of either shape; raises ValueError with what is wrong."""
    name = columns.get("messages", "messages")
    if row.get(name) is not None:
        return _chat(row[name], name)
    instruction, given = (_optional(row, columns.get(key, key)) for key in ("instruction", "input"))
    answer = _text(row, columns.get("output", "output"))
    if instruction is None and given is None:
        raise ValueError("`instruction` and `input` are missing, expected the user's question in one of them")
    instruction, given = instruction or "", given or ""
    # Alpaca's convention: an instruction without an input is itself the question.
    asked, system = (given, instruction) if given.strip() else (instruction, "")
    first = [{"role": "system", "content": system}] if system.strip() else []
    return [*first, {"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _chat(messages: object, name: str) -> list[dict]:
    """Messages without other keys; raises ValueError where a text is missing or the roles do not take turns."""
    if not isinstance(messages, list):
        raise ValueError(f"`{name}` is {type(messages).__name__}, expected a list of messages")
    for i, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise ValueError(f"message {i} of `{name}` is {type(message).__name__}, expected an object")
    chat = [{key: _text(message, key) for key in ("role", "content")} for message in messages]
    roles = [message["role"] for message in chat]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        expected = "user and assistant in turn, ending with assistant, after one system message or none"
        raise ValueError(f"the roles of `{name}` are {reprlib.repr(roles)}, expected {expected}")
    return chat


def _question(row: dict, columns: dict[str, str], letters: tuple[str, ...]) -> tuple[str, dict[str, str], str, str]:
    """Question, options, right letter and meta info; raises ValueError with what is wrong."""
    names = {key: columns.get(key, key) for key in ("question", "options", "answer_idx", "answer", "meta_info")}
    question = _text(row, names["question"])
    if not question.strip():
        raise ValueError(f"`{names['question']}` is empty, expected text")
    options = _options(row.get(names["options"]), names["options"], letters)
    right = _text(row, names["answer_idx"])
    answer = _optional(row, names["answer"])
    if right not in options:
        got = reprlib.repr(right)
        raise ValueError(f"`{names['answer_idx']}` is {got}, expected one of {', '.join(options)}")
    if answer is not None and answer != options[right]:
        raise ValueError(f"`{names['answer']}` is not the text of option {right}")
    options, right = _four(options, right)
    return question, options, right, _optional(row, names["meta_info"]) or ""


def _options(options: object, name: str, letters: tuple[str, ...]) -> dict[str, str]:
    """Options A-D, or as many more as `letters` has, in order; raises ValueError."""
    if isinstance(options, list) and all(isinstance(option, dict) for option in options):
        keys = [_text(option, "key") for option in options]  # as the Hugging Face Hub's exports have them
        if len(set(keys)) < len(keys):
            raise ValueError(f"`{name}` are {reprlib.repr(keys)}, expected each letter once")
        options = dict(zip(keys, (option.get("value") for option in options), strict=True))
    if not isinstance(options, dict):
        raise ValueError(f"`{name}` is {type(options).__name__}, expected an object with the options A to D")
    # A Parquet column has the same letters in each row, with null for those that a question lacks.
    got = tuple(sorted(letter for letter, text in options.items() if text is not None))
    if got not in (LETTERS, letters):
        more = "" if letters == LETTERS else ", or E too"
        raise ValueError(f"`{name}` are {reprlib.repr(list(got))}, expected exactly A, B, C and D{more}")
    texts = {letter: _text(options, letter) for letter in got}
    if not all(text.strip() for text in texts.values()):
        raise ValueError(f"an option of `{name}` is empty, expected text in every one")
    return texts


def _four(options: dict[str, str], right: str) -> tuple[dict[str, str], str]:
    """Four options with the letters A-D and the right one's letter; the last wrong options go, the order stays."""
    wrong = [letter for letter in options if letter != right]
    kept = [letter for letter in options if letter == right or letter in wrong[: len(LETTERS) - 1]]
    return {new: options[old] for new, old in zip(LETTERS, kept, strict=True)}, LETTERS[kept.index(right)]


def _text(row: dict, name: str) -> str:
    """A text that may be empty; raises ValueError where it is missing, no text or too long."""
    text = _optional(row, name)
    if text is None:
        raise ValueError(f"`{name}` is missing, expected text")
    return text


def _optional(row: dict, name: str) -> str | None:
    """A text or None where it is missing or null; raises ValueError where it is anything else or too long."""
    text = row.get(name)
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"`{name}` is {type(text).__name__}, expected text")
    if len(text) > LONGEST:
        raise ValueError(f"`{name}` is oversized: {len(text)} characters, expected at most {LONGEST}")
    return text
