"""Exam questions in the shapes that people have them: options, the right one, and what two readings could mean."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.lib.core.errors import UserError
from stages.lib.data.preparation.reading.records import Malformed, Question, Seen
from support.files import details, encoded, read

Q = "Which drug first?"
TEXTS = ["aspirin", "heparin", "insulin", "morphine"]
FOUR = dict(zip("ABCD", TEXTS, strict=True))
ASKED = {"question": Q, "options": FOUR, "answer_idx": "B", "answer": "heparin", "meta_info": "step1"}
HELD = {"answer_idx", "answer", "meta_info"}
MEDMCQA = {"question": Q, "opa": "aspirin", "opb": "heparin", "opc": "insulin", "opd": "morphine"}


def written(tmp_path, rows):
    (path := tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(tmp_path, *rows, seen=None, **options):
    return read(written(tmp_path, rows), "test_questions", seen=seen, **options)


def asked(**answers):
    return {key: value for key, value in ASKED.items() if key not in HELD} | answers


@pytest.mark.parametrize(
    "row",
    [
        ASKED,
        asked(answer_idx=" b "), asked(answer="(B)"), asked(answer="b."), asked(answer="Heparin "),
        asked(answer="B. heparin"), asked(answer=["heparin"]), asked(answerKey="B"),
        asked(options=TEXTS, answer="B"),
        asked(options=[*TEXTS, None], answer="B"), asked(options=json.dumps(FOUR), answer="B"),
        asked(options={"a": "aspirin", "b": "heparin", "c": "insulin", "d": "morphine", "e": None}, answer="B"),
        asked(options=[{"key": key, "value": value} for key, value in FOUR.items()], answer="B"),
        asked(options={"text": TEXTS, "label": ["A", "B", "C", "D"]}, answer="B"),
        asked(options={"text": TEXTS, "label": ["1", "2", "3", "4"]}, answer="2"),
        {"Question": Q, "A": "aspirin", "B": "heparin", "C": "insulin", "D": "morphine", "Answer": "B"},
        {"question": Q, **{f"Option {key}": value for key, value in FOUR.items()}, "correct_answer": "heparin"},
        {"question": Q, **{f"option{i}": text for i, text in enumerate(TEXTS, start=1)}, "answer": "heparin"},
        asked(options=[f"{key}. {text}" for key, text in FOUR.items()], answer="heparin"),
        asked(options={f"option_{key}": text for key, text in FOUR.items()}, answer="Option B"),
        asked(options=str(FOUR), answer_idx="", answer="['heparin']"),
        asked(options=[{"id": key, "text": text} for key, text in FOUR.items()], answer="[B]", meta_info=2020),
        {"sent1": "Which drug", "sent2": "first?", **{f"ending{i}": text for i, text in enumerate(TEXTS)}, "label": 1},
        {"data": {"Question": Q, "Options": FOUR, "Correct Option": "B", "Correct Answer": "heparin"}, "id": "1"},
        {"doc_id": 0, "doc": {"question": Q, "choices": TEXTS, "answer": "heparin"}, "target": "1", "resps": [[]]},
    ],
)  # fmt: skip
def test_each_shape_of_options_and_answer_is_read(tmp_path, row):
    (record,) = questions(tmp_path, row)
    assert isinstance(record, Question), record.detail
    assert (record.question, record.options, record.answer_idx) == (Q, FOUR, "B")


@pytest.mark.parametrize(
    ("numbers", "right", "counted"),
    [([0, 1, 2, 3], "ABCD", 0), ([1, 2, 3, 4], "ABCD", 1), (["1", "0"], "BA", 0), ([3.0, 4.0], "CD", 1)],
)
def test_numbers_count_from_where_the_file_tells(tmp_path, numbers, right, counted):
    seen = Seen()
    records = questions(tmp_path, *({**MEDMCQA, "cop": number} for number in numbers), seen=seen)
    assert "".join(record.answer_idx for record in records) == right
    assert seen.shapes == {f"options in `opa`, `opb`, `opc`, `opd`, answer in `cop` counted from {counted}": len(right)}


def test_numbers_that_could_count_from_0_or_from_1_are_refused_until_it_is_said(tmp_path):
    rows = [{**MEDMCQA, "cop": number} for number in (1, 2, 3)]
    with pytest.raises(UserError, match=r"numbers \[1, 2, 3\].*from 0 or from 1; say it with `-S data.sources.0.first"):
        questions(tmp_path, *rows)
    for first, right in ((0, "BCD"), (1, "ABC")):
        assert "".join(one.answer_idx for one in questions(tmp_path, *rows, first_option=first)) == right
    with pytest.raises(UserError, match="such as 0 count the options from 0, others such as 4 from 1"):
        questions(tmp_path, *rows, {**MEDMCQA, "cop": 0}, {**MEDMCQA, "cop": 4})
    # The answer's text beside one of them tells.
    told = questions(tmp_path, *rows, {**MEDMCQA, "cop": 1, "answer": "aspirin"})
    assert "".join(one.answer_idx for one in told) == "ABCA"
    assert details(questions(tmp_path, {**MEDMCQA, "cop": 0}, {**MEDMCQA, "cop": -1}))[1].startswith("`cop` is -1")


def test_a_number_is_a_position_even_where_options_are_numbers(tmp_path):
    counts = {"opa": "1", "opb": "2", "opc": "3", "opd": "4"}
    first, second = questions(tmp_path, {**MEDMCQA, "cop": "0.0"}, {**MEDMCQA, **counts, "cop": "3.0"})
    assert (first.answer_idx, second.answer_idx) == ("A", "D")
    listed = {"question": Q, "choices": ["4", "3", "2", "1"], "answer": "3"}
    assert (
        "may be any of B, D; expected the letter; columns={answer_idx: answer} says that it is"
        in details(questions(tmp_path, listed, asked(options=TEXTS, answer=0)))[0]
    )
    assert (
        questions(tmp_path, listed, asked(options=TEXTS, answer=0), columns={"answer_idx": "answer"})[0].answer_idx
        == "D"
    )
    named = {f"option{i}": text for i, text in enumerate(TEXTS, start=1)}  # names say nothing of how answers count
    with pytest.raises(UserError, match="from 0 or from 1"):
        questions(tmp_path, {"question": Q, **named, "answer": 2})


def test_a_letter_is_the_letter_where_options_are_letters(tmp_path):
    groups = {"question": Q, "options": ["O", "A", "B", "AB"]}
    assert questions(tmp_path, groups | {"answer_idx": "A"})[0].answer_idx == "A"
    assert "may be any of A, B; expected the letter" in details(questions(tmp_path, groups | {"answer": "A"}))[0]


def test_pubmedqa_and_bigbio_have_three_options_and_a_context(tmp_path):
    context = {"contexts": ["Aim.", "Result."], "labels": ["A", "R"]}
    pubmed = {"pubid": 1, "question": "Does it?", "context": context, "long_answer": "It does.", "final_decision": "no"}
    bigbio = {"question": "Does it?", "choices": ["yes", "no", "maybe"], "context": "Aim.\nResult.", "answer": ["no"]}
    seen = Seen()
    spelled = pubmed | {"context": json.dumps(context)}  # in CSV
    for record in questions(tmp_path, pubmed, bigbio, spelled, seen=seen):
        assert record.question == "Aim.\nResult.\n\nDoes it?"
        assert record.options == {"A": "yes", "B": "no", "C": "maybe"}
        assert record.answer_idx == "B"
    assert seen.unread == {"pubid": 2, "long_answer": 2, "context.labels": 2}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"options": {"A": "a", "B": "b", "D": "d"}}, "expected two to five of A, B, C, D and E, without a gap"),
        ({"options": {"A": "heparin"}}, "expected two to five"),
        ({"options": list("abcdef")}, "`options` are 6, expected two to five"),
        ({"options": FOUR | {"D": " "}}, "an option of `options` is empty"),
        ({"options": FOUR | {"a": "x"}}, "expected each once"),
        ({"options": [{"key": "A", "value": "a"}] * 4}, "expected each letter once"),
        ({"options": "a, b"}, "`options` is str, expected an object or a list"),
        ({"options": None}, "`options` is missing, expected two to five options"),
        ({"answer_idx": "E"}, "`answer_idx` is 'E', expected one of A, B, C, D, an option's text or its number"),
        ({"answer_idx": ["B", "C"]}, "`answer_idx` is list, expected text"),
        ({"answer_idx": None, "answer": None}, "`answer_idx` is missing"),
        ({"answer": "insulin"}, "`answer_idx` is 'B', `answer` is 'insulin': not the same option"),
        ({"answer_idx": None, "options": FOUR | {"D": "heparin"}}, "`answer` is 'heparin', which may be any of B, D"),
        ({"label": 1}, "`answer_idx` and `label` may each be the answer_idx; choose one: columns={answer_idx: answer"),
        ({"question": " "}, "`question` is empty"),
        ({"question": None}, "`question` is missing"),
        ({"images": ["a.png"]}, "the row has `images`, which is not read"),
        ({"context": "{'contexts': ['a'], 'x': array(['y'])}"}, "`context` spells a list or object that is no JSON"),
        ({"context": {"labels": ["x"]}}, "`context` is {'labels': ['x']}, expected text or a list of texts"),
    ],
)
def test_a_bad_question_says_what_is_wrong(tmp_path, change, detail):
    good, bad = questions(tmp_path, ASKED, ASKED | change)
    assert isinstance(good, Question)
    assert isinstance(bad, Malformed)
    assert (bad.place.source, bad.place.row) == ("here", 2)
    assert detail in bad.detail


def test_a_null_option_is_none_where_a_column_of_parquet_has_five(tmp_path):
    five = FOUR | {"E": "quinine"}
    (path := tmp_path / "rows.parquet").write_bytes(encoded("parquet", [ASKED, ASKED | {"options": five}]))
    assert [record.options for record in read(path, "test_questions")] == [FOUR, five]


def test_options_as_a_map_of_parquet(tmp_path):
    options = pa.array([list(FOUR.items()), None, list(FOUR.items())], pa.map_(pa.string(), pa.string()))
    table = pa.table({"question": [Q] * 3, "options": options, "answer": ["B"] * 3})
    pq.write_table(table, path := tmp_path / "map.parquet", row_group_size=2)
    first, bad, last = read(path, "test_questions")
    assert first.options == last.options == FOUR
    assert "`options` is missing" in bad.detail
