"""Files of records in every format, and what is read from them."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.data.preparation.reading.records import Malformed, Origin, Seen
from stages.lib.data.preparation.reading.sources import read_source

FORMATS = ("json", "jsonl", "csv", "parquet")


def encoded(format, rows):
    """The bytes of a file of this format."""
    if format == "json":
        return json.dumps(rows, indent=1).encode()
    if format == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if format == "csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    return table_bytes(pa.Table.from_pylist(rows))


def table_bytes(table, **options):
    """The bytes of a Parquet file."""
    data = io.BytesIO()
    pq.write_table(table, data, **options)
    return data.getvalue()


def read(path, records="dialogues", columns=None, first_option=None, seen=None):
    """Every record of a file, as the source "here"."""
    origin = Origin("here", records, "data.sources.0", columns or {}, first_option)
    return list(read_source(path, origin, Seen() if seen is None else seen))


def details(records):
    """Why each record is malformed, None where it is not."""
    return [record.detail if isinstance(record, Malformed) else None for record in records]


def said(records):
    """The messages of each dialogue as (role, content), with False behind one that is not trained."""
    return [[tuple(message.values()) for message in record.messages] for record in records]
