"""Read dialogues and questions in the formats of ChatDoctor and MedQA, each with where it came from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.lib.errors import UserError
from stages.lib.files import read_json, read_jsonl, read_text
from stages.lib.medqa import LETTERS


@dataclass(frozen=True)
class Dialogue:
    """One question of a patient and its answer; `row` counts from 1."""

    source: str
    row: int
    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class Question:
    """One four-option question; `row` counts from 1."""

    source: str
    row: int
    question: str
    options: dict[str, str]
    answer_idx: str
    meta_info: str


def read_dialogues(path: Path) -> list[Dialogue]:
    """A JSON array of {instruction, input, output}; raises UserError with file and line of a bad record."""
    return [_dialogue(path, number, line, row) for number, (line, row) in enumerate(_array(path), start=1)]


def read_questions(path: Path) -> list[Question]:
    """JSON lines of {question, options A-D, answer_idx, answer}; raises UserError with file and line of a bad one."""
    return [_question(path, line, row) for line, row in read_jsonl(path)]


def _array(path: Path) -> Iterator[tuple[int, object]]:
    """Yield (line, value) for each element of a JSON array."""
    rows = read_json(path)  # the whole file first: it reports any syntax error with its line
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a JSON array of records, got {type(rows).__name__}")
    text, decoder = read_text(path), json.JSONDecoder()
    at, line, counted = text.index("[") + 1, 1, 0
    for row in rows:
        while text[at] in " \t\r\n,":
            at += 1
        line, counted = line + text.count("\n", counted, at), at
        yield line, row
        at = decoder.raw_decode(text, at)[1]


def _dialogue(path: Path, number: int, line: int, row: object) -> Dialogue:
    where = f"{path}:{line}: record {number}"
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object, got {type(row).__name__}")
    for key in ("input", "output"):
        if key not in row:
            raise UserError(f"{where} has no `{key}`; expected instruction, input and output")
    texts = {key: row.get(key) or "" for key in ("instruction", "input", "output")}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise UserError(f"{where}: `{key}` is {type(value).__name__}, expected text")
    return Dialogue(path.stem, number, **texts)


def _question(path: Path, line: int, row: dict) -> Question:
    where = f"{path}:{line}"
    question, options, answer = row.get("question"), row.get("options"), row.get("answer_idx")
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"{where}: `question` is missing or empty")
    if not isinstance(options, dict) or sorted(options) != list(LETTERS):
        got = sorted(options) if isinstance(options, dict) else type(options).__name__
        raise UserError(f"{where}: `options` are {got}, expected exactly A, B, C and D")
    if not all(isinstance(text, str) and text.strip() for text in options.values()):
        raise UserError(f"{where}: every option must be a text that is not empty")
    if answer not in options:
        raise UserError(f"{where}: `answer_idx` is {answer!r}, expected one of A, B, C and D")
    if row.get("answer", options[answer]) != options[answer]:
        raise UserError(f"{where}: `answer` is not the text of option {answer}")
    return Question(path.stem, line, question, options, answer, str(row.get("meta_info", "")))
