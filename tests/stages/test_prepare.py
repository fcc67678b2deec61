"""fetch and prepare: what goes in, what comes out, and what is refused."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages import fetch, prepare
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, read_jsonl, sha256, write_json
from stages.lib.data import show
from stages.lib.data.sources.pins import local_sha256
from stages.lib.data.sources.sample import dialogues, questions
from stages.lib.settings.data import Source
from support.hub import COMMIT, serving
from support.settings import ROOT, prepare_settings

SETTINGS = prepare_settings(validation=0.1, test=0.1, decontaminate=60)  # the sample's wording repeats itself
HELD = {"chatdoctor": "dialogues", "medqa_train": "train_questions", "medqa_test": "test_questions"}
COLUMNS: dict[str, dict] = {}  # of a source: our name -> the file's
OUTS = ("train", "validation", "test", "medqa_test", "dropped")


def source(name, **changes):
    plain = {"kind": "file", "repo": "", "revision": "", "path": "", "sha256": "", "licence": "", "count": 0}
    about = {"name": name, "records": HELD[name], "columns": COLUMNS.get(name, {}), "first_option": None}
    return Source(**about | plain | changes)


def raw_folder(folder, talks, train, test):
    folder.mkdir(exist_ok=True)
    (folder / "chatdoctor.json").write_text(json.dumps(talks, indent=1))
    for name, rows in (("medqa_train", train), ("medqa_test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [(source(name), f"{name}.{'json' if name == 'chatdoctor' else 'jsonl'}") for name in HELD]
    write_json(folder / "sources.json", [vars(s) | {"file": f, "sha256": sha256(folder / f)} for s, f in files])
    return folder


@pytest.fixture(scope="module")
def corpus():
    asked = questions(ROOT / "data/sample", 60, seed=4)
    return dialogues(ROOT / "data/sample", 200, seed=4), asked[:40], asked[40:]


def outs(folder):
    return (folder / "prepared", folder / "data.json", folder / "plots", folder / "CARD.md")


def run_prepare(folder, *parts, settings=SETTINGS):
    prepare.main(settings, raw_folder(folder / "raw", *parts), *outs(folder))
    return {name: [row for _, row in read_jsonl(folder / f"prepared/{name}.jsonl")] for name in OUTS}


def test_every_record_is_kept_once_or_dropped_with_its_reason(corpus, tmp_path):
    talks, train, test = corpus
    near = talks[1] | {"output": talks[1]["output"] + " Rest."}
    copy = talks[2] | {"input": talks[2]["input"].upper()}
    bad = [talks[0] | {"output": "Ok"}, talks[0] | {"output": [3]}, {"input": "x"}]
    out = run_prepare(tmp_path, [*talks, near, copy, *bad], [*train, test[0]], test)
    found = [(row["source"], row["row"], row["step"], row["reason"]) for row in out["dropped"]]
    assert found == [
        ("chatdoctor", 2, "near_duplicates", "near_duplicate"),
        ("chatdoctor", 202, "exact_duplicates", "exact_duplicate"),
        ("chatdoctor", 203, "quality", "too_short"),
        ("chatdoctor", 204, "read", "malformed"),
        ("chatdoctor", 205, "read", "malformed"),
        ("medqa_train", 41, "decontaminate", "contaminated_medqa_test"),
    ]
    assert [row["duplicate_of"]["row"] for row in out["dropped"][:2]] == [201, 3]
    assert "`output` is list" in out["dropped"][3]["detail"] and talks[0]["input"][:99] in out["dropped"][3]["content"]
    assert len(out["medqa_test"]) == len(test)
    kept = [row for name in ("train", "validation", "test") for row in out[name]]
    assert len(kept) == len(talks) + len(train)
    assert len({row["id"] for row in kept}) == len(kept)
    assert all(row["source"] != "medqa_train" for name in ("validation", "test") for row in out[name])


def test_the_figures_are_those_of_the_files(corpus, tmp_path):
    talks, train, test = corpus
    out = run_prepare(tmp_path, [*talks, talks[0], {}], train, test, settings=prepare_settings())
    metrics = read_json(tmp_path / "data.json")
    assert metrics["overlap_words"] == 13
    assert metrics["read"] == len(talks) + 2 + len(train) + len(test)
    assert metrics["kept"] == sum(len(out[name]) for name in OUTS if name != "dropped")
    assert sum(metrics["dropped"].values()) == len(out["dropped"]) == metrics["read"] - metrics["kept"]
    for name, found in metrics["sources"].items():
        assert sum(row["source"] == name for row in out["dropped"]) == found["read"] - found["kept"]
        assert sum(found["splits"].values()) == found["kept"]
        left = found["read"]
        for step in found["steps"].values():
            assert step["in"] == left
            left = step["out"] = step["in"] - sum(n for key, n in step.items() if key not in ("in", "out"))
        assert left == found["kept"]
    for name, split in metrics["splits"].items():
        assert split["rows"] == len(out[name])
    answers = [len(m["content"].split()) for row in out["train"] for m in row["messages"] if m["role"] == "assistant"]
    assert metrics["splits"]["train"]["answer_words"] == sum(answers)
    card = (tmp_path / "CARD.md").read_text()
    for s in read_json(tmp_path / "raw/sources.json"):
        assert s["sha256"] in card
    assert f"| chatdoctor | {len(talks) + 2} | −1 | 0 | −1 |" in card
    assert (tmp_path / "plots/funnel.svg").read_text().count("<svg") == 1
    assert (tmp_path / "plots/lengths.svg").read_text().count("<svg") == 1


def test_two_runs_give_the_same_bytes(corpus, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run_prepare(tmp_path / name, *corpus)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 4 + len(OUTS) + 4
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_many_records_on_every_core_give_what_one_process_gives(corpus, tmp_path, monkeypatch):
    from stages.lib.data.preparation import parallel

    one = run_prepare(tmp_path, *corpus)
    monkeypatch.setattr(parallel, "CHUNK", 16)
    assert run_prepare(tmp_path, *corpus) == one


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"  # a zombie is dead
    except FileNotFoundError:
        return False


def test_a_killed_prepare_leaves_nothing_half_written_and_no_worker(corpus, tmp_path):
    talks, train, test = corpus
    raw_folder(tmp_path / "raw", talks * 50, train, test)
    code = f"""
