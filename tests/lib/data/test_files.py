"""Readers of data files: the same records from every format, and a plain word for whatever is wrong with a file."""

import csv
import gzip
import io
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.core.errors import UserError
from stages.lib.data.preparation.reading import compression, parquet
from stages.lib.data.preparation.reading.records import LONGEST, Dialogue, Malformed, Place, Seen
from support.files import FORMATS, details, encoded, read, said, table_bytes
from support.settings import ROOT

ALPACA = [
    {"instruction": "Be a doctor.", "input": "I cough, a lot.\nWhy?", "output": 'Rest "well" é.', "extra": "x"},
    {"instruction": "What is flu?", "input": "", "output": "<|im_end|>", "extra": "y"},
]
READ = [
    [("system", "Be a doctor."), ("user", "I cough, a lot.\nWhy?"), ("assistant", 'Rest "well" é.')],
    [("user", "What is flu?"), ("assistant", "<|im_end|>")],
]
CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
FOUR = {"A": "a", "B": "b", "C": "c", "D": "d"}
ASKED = {"question": "Q?", "options": FOUR, "answer_idx": "B", "answer": "b", "meta_info": "step1"}


def packed(data, codec):
    """Bytes compressed by gzip or zstd."""
    if codec == "gzip":
        return gzip.compress(data)
    with pa.CompressedOutputStream(sink := pa.BufferOutputStream(), codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def write(tmp_path):
    def written(format, data):
        path = tmp_path / f"data.{format}"
        path.write_bytes(data if isinstance(data, bytes) else encoded(format, data))
        return path

    return written


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_told_by_what_it_holds(write, format, mark):
    data = encoded(format, ALPACA)
    path = write("any name", data if format == "parquet" else mark + data)
    records = read(path)
    assert said(records) == READ
    assert [record.place for record in records] == [Place("here", 1), Place("here", 2)]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_compressed_file_is_read_as_the_plain_one(write, format, codec):
    data = encoded(format, ALPACA)
    assert said(read(write("x", packed(data, codec)))) == READ
    if format == "jsonl":  # files that were appended to: gzip's members, zstd's frames
        assert said(read(write("x", packed(data, codec) + packed(data, codec)))) == [*READ, *READ]
    with pytest.raises(UserError, match=r"data\.x: Truncated compressed stream"):
        read(write("x", packed(data * 99, codec)[:-9]))


def test_a_compressed_file_that_unpacks_to_far_more_than_its_size_is_refused(write, monkeypatch):
    monkeypatch.setattr(compression, "MOST_BYTES", 2**20)
    for codec in ("gzip", "zstd"):
        with pytest.raises(UserError, match=r"unpacks to \d+ bytes or more, expected at most 1048576"):
            read(write("x", packed(b"{" * 2**22, codec)))


def test_a_folder_of_files_is_one_source(tmp_path):
    for number, format in enumerate(FORMATS):
        (tmp_path / f"{number}.{format}").write_bytes(encoded(format, ALPACA))
    records = read(tmp_path)
    assert said(records) == READ * 4
    assert [record.place for record in records][::2] == [Place("here", 1, f"{i}.{f}") for i, f in enumerate(FORMATS)]


ROWS = [{"input": "I cough; a lot", "output": "Rest,\tand tea"}] * 2


@pytest.mark.parametrize(
    "data",
    [
        b'input,output\n"I cough; a lot","Rest,\tand tea"\n' * 1 + b'I cough; a lot,"Rest,\tand tea"\n',
        b'input;output\n"I cough; a lot";Rest,\tand tea\n' * 1 + b'"I cough; a lot";Rest,\tand tea\n',
        b'"Input"\t" Output "\nI cough; a lot\t"Rest,\tand tea"\nI cough; a lot\t"Rest,\tand tea"',
        b'sep=;\r\ninput;output\r\n"I cough; a lot";Rest,\tand tea\r\n"I cough; a lot";Rest,\tand tea\r\n',
        b'input,output,,\n"I cough; a lot","Rest,\tand tea",,\n,,,\nI cough; a lot,"Rest,\tand tea",, \n',
        b'input,output\rI cough; a lot,"Rest,\tand tea"\rI cough; a lot,"Rest,\tand tea"\r',
        json.dumps({"version": "1.0", "data": ROWS}).encode(),
        json.dumps({"version": "1.0", "data": ROWS}, indent=1).encode(),
        json.dumps({"10": ROWS[0], "11": ROWS[1]}).encode(),
        json.dumps(ROWS).encode(),
        json.dumps(ROWS, indent=1).encode(),
    ],
    ids=[
        "comma",
        "semicolon",
        "tab",
        "sep",
        "empty columns",
        "mac",
        "wrapped",
        "wrapped lines",
        "ids",
        "line",
        "lines",
    ],
)
def test_files_as_people_save_them(write, data):
    assert said(read(write("x", data))) == [[("user", "I cough; a lot"), ("assistant", "Rest,\tand tea")]] * 2


def test_a_json_line_is_numbered_by_its_line_and_a_csv_record_is_not(write):
    row = json.dumps(ALPACA[0]).encode()
    assert [one.place.row for one in read(write("jsonl", b"\n" + row + b"\r\n \n" + row))] == [2, 4]
    path = write("csv", b'input,output\r\n\r\n"a\nb\rc",d\r\ne,f\r\n')
    assert [(one.place.row, one.messages[0]["content"]) for one in read(path)] == [(1, "a\nb\rc"), (2, "e")]


@pytest.mark.parametrize("row", ['{"input":"a","output":"b","input":"c"}', '{"output":"b","x":[{"y":{"z":1,"z":1}}]}'])
@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_a_key_that_stands_twice(write, format, row):
    path = write(format, (f"[{row}]" if format == "json" else row).encode())
    assert details(read(path)) == ["a key stands twice, expected each once"]


def test_columns_of_csv_and_parquet_that_stand_twice_or_miss(write):
    path = write("csv", b",input,output\n0,a,b\n1,a\n2,a,b,c\n3,a,b,,\n4,a,NaN\n")  # as pandas writes its index
    seen = Seen()
    assert details(read(path, seen=seen)) == [
        None,
        "the record has 2 columns, expected the header's 3",
        "the record has 4 columns, expected the header's 3",
        None,
        "`output` is missing, expected text",
    ]
    assert seen.unread == {"column 1": 3}
    assert details(read(write("csv", b"output,output\na,b\n"))) == ["a key stands twice, expected each once"]
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["output", "output"])
    assert details(read(write("parquet", table_bytes(twice)))) == ["a key stands twice, expected each once"]


