"""Rows of JSON, JSON lines, CSV and Parquet files, told apart by what they hold, not by their names.

Nothing that is wrong with a file is silently passed over.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, tee
from pathlib import Path
from typing import cast

from stages.lib.core.errors import UserError
from stages.lib.data.preparation.reading.columns import KNOWN, plain
from stages.lib.data.preparation.reading.compression import opened
from stages.lib.data.preparation.reading.defects import Defect, first_defect, keyed
from stages.lib.data.preparation.reading.parquet import parquet_rows

LONGEST_FIELD = 100_000_000  # characters of a CSV field: a quote that is never closed would swallow any file whole
DELIMITERS = ",;\t|"  # of CSV, told by the header
SEP_LINE = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE)  # by which Excel is told
# A file that its first bytes do not tell is what it is called, so that the error is about that.
JSON_NAME = re.compile(r"\.(json|jsonl|ndjson)(\.gz|\.zst)?\Z", re.IGNORECASE)
PARQUET_NAME = re.compile(r"\.parquet(\.gz|\.zst)?\Z", re.IGNORECASE)
WRAPPERS = {"data", "rows", "records", "items", "examples", "samples", "instances", "train", "test", "validation"}
NULLS = ("NaN", "nan", "NULL", "null", "#N/A")  # cells of CSV that hold nothing
DECODER = json.JSONDecoder(object_pairs_hook=keyed)
Lines = Iterator[tuple[int, bytes]]  # number from 1, bytes with the line's end


def read_rows(path: Path) -> Iterator[tuple[int, dict | Defect]]:
    """Yield (number from 1, row or defect); the number is the line's for JSON lines, elsewhere the record's.

    gzip and zstd are unpacked. Raises UserError, with file and line or row, where the file as a whole cannot be read.
    """
    try:
        with opened(path) as stream:
            for number, row in _rows(path, stream):
                defect = first_defect(row)
                yield number, cast(dict, row) if defect is None else defect
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected a file of records") from error


def _rows(path: Path, stream: io.BufferedReader) -> Iterator[tuple[int, object]]:
    """The rows by the reader that fits the first bytes."""
    if stream.peek(4)[:4] == b"PAR1" or PARQUET_NAME.search(path.name):
        seekable = stream if stream.seekable() else io.BytesIO(stream.read())
        return enumerate(parquet_rows(path, seekable), start=1)
    lines = enumerate(stream, start=1)
    number = 0
    for number, line in lines:
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if start := text.strip()[:1]:
            named = _json if JSON_NAME.search(path.name) else _csv
            reader = {b"[": _json, b"{": _json_lines}.get(start, named)
            return reader(path, chain([(number, text)], lines))
    what = "has blank lines only" if number else "is empty"
    raise UserError(f"{path} {what}, expected records as JSON, JSON lines, CSV or Parquet")


def _json(path: Path, lines: Lines) -> Iterator[tuple[int, object]]:
    """The records of a JSON array, or of the one array that an object wraps, {"data": [...]}."""
    first, line = next(lines)
    value = _parse(path, _utf8(path, b"".join([line, *(line for _, line in lines)]), first), first)
    return enumerate(value if isinstance(value, list) else _unwrapped(path, value), start=1)


def _json_lines(path: Path, lines: Lines) -> Iterator[tuple[int, object]]:
    """The records of JSON lines; those of one JSON object where the file is that."""
    number, line = next(lines)
    try:
        row = DECODER.decode(line.decode())
    except (ValueError, RecursionError):  # an object over several lines, or an error, which is reported with its line
        return _json(path, chain([(number, line)], lines))
    others = ((number, line) for number, line in lines if line.strip())
    second = next(others, None)
    if second is None:
        rows = _unwrapped(path, row)
        return iter([(number, row)]) if rows == [row] else enumerate(rows, start=1)
    # An error at a line's end is that line's: so the end goes.
    parsed = ((n, _parse(path, _utf8(path, text, n).rstrip("\r\n"), n)) for n, text in chain([second], others))
    return chain([(number, row)], parsed)


def _unwrapped(path: Path, value: object) -> list:
    """The records that one JSON object holds: its one list of objects, its objects by their ids, or itself.

    Raises UserError where several lists could be the records.
    """
    if not isinstance(value, dict):
        return [value]
    if _by_columns(value):
        fix = "write its records, with pandas to_json(orient='records', lines=True)"
        raise UserError(f"{path} holds columns, expected records: {fix}")
    lists = {key: held for key, held in value.items() if isinstance(held, list) and held and isinstance(held[0], dict)}
    wrapped = [key for key in lists if plain(key) in WRAPPERS]
    if len(wrapped) > 1:
        named = ", ".join(wrapped)
        raise UserError(f"{path} has lists of records at {named}, expected one: write each to its own file")
    if wrapped:
        return lists[wrapped[0]]
    by_id = len(value) > 1 and all(isinstance(held, dict) for held in value.values())
    return list(value.values()) if by_id and not any(plain(key) in KNOWN for key in value) else [value]


def _by_columns(value: dict) -> bool:
    """Whether an object is a table by its columns, as pandas writes one unless it is told otherwise."""
    held = list(value.values())
    if len(held) < 2 or not all(isinstance(one, list | dict) and one for one in held):
        return False
    if all(isinstance(one, dict) for one in held):
        return all(key.isdecimal() for one in held for key in one)
    lists = all(isinstance(one, list) and not isinstance(one[0], dict | list) for one in held)
    return lists or value.keys() == {"columns", "index", "data"}


def _csv(path: Path, lines: Lines) -> Iterator[tuple[int, object]]:
    texts = _csv_lines(path, lines)
    number, line = next(texts)
    if found := SEP_LINE.fullmatch(line):
        delimiter = found[1]
        number, line = next(texts, (number + 1, ""))
    else:
        delimiter = max(DELIMITERS, key=lambda one: _fitness(line, one))
    rows = _csv_rows(path, chain([(number, line)], texts), delimiter)
    header = [name.strip() or f"column {i}" for i, name in enumerate(next(rows, []), start=1)]
    if len(header) < 2:
        raise UserError(
            f"{path}:{number}: neither JSON nor Parquet, and as CSV it has one column; expected two or more"
        )
    for index, cells in enumerate((row for row in rows if any(cell.strip() for cell in row)), start=1):
        yield index, _csv_record(header, cells)


def _csv_record(header: list[str], cells: list[str]) -> dict | Defect:
    """A record by its columns' names; what Excel or pandas write for a missing text is null."""
    if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
        return Defect(f"the record has {len(cells)} columns, expected the header's {len(header)}")
    return keyed((name, None if cell in NULLS else cell) for name, cell in zip(header, cells, strict=False))


