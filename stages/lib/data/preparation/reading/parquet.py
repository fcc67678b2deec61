"""Rows of a Parquet file, in memory and time that are bounded by the file's size."""

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.core.errors import UserError
from stages.lib.data.preparation.reading.compression import require_bounded
from stages.lib.data.preparation.reading.defects import Defect, keyed

# A few bytes of Parquet can stand for any number of rows (run lengths, dictionaries) and of bytes (compression): both
# are looked at in the footer, and the bytes again while they are read.
MOST_ROWS = 20_000_000
# Arrow can keep each text of a column once. Only short row groups are read so: of texts that differ it copies all it
# has seen with each batch. The long ones are read in so few rows that even as many of the longest text fit in memory.
SHORT_GROUP = 2**23  # bytes unpacked
AT_ONCE = 2**29  # likewise
ROWS_AT_ONCE = 256

Decoded = dict[str, tuple[pa.Array, dict]]  # column -> Arrow's dictionary of its texts, and those decoded so far


def parquet_rows(path: Path, stream: BinaryIO) -> Iterator[dict | Defect]:
    """Yield each row as texts, numbers, lists and dicts; raises UserError with the row where the file is corrupt.

    `stream` has the file's plain bytes and can seek.
    """
    number = 0  # of the last row read
    unpacked = 0  # bytes
    decoded: Decoded = {}
    try:
        texts, at_once = _plan(path, pq.read_metadata(stream))
        with pq.ParquetFile(stream, read_dictionary=texts) as file:
            for batch in _batches(file, at_once):
                batch.validate()
                unpacked += sum(map(_unpacked, batch.columns))
                require_bounded(path, unpacked)
                yield from _rows(batch, decoded)
                number += len(batch)
            if number != file.metadata.num_rows:
                raise UserError(f"{path} has {number} rows, but its footer declares {file.metadata.num_rows}")
    except (pa.ArrowException, OSError, UnicodeDecodeError, RecursionError) as error:  # names, nested schemas
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: not valid Parquet after row {number}: {reason}") from error


def _batches(file: pq.ParquetFile, at_once: int) -> Iterator[pa.RecordBatch]:
    """A row group after the other: Arrow cannot put nested columns of two into one batch while it keeps texts once."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(at_once, row_groups=[group], use_threads=False)


def _plan(path: Path, footer: pq.FileMetaData) -> tuple[list[str], int]:
    """The columns of which to keep each text once, and the rows to read at once; raises UserError for a bomb.

    Only the row groups are asked: Arrow ends the process where a column chunk's own statistics are corrupt.
    """
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    rows = max(footer.num_rows, sum(group.num_rows for group in groups))
    if footer.num_columns == 0 or rows > MOST_ROWS:
        declared = f"{footer.num_columns} columns and {rows} rows"
        raise UserError(f"{path}: the footer declares {declared}, expected some columns and at most {MOST_ROWS} rows")
    sizes = [group.total_byte_size for group in groups]
    require_bounded(path, sum(sizes))
    longest = max(sizes, default=0)
    if longest <= SHORT_GROUP:
        return [footer.schema.column(i).path for i in range(footer.num_columns)], ROWS_AT_ONCE
    return [], max(1, min(ROWS_AT_ONCE, AT_ONCE // longest))


def _unpacked(array: pa.Array) -> int:
    """Bytes of an array, without the texts that Arrow keeps once for all batches."""
    if pa.types.is_dictionary(array.type):
        return 0
    if pa.types.is_struct(array.type):
        return sum(map(_unpacked, array.flatten()))
    if pa.types.is_map(array.type):
        return _unpacked(array.keys) + _unpacked(array.items)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        return _unpacked(array.flatten())
    return array.nbytes


def _rows(batch: pa.RecordBatch, decoded: Decoded) -> Iterator[dict | Defect]:
    names = batch.schema.names
    columns = [_values(column, name, decoded) for name, column in zip(names, batch.columns, strict=True)]
    for row in zip(*columns, strict=True):
        yield keyed(zip(names, row, strict=True))


def _values(array: pa.Array, name: str, decoded: Decoded) -> list:
    """Arrow values as Python's: texts, numbers, lists and dicts; those of any other type stay Arrow's own.

    Arrow's `to_pylist` would copy a text for each row that has it, and fail the whole batch for one bad text.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _kept_once(array, name, decoded)
    if pa.types.is_struct(kind):
        keys = [field.name for field in kind]
        columns = [_values(column, f"{name}.{key}", decoded) for key, column in zip(keys, array.flatten(), strict=True)]
        rows = zip(array.is_valid().to_pylist(), *columns, strict=True)
        return [keyed(zip(keys, row, strict=True)) if valid else None for valid, *row in rows]
    if pa.types.is_map(kind):
        return _maps(array, name, decoded)
    if pa.types.is_fixed_size_list(kind):  # a null one has no items among the flattened
        items = iter(_values(array.flatten(), name, decoded))
        return [list(islice(items, kind.list_size)) if valid else None for valid in array.is_valid().to_pylist()]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        items = iter(_values(array.flatten(), name, decoded))
        return [None if n is None else list(islice(items, n)) for n in array.value_lengths().to_pylist()]
    return [_value(value, name) for value in array]


def _maps(array: pa.MapArray, name: str, decoded: Decoded) -> list:
    """Maps as dicts; their entries lie end to end, those of map i from offset i to the next."""
    keys, values = _values(array.keys, f"{name}.key", decoded), _values(array.items, f"{name}.value", decoded)
    pairs = list(zip(keys, values, strict=True))
    spans = zip(pairwise(array.offsets.to_pylist()), array.is_valid().to_pylist(), strict=True)
    return [keyed(pairs[start:end]) if valid else None for (start, end), valid in spans]


def _kept_once(array: pa.DictionaryArray, name: str, decoded: Decoded) -> list:
    """Texts by their number in the dictionary, each decoded once while the dictionary stays the same."""
    if name not in decoded or not array.dictionary.equals(decoded[name][0]):
        decoded[name] = (array.dictionary, {None: None})
    dictionary, texts = decoded[name]
    numbers = array.indices.to_pylist()
    for number in set(numbers) - texts.keys():
        if not 0 <= number < len(dictionary):
            raise pa.ArrowInvalid(f"`{name}` refers to text {number} of {len(dictionary)}")
        texts[number] = _value(dictionary[number], name)
    return [texts[number] for number in numbers]


def _value(value: pa.Scalar, name: str) -> object:
    """A text, number, boolean or None; a date, say, stays a scalar: no record has one, and some fit no Python type."""
    kind = value.type
    if not value.is_valid:
        return None
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or isinstance(value, pa.BooleanScalar | pa.BinaryScalar):
        try:
            return value.as_py()
        except UnicodeDecodeError as error:
            return Defect(f"`{name}` is not UTF-8 text: {error.reason} at byte {error.start}")
    return value
