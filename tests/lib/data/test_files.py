"""Readers of data files: the same records from every format, and a plain word for whatever is wrong with a file."""

import csv
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
from stages.lib.data.preparation import parquet
from stages.lib.data.preparation.readers import READERS, read_rows
from stages.lib.data.preparation.records import LONGEST, Dialogue, Malformed, Question, read_dialogues, read_questions
from support.settings import ROOT

FORMATS = tuple(READERS)
ALPACA = [
    {"instruction": "Be a doctor.", "input": "I cough, a lot.\nWhy?", "output": 'Rest "well" é.', "extra": "x"},
    {"instruction": "What is flu?", "input": "", "output": "<|im_end|>", "extra": "y"},
]
CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
FOUR = {"A": "a", "B": "b", "C": "c", "D": "d"}
ASKED = {"question": "Q?", "options": FOUR, "answer_idx": "B", "answer": "b", "meta_info": "step1"}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


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
    data = io.BytesIO()
    pq.write_table(table, data, **options)
    return data.getvalue()


@pytest.fixture
def write(tmp_path):
    def written(format, data):
        path = tmp_path / f"data.{format}"
        path.write_bytes(data if isinstance(data, bytes) else encoded(format, data))
        return path

    return written


def dialogues(path, columns=None):
    return list(read_dialogues(path, "here", path.suffix[1:], columns or {}))


def questions(path, reduce_options=False):
    return list(read_questions(path, "here", path.suffix[1:], {}, reduce_options))


def details(records):
    return [record.detail if isinstance(record, Malformed) else None for record in records]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("format", FORMATS)
def test_each_format_gives_the_same_dialogues(write, format, mark):
    data = encoded(format, ALPACA)
    path = write(format, data if format == "parquet" else mark + data)
    assert dialogues(path) == [
        Dialogue("here", 1, [{"role": "system", "content": "Be a doctor."}, user("I cough, a lot.\nWhy?"),
                             assistant('Rest "well" é.')]),
        Dialogue("here", 2, [user("What is flu?"), assistant("<|im_end|>")]),
    ]  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_columns_by_other_names(write, format):
    row = {"input": "q", "answer_icliniq": "a", "answer_chatgpt": "b", "answer_chatdoctor": "c"}
    path = write(format, [row])
    assert dialogues(path, {"output": "answer_icliniq"}) == [Dialogue("here", 1, [user("q"), assistant("a")])]
    assert details(dialogues(path)) == ["`output` is missing, expected text"]


@pytest.mark.parametrize("format", ["json", "jsonl", "parquet"])
def test_each_format_gives_the_same_messages_and_questions(write, format):
    noted = [message | {"weight": 1} for message in CHAT]
    assert dialogues(write(format, [{"messages": noted}, {"messages": CHAT[1:]}])) == [
        Dialogue("here", 1, CHAT),
        Dialogue("here", 2, CHAT[1:]),
    ]
    listed = [{"key": key, "value": value} for key, value in FOUR.items()]
    for options in (FOUR, listed):
        path = write(format, [ASKED | {"options": options, "extra": 1}])
        assert questions(path) == [Question("here", 1, "Q?", FOUR, "B", "step1")]


def test_a_json_line_is_numbered_by_its_line_and_a_csv_record_is_not(write):
    row = json.dumps(ALPACA[0]).encode()
    assert [record.row for record in dialogues(write("jsonl", b"\n" + row + b"\r\n \n" + row))] == [2, 4]
    path = write("csv", b'input,output\r\n\r\n"a\nb\rc",d\r\ne,f\r\n')
    assert [(record.row, record.messages[0]["content"]) for record in dialogues(path)] == [(1, "a\nb\rc"), (2, "e")]


@pytest.mark.parametrize(
    ("right", "options", "answer_idx"),
    [("A", "abcd", "A"), ("B", "abcd", "B"), ("D", "abcd", "D"), ("E", "abce", "D")],
)
def test_five_options_become_four_only_by_the_setting(write, right, options, answer_idx):
    five = FOUR | {"E": "e"}
    path = write("jsonl", [ASKED | {"options": five, "answer_idx": right, "answer": five[right]}])
    assert details(questions(path)) == ["`options` are ['A', 'B', 'C', 'D', 'E'], expected exactly A, B, C and D"]
    reduced = dict(zip("ABCD", options, strict=True))
    assert questions(path, reduce_options=True) == [Question("here", 1, "Q?", reduced, answer_idx, "step1")]