def _fitness(header: str, delimiter: str) -> tuple[int, int]:
    """How many known columns a header has with this delimiter, and how many columns."""
    try:
        names = next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        return 0, 0
    return sum(plain(name) in KNOWN for name in names), len(names)


def _csv_rows(path: Path, lines: Iterable[tuple[int, str]], delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST_FIELD)
    numbers, texts = tee(lines)
    reader = csv.reader((text for _, text in texts), strict=True, delimiter=delimiter)
    while True:
        consumed = reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line, _ = next(numbers)
            raise UserError(f"{path}:{line}: the record is not valid CSV: {error}; are its quotes closed?") from error
        yield row
        for _ in range(reader.line_num - consumed):
            next(numbers)


def _csv_lines(path: Path, lines: Lines) -> Iterator[tuple[int, str]]:
    """Yield (line number, text), also of a file whose lines end with a carriage return alone."""
    for number, line in lines:
        text = _utf8(path, line, number)
        if "\r" in text.rstrip("\r\n"):
            yield from ((number, part) for part in re.split(r"(?<=\r)(?!\n)", text) if part)
        else:
            yield number, text


def _utf8(path: Path, data: bytes, line: int) -> str:
    """Decode what begins in this line; raises UserError."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        got = f"{error.reason} 0x{data[error.start]:02x}"
        raise UserError(f"{path}:{line}: not UTF-8 text: {got}; save the file as UTF-8") from error


def _parse(path: Path, text: str, line: int) -> object:
    """A JSON value that begins in this line; raises UserError."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        raise UserError(f"{path}:{line}: not valid JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise UserError(f"{path}:{line}: JSON is nested too deeply, expected records of texts") from error
    except ValueError as error:  # the decoder's one other: an integer of more than 4300 digits
        raise UserError(f"{path}:{line}: a number is too long, expected records of texts: {error}") from error