import pickle, sys
sys.path.insert(0, {str(ROOT)!r})
from stages import prepare
prepare.main(*pickle.load(open("arguments", "rb")))
"""
    (tmp_path / "arguments").write_bytes(pickle.dumps((SETTINGS, Path("raw"), *outs(Path()))))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, process_group=0)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(workers := children.read_text().split()) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arguments", "raw"]
    deadline = time.monotonic() + 20
    while any(runs(pid) for pid in workers):
        assert time.monotonic() < deadline, f"workers {workers} outlive their stage"
        time.sleep(0.2)


def test_a_test_set_is_used_whole_or_not_at_all(corpus, tmp_path, caplog):
    talks, train, test = corpus
    with pytest.raises(
        UserError, match=r"medqa_test: 1 of 21 .*whole or not at all: 1 x `answer_idx` is 'E'.*record 21"
    ):
        run_prepare(tmp_path, talks, train, [*test, test[0] | {"answer_idx": "E"}])
    assert not (tmp_path / "prepared").exists()
    right = test[1]["answer_idx"]
    other = next(letter for letter in "ABCD" if letter != right)
    contradiction = {**test[1], "answer_idx": other, "answer": test[1]["options"][other]}
    options = {**test[2]["options"], "A": "Nothing", "B": "nothing "}
    ambiguous = {**test[2], "options": options, "answer_idx": "A", "answer": "Nothing"}
    out = run_prepare(tmp_path, talks, train, [*test, test[0], contradiction, ambiguous])  # so it was published
    assert len(out["medqa_test"]) == 23
    counts = {"distinct": 21, "repeated": 2, "contradictory": 1, "same_option_twice": 1}
    assert read_json(tmp_path / "data.json")["test_questions"] == counts
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [line.split("(")[1] for line in warned] == [
        "medqa_test 1 and 21, medqa_test 2 and 22)", "medqa_test 2 and 22)", "medqa_test 23)",
    ]  # fmt: skip
    card = " ".join((tmp_path / "CARD.md").read_text().split())
    assert "more than once: 2 of 21 distinct ones, 1 of them with different right answers." in card


def test_an_unknown_pattern_of_boilerplate_is_refused_before_a_record_is_read(tmp_path):
    with pytest.raises(UserError, match=r"data\.prepare\.boilerplate is 'none'"):
        prepare.main(prepare_settings(boilerplate=["none"]), tmp_path / "no raw folder", *outs(tmp_path))
    with pytest.raises(UserError, match=r"data\.prepare\.boilerplate is .*, expected each name once"):
        prepare_settings(boilerplate=["thanks", "thanks"])


def test_an_empty_split_is_refused(corpus, tmp_path):
    with pytest.raises(
        UserError, match=r"train\.jsonl would be empty: 60 records were read, dropped were .*'empty': 39"
    ):
        run_prepare(tmp_path, [{"input": "", "output": ""}] * 39, corpus[2][:1], corpus[2])


def test_a_source_that_cannot_be_read_is_refused(corpus, tmp_path, monkeypatch):
    talks, train, test = corpus
    renamed = [{"input": row["input"], "advice": row["output"]} for row in talks[:11]]
    message = (
        r"chatdoctor: 11 of 200 .* data.prepare.malformed=0.05 may be: 11 x `output` is missing.*record 1\); "
        r"not read: `source` \(189\), `advice` \(11\); -S '\+data.sources.0.columns=\{FIELD: COLUMN\}' reads one"
    )
    with pytest.raises(UserError, match=message):
        run_prepare(tmp_path, [*renamed, *talks[11:]], train, test)
    run_prepare(tmp_path, [*renamed[1:], *talks[10:]], train, test)  # 10 of 200: 5 %
    with pytest.raises(UserError, match="`output` holds numbers only"):
        run_prepare(tmp_path, [{"input": row["input"], "output": 4} for row in talks], train, test)
    monkeypatch.setitem(COLUMNS, "chatdoctor", {"system": "sys_prompt"})
    with pytest.raises(UserError, match="columns maps system to `sys_prompt`, which no record has"):
        run_prepare(tmp_path, talks, train, test)
    monkeypatch.setitem(COLUMNS, "chatdoctor", {})
    with pytest.raises(UserError, match="chatdoctor: no records in the file"):
        run_prepare(tmp_path, [], train, test)


def test_a_question_in_a_column_that_nothing_reads_is_noticed(corpus, tmp_path):
    talks, train, test = corpus
    asked = [{"instruction": "Answer the patient.", "complaint": t["input"], "output": t["output"]} for t in talks]
    with pytest.raises(UserError, match=r"200 of 200 different records ask the same.*that of record 1; .*`complaint`"):
        run_prepare(tmp_path, asked, train, test)
    run_prepare(tmp_path, [talks[0]] * 300 + talks, train, test)  # copies are duplicates, not another question


def test_what_is_left_out_or_unread_is_said(corpus, tmp_path, caplog):
    talks, train, test = corpus
    caplog.set_level("INFO")
    kept = [{"instruction": t["instruction"], "input": t["input"], "output": t["output"], "note": "x"} for t in talks]
    run_prepare(tmp_path, [*kept, {"input": "x"}], train, test)
    for line in (
        "chatdoctor: read as Alpaca (200)",
        "dropped: malformed 1",
        "chatdoctor: not read: columns `note` (200); -S '+data.sources.0.columns={FIELD: COLUMN}' reads one",
        "chatdoctor: one and the same instruction or system message is left out",
    ):
        assert line in caplog.text
    metrics = read_json(tmp_path / "data.json")["sources"]["chatdoctor"]
    assert (metrics["shapes"], metrics["unread"]) == ({"Alpaca": 200}, {"note": 200})
    assert "chatdoctor was read as Alpaca (200). Not read: `note` (200)." in (tmp_path / "CARD.md").read_text()
    tasks = [talks[0] | {"instruction": f"Task {i}.", "output": f"Answer {i} in a few words."} for i in range(12)]
    with pytest.raises(
        UserError,
        match=r"13 different instructions or system messages are left out; without them 12 records ask the same",
    ):
        run_prepare(tmp_path, [*talks[1:], *tasks], train, test)
    keeping = prepare_settings(validation=0.1, test=0.1, decontaminate=60, keep_system=True)
    run_prepare(tmp_path, [*talks[1:], *tasks], train, test, settings=keeping)


def test_show_prints_records_and_marks_what_is_trained(corpus, tmp_path, capsys):
    out = run_prepare(tmp_path, *corpus)
    show.main([str(tmp_path / "prepared/train.jsonl"), "--n", "2"])
    printed = capsys.readouterr().out
    assert "\033[" not in printed
    first = out["train"][0]
    trained = " ".join(line[2:] for line in printed.split("\n\n")[0].splitlines() if line.startswith("┃ "))
    assert trained == f"{first['messages'][-1]['content']} ■"
    assert printed.count("──") == 2
    assert "\033[32m" in show.shown(first, 80, colour=True)
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    show.main([str(tmp_path / "other.jsonl")])
    printed = capsys.readouterr().out
    assert "1 dialogues, read as nothing; 1 refused\n  1 x `instruction` and `input` are missing" in printed
    assert "prepare would stop: other.jsonl: 1 of 1 records cannot be read" in printed
    with pytest.raises(UserError, match=r"none\.jsonl: no such file"):
        show.main([str(tmp_path / "none.jsonl")])


def test_show_previews_a_file_as_prepare_reads_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)  # whose params.yaml says how records are cleaned
    (file := tmp_path / "mine.csv").write_text(
        "Frage;Antwort;Quelle\nHello doctor, why do I cough?;Hello dear, drink tea and rest.;web\n;Tea.;web\n"
    )
    show.main([str(file), "--columns", "input=Frage", "output=Antwort"])
    printed = capsys.readouterr().out
    assert "mine.csv: 2 dialogues, read as Frage / Antwort (2); 0 refused" in printed
    assert "not read: columns `Quelle` (2)" in printed and "prepare would stop" not in printed
    assert "┃ Drink tea and rest. ■" in printed
    with pytest.raises(UserError, match="question2 is none of messages, "):
        show.main([str(file), "--columns", "question2=Frage"])


@pytest.mark.parametrize("named", ["parts", "parts/*.jsonl"])
def test_fetch_takes_a_folder_or_a_pattern_as_one_source(tmp_path, named):
    (folder := tmp_path / "parts").mkdir()
    for name in ("b.jsonl", "a [1], 2.jsonl", ".hidden"):
        (folder / name).write_text(f'{{"input": "{name}"}}\n')
    pin = local_sha256(tmp_path / named)
    listed = "".join(f"{sha256(folder / name)}  {name}\n" for name in ("a [1], 2.jsonl", "b.jsonl"))
    assert pin == hashlib.sha256(listed.encode()).hexdigest()
    mine = source("chatdoctor", path=str(tmp_path / named), sha256=pin)
    fetch.main([mine], 1, ROOT / "data/sample", tmp_path / "raw")
    assert sorted(path.name for path in (tmp_path / "raw/chatdoctor").iterdir()) == ["a [1], 2.jsonl", "b.jsonl"]
    (said,) = read_json(tmp_path / "raw/sources.json")
    assert (said["file"], said["sha256"], said["bytes"]) == ("chatdoctor", pin, 49)
    assert local_sha256(folder / "a [1], 2.jsonl") == sha256(folder / "a [1], 2.jsonl")  # a name, not a pattern
    (folder / "b.jsonl").write_text("{}")
    with pytest.raises(UserError, match=f"has sha256 [0-9a-f]+, expected {pin}"):
        fetch.main([mine], 1, ROOT / "data/sample", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_fetch_copies_a_pinned_file_and_refuses_a_changed_one(tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text("[]")
    pinned = source("chatdoctor", path=str(mine), sha256=sha256(mine))
    fetch.main([pinned], 1, ROOT / "data/sample", tmp_path / "raw")
    assert (tmp_path / "raw/chatdoctor.json").read_text() == "[]"
    (said,) = read_json(tmp_path / "raw/sources.json")
    assert (said["file"], said["sha256"], said["bytes"]) == ("chatdoctor.json", sha256(mine), 2)
    assert said["path"] == "mine.json"  # not where it lay
    mine.write_text("[1]")
    with pytest.raises(UserError, match=f"{sha256(mine)}.*{pinned.sha256}|{pinned.sha256}.*{sha256(mine)}"):
        fetch.main([pinned], 1, ROOT / "data/sample", tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "/no/such/file.json", "sha256": "0" * 64}, "/no/such/file.json is no file"),
        ({"path": ""}, "data.chatdoctor is not set"),
        ({"path": __file__}, "has no sha256 in params.yaml; take it up"),
        ({"kind": "http", "path": "http://localhost:9/x"}, "an http source needs a sha256"),
    ],
)
def test_fetch_brings_every_source_before_it_writes(tmp_path, changes, message):
    sampled = source("medqa_train", kind="sample", count=4)
    with pytest.raises(UserError, match=message):
        fetch.main([sampled, source("chatdoctor", **changes)], 1, ROOT / "data/sample", tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


FETCH = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
from stages import fetch
from stages.lib.core.errors import UserError
try:
    fetch.main(*pickle.load(open(sys.argv[2], "rb")))
except UserError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("change", ["nothing", "hub hash", "http hash", "unpinned"])
def test_fetch_from_the_hub_and_the_web(tmp_path, change):
    """In a process of its own, since huggingface_hub reads its variables when it is imported."""
    talks, exam = b'[{"input": "a b", "output": "c d"}]', b'{"question": "q"}\n'
    talks_hash, exam_hash = hashlib.sha256(talks).hexdigest(), hashlib.sha256(exam).hexdigest()
    wrong = "0" * 64
    with serving() as server:
        server.datasets["house/exam"] = {"data/exam.jsonl": exam}
        server.files["/talks.json"] = talks
        pin = {"nothing": exam_hash, "hub hash": wrong, "http hash": "", "unpinned": ""}[change]
        revision = "main" if change == "unpinned" else COMMIT
        at_hub = {"kind": "hub", "repo": "house/exam", "path": "data/exam.jsonl", "revision": revision, "sha256": pin}
        on_web = {"kind": "http", "path": f"{server.address}/talks.json"}
        sources = [
            source("medqa_test", **at_hub),
            source("chatdoctor", **on_web, sha256=wrong if change == "http hash" else talks_hash),
        ]
        arguments = (sources, 1, ROOT / "data/sample", tmp_path / "raw")
        (tmp_path / "arguments").write_bytes(pickle.dumps(arguments))
        where = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "DVC_ROOT": str(tmp_path)}
        command = [sys.executable, "-c", FETCH, str(ROOT), str(tmp_path / "arguments")]
        run = subprocess.run(command, env=os.environ | where, capture_output=True, text=True)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in ("", ".json", ".jsonl")]
    if change == "nothing":
        assert run.returncode == 0, run.stderr
        assert (tmp_path / "raw/medqa_test.jsonl").read_bytes() == exam
        assert (tmp_path / "raw/chatdoctor.json").read_bytes() == talks
        told = read_json(tmp_path / "raw/sources.json")
        assert [(one["name"], one["sha256"]) for one in told] == [("medqa_test", exam_hash), ("chatdoctor", talks_hash)]
        return
    said = run.stderr.splitlines()[-1]
    assert run.returncode == 1 and not (tmp_path / "raw").exists()
    expected = {"hub hash": (wrong, exam_hash), "http hash": (wrong, talks_hash), "unpinned": ("pins", exam_hash)}
    assert all(part in said for part in expected[change])
    refused = {"hub hash": exam, "http hash": talks, "unpinned": b""}[change]
    assert not [path for path in kept if path.read_bytes() == refused and refused]


def test_sampled_test_questions_are_no_training_questions(tmp_path):
    sources = [source(name, kind="sample", count=30) for name in HELD]
    fetch.main(sources, 1, ROOT / "data/sample", tmp_path / "raw")
    asked = {
        name: [row["question"] for _, row in read_jsonl(tmp_path / f"raw/medqa_{name}.jsonl")]
        for name in ("train", "test")
    }
    assert len(asked["train"]) == len(asked["test"]) == 30
    assert not set(asked["train"]) & set(asked["test"])