def test_a_null_option_is_none_where_a_column_has_five(write):
    path = write("parquet", [ASKED, ASKED | {"options": FOUR | {"E": "e"}}])
    assert questions(path, reduce_options=True) == [Question("here", i, "Q?", FOUR, "B", "step1") for i in (1, 2)]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"options": {"A": "a", "B": "b", "C": "c"}}, "expected exactly A, B, C and D"),
        ({"options": {"A": "a", "B": "b", "C": "c", "E": "d"}}, "expected exactly A, B, C and D"),
        ({"options": FOUR | {"D": " "}}, "an option of `options` is empty"),
        ({"options": FOUR | {"D": 4}}, "`D` is int, expected text"),
        ({"options": ["a", "b", "c", "d"]}, "`options` is list, expected an object"),
        ({"options": [{"key": "A", "value": "a"}] * 4}, "expected each letter once"),
        ({"answer_idx": "E"}, "`answer_idx` is 'E', expected one of A, B, C, D"),
        ({"answer_idx": ["B"]}, "`answer_idx` is list, expected text"),
        ({"answer": "c"}, "`answer` is not the text of option B"),
        ({"question": " "}, "`question` is empty"),
        ({"question": None}, "`question` is missing"),
        ({"meta_info": 3}, "`meta_info` is int"),
    ],
)
def test_a_bad_question_says_what_is_wrong(write, change, detail):
    good, bad = questions(write("jsonl", [ASKED, ASKED | change]))
    assert isinstance(good, Question)
    assert (bad.source, bad.row) == ("here", 2)
    assert detail in bad.detail


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"input": "a"}, "`output` is missing, expected text"),
        ({"input": "a", "output": None}, "`output` is missing, expected text"),
        ({"input": "a", "output": 3}, "`output` is int, expected text"),
        ({"input": 0, "output": "b"}, "`input` is int, expected text"),
        ({"output": "b"}, "`instruction` and `input` are missing"),
        ({"input": "a" * (LONGEST + 1), "output": "b"}, "`input` is oversized: 200001 characters"),
        ({"messages": "hello"}, "`messages` is str, expected a list"),
        ({"messages": []}, "the roles of `messages` are [], expected user and assistant in turn"),
        ({"messages": CHAT[:2]}, "the roles of `messages` are ['system', 'user']"),
        ({"messages": [*CHAT, CHAT[0], *CHAT[1:]]}, "the roles of `messages`"),
        ({"messages": [3]}, "message 1 of `messages` is int"),
        ({"messages": [{"role": "user"}]}, "`content` is missing"),
        (3, "the record is int, expected an object"),
    ],
)
def test_a_bad_dialogue_says_what_is_wrong(write, row, detail):
    good, bad = dialogues(write("json", [ALPACA[0], row]))
    assert isinstance(good, Dialogue)
    assert (bad.source, bad.row) == ("here", 2)
    assert detail in bad.detail


def test_empty_text_and_surrogates_are_left_to_the_later_steps(write):
    empty, odd = dialogues(write("jsonl", b'{"input": "", "output": ""}\n{"input": "\\ud800", "output": "\\u0000"}'))
    assert empty.messages == [user(""), assistant("")]
    assert odd.messages == [user("\ud800"), assistant("\0")]


@pytest.mark.parametrize("row", ['{"input":"a","output":"b","input":"c"}', '{"output":"b","x":[{"y":{"z":1,"z":1}}]}'])
@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_a_key_that_stands_twice(write, format, row):
    path = write(format, (f"[{row}]" if format == "json" else row).encode())
    assert details(dialogues(path)) == ["a key stands twice, expected each once"]


def test_columns_of_csv_and_parquet_that_stand_twice_or_miss(write):
    path = write("csv", b"input,output\na,b\na\na,b,c\n")
    assert details(dialogues(path)) == [
        None,
        "the record has 1 columns, expected the header's 2",
        "the record has 3 columns, expected the header's 2",
    ]
    assert details(dialogues(write("csv", b"output,output\na,b\n"))) == ["a key stands twice, expected each once"]
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["output", "output"])
    assert details(dialogues(write("parquet", table_bytes(twice)))) == ["a key stands twice, expected each once"]


@pytest.mark.parametrize("short", [parquet.SHORT_GROUP, 0])
def test_one_bad_text_of_a_parquet_file_spoils_one_row(write, monkeypatch, short):
    monkeypatch.setattr(parquet, "SHORT_GROUP", short)
    texts = pa.array([b"a", b"\xff", None, b"\xc3\xa9"]).view(pa.string())
    days = pa.array([2**62] * 4, pa.timestamp("ms"))  # no day of Python's: not read, so no reason to stop
    path = write("parquet", table_bytes(pa.table({"input": texts, "output": texts, "day": days, "size": [1.5] * 4})))
    assert details(dialogues(path)) == [
        None,
        "`output` is not UTF-8 text: invalid start byte at byte 0",
        "`output` is missing, expected text",
        None,
    ]
    assert details(dialogues(path, {"output": "day"}))[0] == "`day` is TimestampScalar, expected text"
    assert details(dialogues(path, {"output": "size"}))[0] == "`size` is float, expected text"


