"""fetch and prepare: what goes in, what comes out, and what is refused."""

import json
from dataclasses import replace

import pytest

from conftest import ROOT
from stages import fetch, prepare
from stages.lib.deduplicate import near_duplicates
from stages.lib.errors import UserError
from stages.lib.files import read_json, read_jsonl, sha256
from stages.lib.normalise import normalise
from stages.lib.records import read_dialogues, read_questions
from stages.lib.sample import dialogues, questions
from stages.lib.schema import Data, Prepare, Source
from stages.lib.split import content_hash, split_of

SETTINGS = Prepare(keep_instruction=False, min_words=2, ngram=3, threshold=0.8, num_perm=128, validation=0.1, test=0.1)
NASTY = [
    "  a\u00a0\u2003b\r\nc ",
    "e\u0301t\u00e9",
    "zero\u200bwidth\ufeff",
    "x\n \n\n \ny",
    "tab\tbell\x07",
    "\u2028line",
    "👩‍⚕️",
    "",
]


def raw_folder(folder, talks, train, test):
    folder.mkdir(exist_ok=True)
    (folder / "chatdoctor.json").write_text(json.dumps(talks, indent=1))
    for name, rows in (("medqa_train", train), ("medqa_test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def corpus():
    asked = questions(ROOT / "data/sample", 60, seed=4)
    return dialogues(ROOT / "data/sample", 200, seed=4), asked[:40], asked[40:]


def run_prepare(folder, *parts):
    prepare.main(SETTINGS, raw_folder(folder / "raw", *parts), folder / "prepared", folder / "data.json")
    names = ("train", "validation", "test", "medqa_test", "dropped")
    return {name: [row for _, row in read_jsonl(folder / f"prepared/{name}.jsonl")] for name in names}


def test_every_record_is_kept_once_or_dropped_with_its_reason(corpus, tmp_path):
    talks, train, test = corpus
    near = talks[1] | {"output": talks[1]["output"] + " Rest."}
    copy = talks[2] | {"input": talks[2]["input"].upper()}
    out = run_prepare(tmp_path, [*talks, near, copy, talks[0] | {"output": "Ok"}], [*train, test[0]], test)
    assert [(row["source"], row["reason"], row.get("duplicate_of", {}).get("row")) for row in out["dropped"]] == [
        ("chatdoctor", "near_duplicate", 2),
        ("chatdoctor", "exact_duplicate", 3),
        ("chatdoctor", "too_short", None),
        ("medqa_train", "exact_duplicate", 1),
    ]
    assert len(out["medqa_test"]) == len(test)
    kept = [row for name in ("train", "validation", "test") for row in out[name]]
    assert len(kept) == len(talks) + len(train)
    assert len({row["id"] for row in kept}) == len(kept)
    assert all(row["source"] != "medqa_train" for name in ("validation", "test") for row in out[name])
    counts = read_json(tmp_path / "data.json")
    assert counts["chatdoctor"] == {"read": 203, "exact_duplicate": 1, "near_duplicate": 1, "too_short": 1, "kept": 200}


def test_the_instruction_is_a_system_message_only_where_asked_for(corpus, tmp_path):
    roles = {}
    for keep in (False, True):
        settings = replace(SETTINGS, keep_instruction=keep)
        prepare.main(settings, raw_folder(tmp_path / "raw", *corpus), tmp_path / "prepared", tmp_path / "data.json")
        _, row = next(read_jsonl(tmp_path / "prepared/test.jsonl"))
        roles[keep] = [message["role"] for message in row["messages"]]
    assert roles == {False: ["user", "assistant"], True: ["system", "user", "assistant"]}


def test_adding_rows_moves_none_between_splits(corpus, tmp_path):
    talks, train, test = corpus
    few = run_prepare(tmp_path, talks[:120], train, test)
    many = run_prepare(tmp_path, talks[120:] + talks[:120], train, test)
    for name in ("train", "validation", "test"):
        assert {row["id"] for row in few[name]} <= {row["id"] for row in many[name]}


def test_split_shares():
    splits = [split_of(content_hash(str(i)), 0.05, 0.05) for i in range(20000)]
    assert abs(splits.count("test") / 20000 - 0.05) < 0.006
    assert abs(splits.count("validation") / 20000 - 0.05) < 0.006


def test_near_duplicates_against_planted_truth():
    import random

    draw = random.Random(1)
    words = [f"w{i}" for i in range(400)]
    texts = [" ".join(draw.choices(words, k=40)) for _ in range(300)]
    planted = {}
    for i in range(0, 60, 3):
        planted[len(texts)] = i
        texts.append(texts[i] + " extra")
    changed = texts[0].split()
    changed[::4] = ["other"] * 10  # a quarter of the words: far below the threshold
    texts.append(" ".join(changed))
    assert near_duplicates(texts, ngram=3, threshold=0.8, num_perm=128) == planted


@pytest.mark.parametrize("text", NASTY)
def test_normalise_is_idempotent_and_leaves_no_odd_space(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()
    assert not set(once) & set("\u00a0\u2003\u200b\ufeff\u2028\t\r\x07")


def test_normalise_keeps_what_is_text():
    assert normalise("e\u0301te\u0301  39.5 °C\r\n\r\n\r\nok") == "été 39.5 °C\n\nok"


GOOD = {"question": "Q?", "options": {"A": "a", "B": "b", "C": "c", "D": "d"}, "answer_idx": "B", "answer": "b"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"A": "a", "B": "b", "C": "c"}}, "expected exactly A, B, C and D"),
        ({"options": {"A": "a", "B": "b", "C": "c", "E": "d"}}, "expected exactly A, B, C and D"),
        ({"options": {"A": "a", "B": "b", "C": "c", "D": ""}}, "not empty"),
        ({"answer_idx": "E"}, "`answer_idx` is 'E'"),
        ({"answer": "c"}, "not the text of option B"),
        ({"question": " "}, "`question` is missing or empty"),
    ],
)
def test_a_bad_question_is_named_with_file_and_line(tmp_path, change, message):
    path = tmp_path / "medqa_test.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(UserError, match=message) as error:
        read_questions(path)
    assert str(error.value).startswith(f"{path}:3:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n {"input": "a", "output": "b"},\n {"input": "a"}\n]', ":3: record 2 has no `output`"),
        ('[\n {"input": "a", "output": "b"},\n {"output": "a"}\n]', ":3: record 2 has no `input`"),
        ('[\n {"input": "a", "output": 3}]', ":2: record 1: `output` is int"),
        ('[\n {"input": "a" "output": "b"}]', ":2: not valid JSON"),
        ('{"input": "a"}', "expected a JSON array"),
        ("[3]", "expected an object"),
    ],
)
def test_a_bad_dialogue_is_named_with_file_and_line(tmp_path, text, message):
    path = tmp_path / "chatdoctor.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_dialogues(path)
    assert message in str(error.value)


