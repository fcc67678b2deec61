"""Dialogues in the shapes that people have them: what becomes a message, what is refused, what is named as unread."""

import json
import math

import pytest

from stages.lib.data.preparation.reading.records import LONGEST, Dialogue, Seen
from support.files import details, encoded, read, said

Q, A = "What helps against a cough?", "Honey and rest."
CHAT = [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]
PLAIN = [("user", Q), ("assistant", A)]
SYSTEM = ("system", "Be a doctor.")
GOOD = {"input": "q", "output": "a"}
BEFORE = [("user", "Hello?"), ("assistant", "Yes.")]


@pytest.fixture
def read_one(tmp_path):
    """The record of a file's second row, behind a good one, and what was seen of the file."""

    def reading(row, columns=None):
        path, seen = tmp_path / "rows.jsonl", Seen()
        path.write_text("".join(json.dumps(one) + "\n" for one in (GOOD, row)))
        return read(path, columns=columns, seen=seen)[1], seen

    return reading


@pytest.mark.parametrize(
    ("row", "messages", "shape"),
    [
        ({"instruction": Q, "output": A}, PLAIN, "Alpaca"),
        ({"instruction": Q, "input": "", "output": A}, PLAIN, "Alpaca"),
        ({"instruction": "Be a doctor.", "input": Q, "output": A}, [SYSTEM, *PLAIN], "Alpaca"),
        ({"instruction": "Be a doctor.", " Input ": Q, "OUTPUT": A}, [SYSTEM, *PLAIN], "Alpaca"),
        ({"instruction": "Be a doctor.", "question": Q, "output": A}, [SYSTEM, *PLAIN],
         "instruction / question / output"),
        ({"instruction": Q, "input": "", "output": A, "system": "Be a doctor.", "history": [["Hello?", "Yes."]]},
         [SYSTEM, *BEFORE, *PLAIN], "Alpaca, with history, with system"),
        ({"input": Q, "output": A, "history": [{"role": role, "content": text} for role, text in BEFORE]},
         [*BEFORE, *PLAIN], "Alpaca, with history"),
        ({"messages": json.dumps(CHAT)}, PLAIN, "messages"),
        ({"messages": str(CHAT)}, PLAIN, "messages"),
        ({"prompt": json.dumps(CHAT[:1]), "completion": json.dumps(CHAT[1:])}, PLAIN,
         "prompt and completion, lists of messages"),
        ({"conversation": [{"system": "Be a doctor.", "input": Q, "output": A}]}, [SYSTEM, *PLAIN], "conversation"),
        ({"conversation": [{"human": "Hello?", "assistant": "Yes."}, [Q, A]]}, [*BEFORE, *PLAIN], "conversation"),
        ({"messages": {"role": ["user", "assistant"], "content": [Q, A]}}, PLAIN, "messages"),
        ({"messages": [{"role": "system", "content": " "}, *CHAT]}, PLAIN, "messages"),
        ({"instruction": Q, "output": A, "history": "", "messages": ""}, PLAIN, "Alpaca"),
        ({"instruction": Q, "output": A, "history": []}, PLAIN, "Alpaca"),
        ({"instruction": Q, "context": "Allergic.", "response": A}, [("user", f"{Q}\n\nAllergic."), ("assistant", A)],
         "instruction / response, with context"),
        ({"instruction": "Be kind.", "input": Q, "output": A, "system": "Be a doctor."},
         [("system", "Be a doctor.\n\nBe kind."), *PLAIN], "Alpaca, with system"),
        ({"prompt": Q, "completion": A}, PLAIN, "prompt / completion"),
        ({"Question": Q, "Answer": A}, PLAIN, "Question / Answer"),
        ({"Patient": Q, "Doctor": A}, PLAIN, "Patient / Doctor"),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, PLAIN, "prompt and completion, lists of messages"),
        ({"messages": CHAT}, PLAIN, "messages"),
        ({"messages": CHAT, "system": "Be a doctor."}, [SYSTEM, *PLAIN], "messages, with system"),
        ({"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]}, PLAIN, "ShareGPT"),
        ({"messages": [{"role": " User", "content": Q}, {"role": "bot", "content": A}]}, PLAIN, "messages"),
        ({"messages": [CHAT[0] | {"content": [{"type": "text", "text": "What helps"}, "against it?"]}, CHAT[1]]},
         [("user", "What helps\nagainst it?"), PLAIN[1]], "messages"),
        ({"input": 5, "output": A, "note": math.nan}, [("user", "5"), ("assistant", A)], "Alpaca"),
        ({"instruction": Q, "input": math.nan, "output": A}, PLAIN, "Alpaca"),
    ],
)  # fmt: skip
def test_each_shape_is_read_and_named(read_one, row, messages, shape):
    record, seen = read_one(row)
    assert said([record]) == [messages]
    assert seen.shapes == ({shape: 2} if shape == "Alpaca" else {shape: 1, "Alpaca": 1})
    assert not seen.unread and not seen.unread_in_messages


@pytest.mark.parametrize("flag", [{"train": False}, {"weight": 0}, {"Weight": 0.0}, {"loss": "false"}])
def test_a_message_that_says_so_is_not_trained(read_one, flag):
    again = [CHAT[0], CHAT[1] | {"weight": 1, "train": True}]
    record, seen = read_one({"messages": [CHAT[0], CHAT[1] | flag, *again]})
    assert said([record]) == [[PLAIN[0], (*PLAIN[1], False), *PLAIN]]
    assert not seen.unread_in_messages
    assert "may be trained" in details([read_one({"messages": [CHAT[0], CHAT[1] | flag]})[0]])[0]


def test_what_nothing_is_read_from_is_named(read_one):
    messages = [CHAT[0] | {"train": True, "name": "Ann"}, CHAT[1] | {"name": None, "date": "May"}]
    _, seen = read_one({"messages": messages, "prompt": Q, "source": "x", "tags": [], "note": " "})
    assert seen.unread == {"prompt": 1, "source": 1}
    assert seen.unread_in_messages == {"train (user)": 1, "name (user)": 1, "date": 1}


def test_a_last_question_that_nobody_answers_is_left_out_and_named(read_one):
    record, seen = read_one({"messages": [*CHAT, CHAT[0]]})
    assert said([record]) == [PLAIN]
    assert seen.unread_in_messages == {"a last message that nobody answers": 1}


def test_columns_overrides_what_is_recognised(read_one):
    row = {"input": Q, "question": "Other?", "answer_icliniq": A, "output": "b"}
    assert "`input` and `question` may each be the input" in details([read_one(row)[0]])[0]
    record, seen = read_one(row, {"input": "input", "output": "answer_icliniq"})
    assert said([record]) == [PLAIN]
    assert seen.unread == {"question": 1, "output": 2}  # of the good row too


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"input": "a"}, "`output` is missing, expected text"),
        ({"input": "a", "output": None}, "`output` is missing, expected text"),
        ({"input": "a", "output": math.nan}, "`output` is missing, expected text"),
        ({"input": "a", "output": True}, "`output` is bool, expected text"),
        ({"output": "b"}, "`instruction` and `input` are missing"),
        ({"input": "a" * (LONGEST + 1), "output": "b"}, "`input` is oversized: 200001 characters"),
        ({"input": "a", "output": "b", "history": ["c", "d"]}, "`history` is ['c', 'd'], expected a list of"),
        ({"input": "a", "output": "b", "history": [["c", None]]}, "`history` has null for a text"),
        ({"input": "a", "output": "b", "train": False}, "the row has `train`, which is not read"),
        ({"messages": CHAT, "images": ["a.png"]}, "the row has `images`, which is not read"),
        ({"question": "a", "answer": "b", "options": ["b", "c"]}, "an exam question with options"),
        ({"input": "a", "output": "b", "response": "c"}, "`output` and `response` may each be the output"),
        ({"messages": "hello"}, "`messages` is str, expected a list"),
        ({"messages": CHAT[:1]}, "the roles of `messages` are ['user']"),
        ({"messages": [*CHAT, {"role": "system", "content": "s"}, *CHAT]}, "the roles of `messages`"),
        ({"messages": [3]}, "message 1 of `messages` is int"),
        ({"messages": [{"role": "user"}]}, "`content` is missing"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "`role` is 'tool', expected one of system, developer, user, h",
        ),
        ({"messages": [CHAT[0], CHAT[1] | {"weight": 0.5}]}, "`weight` is 0.5, expected true or false"),
        ({"messages": [CHAT[0], CHAT[1] | {"Loss_Mask": [1]}]}, "a message has `Loss_Mask`, which is not read"),
        ({"messages": [CHAT[0], CHAT[1] | {"label": True}]}, "a message has `label`, which is not read"),
        ({"messages": [CHAT[0] | {"text": "x"}, CHAT[1]]}, "`content` and `text` of a message may each be its content"),
        (
            {"instruction": Q, "input": "", "output": A, "prompt": f"{Q} {A}"},
            "`prompt` and `input` may each be the inp",
        ),
        ({"messages": [CHAT[0], CHAT[1] | {"tool_calls": [{"id": 1}]}]}, "a message has `tool_calls`"),
        ({"messages": [CHAT[0] | {"content": [{"type": "image_url"}]}, CHAT[1]]}, "is 'image_url', expected texts"),
        (3, "the record is int, expected an object"),
    ],
)
def test_a_bad_dialogue_says_what_is_wrong(read_one, row, detail):
    record, _ = read_one(row)
    assert (record.place.source, record.place.row) == ("here", 2)
    assert detail in record.detail


def test_empty_text_and_surrogates_are_left_to_the_later_steps(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"input": "", "output": ""}\n{"input": "\\ud800", "output": "\\u0000"}')
    assert said(read(path)) == [[("user", ""), ("assistant", "")], [("user", "\ud800"), ("assistant", "\0")]]


@pytest.mark.parametrize("format", ["json", "jsonl", "parquet"])
def test_each_format_gives_the_same_messages(tmp_path, format):
    noted = [message | {"weight": 1} for message in CHAT]
    (path := tmp_path / f"data.{format}").write_bytes(encoded(format, [{"messages": noted}, {"messages": CHAT}]))
    records = read(path)
    assert said(records) == [PLAIN, PLAIN]
    assert all(isinstance(record, Dialogue) for record in records)