CUT = encoded("parquet", ALPACA)
BROKEN = [
    *((format, b"", "is empty, expected records as") for format in FORMATS),
    (
        "json",
        b'[\n {"output": "b"},\n {"input": "a" "output": "b"}]',
        ":3: not valid JSON: Expecting ',' delimiter (co",
    ),
    ("json", b'[\n {"input": "a', ":2: not valid JSON: Unterminated string"),
    ("json", b'{"input": "a"}', "the file is dict, expected a JSON array"),
    ("json", b"[\n" + b"[" * 99999, ": JSON is nested too deeply"),
    ("json", b"[" + b"9" * 5000 + b"]", ": a number is too long"),
    ("json", b'[\n"\xff"]', ":2: not UTF-8 text: invalid start byte 0xff"),
    ("jsonl", b'{"output": "b"}\n{"output": \n', ":2: not valid JSON: Expecting value (column 12)"),
    ("jsonl", b'{"output": "b"}\n"' + "é".encode("latin-1") + b'"\n', ":2: not UTF-8 text"),
    ("jsonl", b'{"output": "b"}\n' + b"[" * 99999, ":2: JSON is nested too deeply"),
    ("jsonl", b'{"output": "b"}\n' + b"9" * 5000, ":2: a number is too long"),
    ("jsonl", b"\n \n", "blank lines only"),
    ("jsonl", '{"output": "b"}'.encode("utf-16"), ":1: not UTF-8 text"),
    ("csv", b'input,output\na,b\n"c,d\ne,f\n', ":3: the record is not valid CSV: unexpected end of data"),
    ("csv", b'input,output\n"a"b,c\n', ":2: the record is not valid CSV"),
    ("csv", b"input,output\na,b\nc,\xff\n", ":3: not UTF-8 text"),
    ("csv", b"\n\n", "blank lines only"),
    ("parquet", b"PAR1", ": not valid Parquet after row 0"),
    ("parquet", CUT[:-9], ": not valid Parquet after row 0"),
    ("parquet", CUT[4:], ": not valid Parquet after row 0"),
    ("parquet", table_bytes(pa.table({})), "declares 0 columns"),
]