@pytest.mark.parametrize("short", [parquet.SHORT_GROUP, 0])
def test_one_bad_text_of_a_parquet_file_spoils_one_row(write, monkeypatch, short):
    monkeypatch.setattr(parquet, "SHORT_GROUP", short)
    texts = pa.array([b"a", b"\xff", None, b"\xc3\xa9"]).view(pa.string())
    days = pa.array([2**62] * 4, pa.timestamp("ms"))  # no day of Python's: not read, so no reason to stop
    path = write("parquet", table_bytes(pa.table({"input": texts, "output": texts, "day": days, "well": [True] * 4})))
    assert details(read(path)) == [
        None,
        "`output` is not UTF-8 text: invalid start byte at byte 0",
        "`instruction` and `input` are missing, expected the user's question in one of them",
        None,
    ]
    assert details(read(path, columns={"output": "day"}))[0] == "`day` is TimestampScalar, expected text"
    assert details(read(path, columns={"output": "well"}))[0] == "`well` is bool, expected text"


@pytest.mark.parametrize("group", [2, 3])
def test_nested_columns_of_parquet_in_several_row_groups(write, group):
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    kind = pa.struct([("role", pa.string()), ("content", pa.string())])
    for listed in (pa.list_(kind), pa.large_list(kind), pa.list_(kind, 2)):
        path = write(
            "parquet", table_bytes(pa.table({"messages": pa.array([turns, None, turns], listed)}), row_group_size=group)
        )
        first, none, last = read(path)
        assert first.messages == last.messages == turns
        assert "are missing" in none.detail


