"""Rows of JSON, JSON lines, CSV and Parquet files; nothing that is wrong with a file is silently passed over."""

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from stages.lib.core.errors import UserError
from stages.lib.data.preparation.defects import Defect, first_defect, keyed
from stages.lib.data.preparation.parquet import parquet_rows

LONGEST_FIELD = 100_000_000  # characters of a CSV field: a quote that is never closed would swallow any file whole
DECODER = json.JSONDecoder(object_pairs_hook=keyed)


def read_rows(path: Path, format: str) -> Iterator[tuple[int, dict | Defect]]:
    """Yield (number from 1, row or defect); the number is the line's for JSON lines, elsewhere the record's.

    Raises UserError, with file and line or row, where the file as a whole cannot be read.
    """
    if format not in READERS:
        raise UserError(f"{path}: the format is {format!r}, expected one of {', '.join(READERS)}")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty, expected records as {format}")
        for number, row in READERS[format](path):
            defect = first_defect(row)
            yield number, cast(dict, row) if defect is None else defect
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected a file of records as {format}") from error


def _json(path: Path) -> Iterator[tuple[int, object]]:
    rows = _parse(path, _utf8(path, path.read_bytes(), 1), 1)
    if not isinstance(rows, list):
        raise UserError(f"{path}: the file is {type(rows).__name__}, expected a JSON array of records")
    yield from enumerate(rows, start=1)


def _jsonl(path: Path) -> Iterator[tuple[int, object]]:
    blank = True
    for number, line in _lines(path):
        if line.strip():
            blank = False
            yield number, _parse(path, line.rstrip("\r\n"), number)  # an error at the line's end is this line's
    if blank:
        raise UserError(f"{path} has blank lines only, expected a JSON object a line")


def _csv(path: Path) -> Iterator[tuple[int, object]]:
    rows = filter(None, _csv_rows(path))  # without blank lines
    header = next(rows, None)
    if header is None:
        raise UserError(f"{path} has blank lines only, expected a CSV header and records")
    for number, row in enumerate(rows, start=1):
        if len(row) == len(header):
            yield number, keyed(zip(header, row, strict=True))
        else:
            yield number, Defect(f"the record has {len(row)} columns, expected the header's {len(header)}")


def _csv_rows(path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{path}:{line}: the record is not valid CSV: {error}; are its quotes closed?") from error
        yield row


def _parquet(path: Path) -> Iterator[tuple[int, object]]:
    yield from enumerate(parquet_rows(path), start=1)


READERS = {"json": _json, "jsonl": _jsonl, "csv": _csv, "parquet": _parquet}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text with its line end), one line in memory at once."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, _utf8(path, line, number)


def _utf8(path: Path, data: bytes, line: int) -> str:
    """Decode what begins in this line, without a byte order mark; raises UserError."""
    if line == 1:
        data = data.removeprefix(codecs.BOM_UTF8)
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