def source(name, **changes):
    plain = {"kind": "file", "path": "", "sha256": "", "repo": "", "revision": "", "licence": "", "count": 0}
    return Source(name=name, **plain | changes)


def data(*sources):
    return Data("test", True, None, None, None, list(sources), SETTINGS)


def test_fetch_copies_a_pinned_file_and_refuses_a_changed_one(tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text("[]")
    pinned = source("chatdoctor", path=str(mine), sha256=sha256(mine))
    fetch.main(data(pinned), 1, ROOT / "data/sample", tmp_path / "raw")
    assert (tmp_path / "raw/chatdoctor.json").read_text() == "[]"
    mine.write_text("[1]")
    with pytest.raises(UserError, match=f"{sha256(mine)}, expected {pinned.sha256}"):
        fetch.main(data(pinned), 1, ROOT / "data/sample", tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "/no/such/file.json"}, "/no/such/file.json is no file"),
        ({"path": ""}, "data.chatdoctor is not set"),
        ({"kind": "hub", "repo": "some/repo"}, "some/repo .* is not there yet"),
    ],
)
def test_fetch_checks_every_source_before_it_writes(tmp_path, changes, message):
    sampled = source("medqa_train", kind="sample", count=4)
    with pytest.raises(UserError, match=message):
        fetch.main(data(sampled, source("chatdoctor", **changes)), 1, ROOT / "data/sample", tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_sampled_test_questions_are_no_training_questions(tmp_path):
    sources = [source(name, kind="sample", count=30) for name in ("chatdoctor", "medqa_train", "medqa_test")]
    fetch.main(data(*sources), 1, ROOT / "data/sample", tmp_path)
    asked = {name: [q.question for q in read_questions(tmp_path / f"medqa_{name}.jsonl")] for name in ("train", "test")}
    assert len(asked["train"]) == len(asked["test"]) == 30
    assert not set(asked["train"]) & set(asked["test"])