@pytest.mark.parametrize(("format", "data", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_named_with_its_row(write, format, data, message):
    path = write(format, data)
    with pytest.raises(UserError) as error:
        dialogues(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_file_and_a_folder_are_named(tmp_path, format):
    for path in (tmp_path / f"none.{format}", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            list(read_rows(path, format))


@pytest.mark.parametrize(
    ("format", "data"),
    [("json", b" []"), ("csv", b"input,output"), ("parquet", table_bytes(pa.table({"output": [""]})[:0]))],
)
def test_a_file_of_no_rows_has_no_records(write, format, data):
    assert dialogues(write(format, data)) == []


def test_an_unknown_format_is_named(tmp_path):
    with pytest.raises(UserError, match="'xml', expected one of json, jsonl, csv, parquet"):
        list(read_rows(tmp_path / "data.xml", "xml"))


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_a_line_of_50_megabytes_is_one_malformed_row(write, format):
    long, short = {"input": "a", "output": "b" * 50_000_000}, {"input": "a", "output": "b"}
    first, second = dialogues(write(format, [long, short]))
    assert first.detail == "`output` is oversized: 50000000 characters, expected at most 200000"
    assert isinstance(second, Dialogue)


LAUGHS = """
import re, sys
from pathlib import Path
from stages.lib.data.preparation.records import read_dialogues
print(sum("oversized" in record.detail for record in read_dialogues(Path(sys.argv[1]), "here", "parquet", {})))
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_a_megabyte_that_a_small_file_repeats_a_million_times_is_read_in_bounded_memory(write):
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["a" * 2**20]))
    path = write("parquet", table_bytes(pa.table({"output": column})))
    assert path.stat().st_size < 2**20
    done = subprocess.run([sys.executable, "-c", LAUGHS, path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 1_000_000
    assert megabytes < 300


def test_a_text_that_a_file_repeats_is_in_memory_once(write):
    chat = [user("a" * LONGEST), assistant("b" * LONGEST)]
    path = write("parquet", table_bytes(pa.table({"messages": [chat] * 1000}), row_group_size=100_000))
    assert len({id(message["content"]) for record in dialogues(path) for message in record.messages}) <= 2


def test_a_parquet_file_that_unpacks_to_far_more_than_its_size_is_refused(write, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_BYTES", 2**20)
    table = pa.table({"output": ["a" * 100_000] * 100, "input": ["a"] * 100})
    with pytest.raises(UserError, match=r"unpacks to 1000\d+ bytes or more, expected at most 1048576 "):
        dialogues(write("parquet", table_bytes(table, use_dictionary=False, compression="zstd")))
    path = write("parquet", table_bytes(table, compression="zstd"))
    assert len(dialogues(path)) == 100  # a dictionary: the text is there once
    monkeypatch.setattr(parquet, "SHORT_GROUP", 0)  # and where it would not be kept once
    with pytest.raises(UserError, match="unpacks to"):
        dialogues(path)


def test_a_parquet_file_of_more_rows_than_anyone_has_is_refused(write, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_ROWS", 1)
    with pytest.raises(UserError, match="declares 4 columns and 2 rows, expected some columns and at most 1 rows"):
        dialogues(write("parquet", ALPACA))


# Below: files of hypothesis, made of values that do or do not belong, then broken at random.

KEYS = ("instruction", "input", "output", "messages", "question", "options", "answer_idx", "answer", "meta_info")
TEXTS = ("", "a", "B", "é 👩‍⚕️", " \n", "<|im_end|>", "\0", "\ud800", '"', ",", "x" * 3000, "x" * (LONGEST + 1))
VALUES = (*TEXTS, None, 3, 1.5, True, [], ["a", None], {}, CHAT, CHAT[:2], [{"role": 3}], FOUR, FOUR | {"E": "e"},
          [{"key": "A", "value": None}], {"A": {"A": None}})  # fmt: skip
FRAGMENTS = (*map(json.dumps, VALUES), "NaN", '{"a": 1, "a": 2}', "[" * 2000 + "null" + "]" * 2000, "9" * 5000,
             '[{"role": "user", "role": "user"}]')  # fmt: skip
ROWS = ({"input": "q", "output": "a"}, ALPACA[0], {"messages": CHAT}, ASKED, {})
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


JSON_ROW = st.builds(json_row, st.sampled_from(ROWS), changes(FRAGMENTS), st.booleans())
JSON_ROWS = st.lists(st.one_of(JSON_ROW, JSON_ROW, JSON_ROW, st.sampled_from(FRAGMENTS)), max_size=4)
CSV_ROW = st.lists(st.sampled_from(TEXTS), min_size=3, max_size=3)
CSV_ODD = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=5)
FILES = {
    "json": JSON_ROWS.map(lambda rows: f"[{', '.join(rows)}]".encode()),
    "jsonl": JSON_ROWS.map(lambda rows: "\n".join(rows).encode()),
    "csv": st.lists(st.one_of(CSV_ROW, CSV_ROW, CSV_ODD), max_size=4).map(csv_file),
    "parquet": st.builds(
        parquet_file,
        st.sampled_from(ROWS),
        changes([value for value in VALUES if value not in ({}, [{"role": 3}])]),  # Parquet has no empty struct
        st.integers(0, 5),
        st.booleans(),
        st.integers(1, 5),
    ),
}


def rows_of(path):
    """How many rows the file has, by the plainest reader there is."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        return pq.read_metadata(path).num_rows
    text = data.decode("utf-8-sig")
    if path.suffix == ".json":
        return len(json.loads(text))
    if path.suffix == ".jsonl":
        return sum(1 for line in text.split("\n") if line.strip())
    return sum(1 for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row) - 1


def is_dialogue(record):
    roles = [message["role"] for message in record.messages]
    assert all(set(message) == {"role", "content"} for message in record.messages)
    assert all(
        isinstance(message["content"], str) and len(message["content"]) <= LONGEST for message in record.messages
    )
    assert roles[-2:] == ["user", "assistant"]
    assert set(roles[:-2]) <= {"system", "user", "assistant"}


def is_question(record):
    assert list(record.options) == list("ABCD")
    assert record.answer_idx in record.options
    assert all(isinstance(text, str) and text for text in [record.question, *record.options.values()])
    assert isinstance(record.meta_info, str)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=500, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_file_ends_in_records_or_in_one_user_error(tmp_path_factory, format, data):
    path = tmp_path_factory.getbasetemp() / f"any.{format}"
    path.write_bytes(broken(data.draw(FILES[format]), data.draw(BREAKS)))
    for read, check in ((dialogues, is_dialogue), (lambda path: questions(path, reduce_options=True), is_question)):
        try:
            records = read(path)
        except UserError as error:
            assert str(path) in str(error)
            continue
        assert len(records) == rows_of(path)
        for record in records:
            assert record.source == "here"
            assert record.row > 0
            if isinstance(record, Malformed):
                assert record.detail
            else:
                check(record)