CUT = encoded("parquet", ALPACA)
BROKEN = [
    (b"", "is empty, expected records as JSON"),
    (b"\n \n", "has blank lines only"),
    (b'[\n {"output": "b"},\n {"input": "a" "output": "b"}]', ":3: not valid JSON: Expecting ',' delimiter (co"),
    (b'[\n {"input": "a', ":2: not valid JSON: Unterminated string"),
    (b"[\n" + b"[" * 99999, ": JSON is nested too deeply"),
    (b"[" + b"9" * 5000 + b"]", ": a number is too long"),
    (b'[\n"\xff"]', ":2: not UTF-8 text: invalid start byte 0xff"),
    (b'{"train": [{"b": 1}], "test": [{"d": 1}], "n": 1}', "has lists of records at train, test, expected one"),
    (b'{"input": {"0": "a", "1": "b"}, "output": {"0": "c", "1": "d"}}', "holds columns, expected records: write its"),
    (b'{"input": ["a", "b"], "output": ["c", "d"]}', "holds columns, expected records"),
    (b'{"output": "b",\n"input" "a"}', ":2: not valid JSON: Expecting ':' delimiter"),
    (b'{"output": "b"}\n{"output": \n', ":2: not valid JSON: Expecting value (column 12)"),
    (b'{"output": "b"}\n"' + "é".encode("latin-1") + b'"\n', ":2: not UTF-8 text"),
    (b'{"output": "b"}\n' + b"[" * 99999, ":2: JSON is nested too deeply"),
    (b'{"output": "b"}\n' + b"9" * 5000, ":2: a number is too long"),
    ('{"output": "b"}'.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    (b'input,output\na,b\n"c,d\ne,f\n', ":3: the record is not valid CSV: unexpected end of data"),
    (b'input,output\n"a"b,c\n', ":2: the record is not valid CSV"),
    (b"input,output\na,b\nc,\xff\n", ":3: not UTF-8 text"),
    (b"Some words.\n", ":1: neither JSON nor Parquet, and as CSV it has one column"),
    (b"PK\x03\x04...", "is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    (b"BZh9...", "is compressed by bzip2"),
    (b"PAR1", ": not valid Parquet after row 0"),
    (CUT[:-9], ": not valid Parquet after row 0"),
    (table_bytes(pa.table({})), "declares 0 columns"),
]


@pytest.mark.parametrize(("data", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_named_with_its_row(write, data, message):
    path = write("x", data)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: No such file"):
        read(tmp_path / "none.json")


@pytest.mark.parametrize("data", [b" []", b"input,output", table_bytes(pa.table({"output": [""]})[:0])])
def test_a_file_of_no_rows_has_no_records(write, data):
    assert read(write("x", data)) == []


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_line_of_50_megabytes_is_one_malformed_row(write, format):
    long, short = {"input": "a", "output": "b" * 50_000_000}, {"input": "a", "output": "b"}
    first, second = read(write(format, [long, short]))
    assert first.detail == "`output` is oversized: 50000000 characters, expected at most 200000"
    assert isinstance(second, Dialogue)


LAUGHS = """
import re, sys
from pathlib import Path
from stages.lib.data.preparation.reading.records import Origin, Seen
from stages.lib.data.preparation.reading.sources import read_source
records = read_source(Path(sys.argv[1]), Origin("here", "dialogues", "data.sources.0"), Seen())
print(sum("oversized" in record.detail for record in records))
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_a_megabyte_that_a_small_file_repeats_a_million_times_is_read_in_bounded_memory(write):
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["a" * 2**20]))
    path = write("parquet", table_bytes(pa.table({"input": column})))
    assert path.stat().st_size < 2**20
    done = subprocess.run([sys.executable, "-c", LAUGHS, path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 1_000_000
    assert megabytes < 300


def test_a_text_that_a_file_repeats_is_in_memory_once(write):
    chat = [{"role": "user", "content": "a" * LONGEST}, {"role": "assistant", "content": "b" * LONGEST}]
    path = write("parquet", table_bytes(pa.table({"messages": [chat] * 1000}), row_group_size=100_000))
    assert len({id(message["content"]) for record in read(path) for message in record.messages}) <= 2


def test_a_parquet_file_that_unpacks_to_far_more_than_its_size_is_refused(write, monkeypatch):
    monkeypatch.setattr(compression, "MOST_BYTES", 2**20)
    table = pa.table({"output": ["a" * 100_000] * 100, "input": ["a"] * 100})
    with pytest.raises(UserError, match=r"unpacks to 1000\d+ bytes or more, expected at most 1048576 "):
        read(write("parquet", table_bytes(table, use_dictionary=False, compression="zstd")))
    path = write("parquet", table_bytes(table, compression="zstd"))
    assert len(read(path)) == 100  # a dictionary: the text is there once
    monkeypatch.setattr(parquet, "SHORT_GROUP", 0)  # and where it would not be kept once
    with pytest.raises(UserError, match="unpacks to"):
        read(path)


def test_a_parquet_file_of_more_rows_than_anyone_has_is_refused(write, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_ROWS", 1)
    with pytest.raises(UserError, match="declares 4 columns and 2 rows, expected some columns and at most 1 rows"):
        read(write("parquet", ALPACA))


# Below: files of hypothesis, made of values that do or do not belong, then broken at random.

KEYS = ("instruction", "input", "output", "messages", "question", "options", "answer_idx", "answer", "meta_info",
        "system", "history", "context", "conversations", "prompt", "completion", "opa", "opb", "cop", "label", "data",
        "doc", "final_decision", "Input", " output")  # fmt: skip
SHARED = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]
TEXTS = ("", "a", "B", "é 👩‍⚕️", " \n", "<|im_end|>", "\0", "\ud800", '"', ",", "x" * 3000, "x" * (LONGEST + 1))
VALUES = (*TEXTS, None, 3, 1.5, True, [], ["a", None], {}, CHAT, CHAT[:2], [{"role": 3}], FOUR, FOUR | {"E": "e"},
          [{"key": "A", "value": None}], {"A": {"A": None}}, 0, 1, 4, float("nan"), [["q", "a"]], ["a", "b", "c"],
          {"text": ["a", "b"], "label": ["A", "B"]}, {"contexts": ["c"]}, SHARED,
          [CHAT[1], CHAT[2] | {"train": False}], [CHAT[1], CHAT[2] | {"weight": 2}])  # fmt: skip
FRAGMENTS = (*map(json.dumps, VALUES), "NaN", '{"a": 1, "a": 2}', "[" * 2000 + "null" + "]" * 2000, "9" * 5000,
             '[{"role": "user", "role": "user"}]')  # fmt: skip
SHAPES = ({"input": "q", "output": "a"}, ALPACA[0], {"messages": CHAT}, ASKED, {}, {"conversations": SHARED},
          {"question": "q", "opa": "a", "opb": "b", "cop": 1}, {"data": ASKED}, {"doc": ASKED, "target": "1"},
          {"instruction": "q", "output": "a", "system": "s", "history": [["q", "a"]], "context": "c"},
          {"question": "q", "context": {"contexts": ["c"]}, "final_decision": "yes"},
          {"question": "q", "choices": ["a", "b", "c"], "answer": ["b"]})  # fmt: skip
BREAK = st.tuples(
    st.sampled_from(["cut", "flip", "nul", "ones", "utf-16", "latin-1", "mark", "foot"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 255),
)
BREAKS = st.one_of(st.just([]), st.lists(BREAK, min_size=1, max_size=3))


def broken(data, breaks):
    for kind, where, value in breaks:
        at = int(where * len(data))
        if kind == "foot":  # somewhere in the last 400 bytes: Parquet's footer
            at = max(0, len(data) - 400) + int(where * min(400, len(data)))
        if kind == "cut":
            data = data[:at]
        elif kind in ("flip", "foot"):
            data = data[:at] + bytes([value]) + data[at + 1 :]
        elif kind in ("nul", "ones"):
            data = data[:at] + (b"\0" if kind == "nul" else b"\xff") * (value % 9) + data[at:]
        elif kind == "mark":
            data = b"\xef\xbb\xbf" + data
        else:
            data = data.decode("utf-8", "replace").encode(kind, "replace")
    return data


def json_row(row, changes, twice):
    pairs = [(key, json.dumps(value)) for key, value in row.items()]
    pairs = [*pairs, *changes] if twice else dict([*pairs, *changes]).items()
    return "{" + ", ".join(f'"{key}": {fragment}' for key, fragment in pairs) + "}"


def csv_file(rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("instruction", "input", "output"), *rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


def parquet_file(row, changes, rows, plain, group):
    """A table of equal rows; its texts may be no UTF-8."""
    made = {}
    for key, value in (row | dict(changes) or {"n": 1}).items():
        text = isinstance(value, str)
        made[key] = pa.array([value.encode("utf-8", "surrogatepass") if text else value] * rows)
        made[key] = made[key].cast(pa.binary()).view(pa.string()) if text else made[key]
    return table_bytes(pa.table(made), use_dictionary=not plain, row_group_size=group, compression="zstd")


def changes(values):
    return st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(values)), max_size=2)


JSON_ROW = st.builds(json_row, st.sampled_from(SHAPES), changes(FRAGMENTS), st.booleans())
JSON_ROWS = st.lists(st.one_of(JSON_ROW, JSON_ROW, JSON_ROW, st.sampled_from(FRAGMENTS)), max_size=4)
CSV_ROW = st.lists(st.sampled_from(TEXTS), min_size=3, max_size=3)
CSV_ODD = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=5)
FILES = {
    "json": JSON_ROWS.map(lambda rows: f"[{', '.join(rows)}]".encode()),
    "jsonl": JSON_ROWS.map(lambda rows: "\n".join(rows).encode()),
    "csv": st.lists(st.one_of(CSV_ROW, CSV_ROW, CSV_ODD), max_size=4).map(csv_file),
    "parquet": st.builds(
        parquet_file,
        st.sampled_from(SHAPES),
        changes([value for value in VALUES if value not in ({}, [{"role": 3}])]),  # Parquet has no empty struct
        st.integers(0, 5),
        st.booleans(),
        st.integers(1, 5),
    ),
}


STARTS = {"json": b"[", "jsonl": b"{", "csv": b'i"'}  # of files that are what they were written as


def rows_of(path, format):
    """How many rows the file has, by the plainest reader there is."""
    data = path.read_bytes()
    if format == "parquet":
        return pq.read_metadata(path).num_rows
    text = data.decode("utf-8-sig")
    if format == "csv":
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        return sum(1 for row in rows if any(cell.strip() for cell in row)) - 1
    if format == "json":
        return len(json.loads(text))
    return sum(1 for line in text.split("\n") if line.strip())


def is_dialogue(record):
    roles = [message["role"] for message in record.messages]
    for message in record.messages:
        assert set(message) <= {"role", "content", "train"}
        assert isinstance(message["content"], str) and len(message["content"]) <= 2 * LONGEST + 2
    assert roles[-2:] == ["user", "assistant"]
    assert set(roles[:-2]) <= {"system", "user", "assistant"}


def is_question(record):
    assert list(record.options) == list("ABCDE")[: len(record.options)]
    assert record.answer_idx in record.options
    assert all(isinstance(text, str) and text for text in [record.question, *record.options.values()])
    assert isinstance(record.meta_info, str)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=500, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_file_ends_in_records_or_in_one_user_error(tmp_path_factory, format, data):
    path = tmp_path_factory.getbasetemp() / f"any.{format}"
    content = broken(data.draw(FILES[format]), data.draw(BREAKS))
    path.write_bytes(data.draw(st.sampled_from([content, content, packed(content, "gzip"), packed(content, "zstd")])))
    plain = path.with_name("plain")
    plain.write_bytes(content)
    for records, check in (("dialogues", is_dialogue), ("test_questions", is_question)):
        try:
            found = read(path, records)
        except UserError as error:
            assert str(path) in str(error) or "count the options" in str(error)
            continue
        one_line = format == "jsonl" and b"\n" not in content.strip()  # an object, which may wrap the records
        if format == "parquet" or (content.lstrip(b"\xef\xbb\xbf \n")[:1] in STARTS[format] and not one_line):
            assert len(found) == rows_of(plain, format)
        for record in found:
            assert record.place.source == "here"
            assert record.place.row > 0
            if isinstance(record, Malformed):
                assert record.detail
            else:
                check(record)
