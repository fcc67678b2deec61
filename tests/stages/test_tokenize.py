"""tokenize: what becomes of the dialogues that it is given."""

from pathlib import Path

import pytest
from datasets import load_from_disk

from stages import tokenize
from stages.lib.core.errors import UserError
from stages.lib.core.files import read_json, read_jsonl, write_jsonl
from stages.lib.model.chat import IGNORED, training_examples
from stages.lib.model.loading import load_tokenizer


@pytest.fixture
def two_sources(prepared: Path, tmp_path: Path) -> Path:
    """The training dialogues, every third of another source."""
    rows = [row | {"source": "ab"[number % 3 == 0]} for number, row in read_jsonl(prepared / "train.jsonl")]
    for split in ("train", "validation"):
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    return tmp_path


def test_no_sequence_holds_two_sources_and_no_dialogue_is_lost(two_sources: Path, base: Path, tmp_path: Path):
    tokenize.main(256, "drop", two_sources, base, tmp_path / "tokenized", tmp_path / "tokenize.json")
    source_of = {row["id"]: row["source"] for _, row in read_jsonl(two_sources / "train.jsonl")}
    sequences = load_from_disk(tmp_path / "tokenized/train")
    assert [len({source_of[record] for record in row["record_ids"]}) for row in sequences] == [1] * len(sequences)
    assert sorted(record for row in sequences for record in row["record_ids"]) == sorted(source_of)
    counts = read_json(tmp_path / "tokenize.json")["train"]
    assert counts["tokens"] == sum(sequences["tokens"]) == sum(counts["tokens_by_source"].values())
    assert counts["label_tokens"] == sum(label != IGNORED for row in sequences for label in row["labels"])
    assert counts["packing_efficiency"] == pytest.approx(counts["tokens"] / (len(sequences) * 256))
    assert (counts["dialogues"], counts["sequences"], counts["too_long"]) == (len(source_of), len(sequences), 0)


def test_dialogues_that_do_not_fit_are_counted_and_none_left_is_refused(two_sources: Path, base: Path, tmp_path: Path):
    out = (two_sources, base, tmp_path / "tokenized", tmp_path / "tokenize.json")
    tokenize.main(145, "drop", *out)
    counts = read_json(tmp_path / "tokenize.json")["train"]
    held = sum(len(row["record_ids"]) for row in load_from_disk(tmp_path / "tokenized/train"))
    assert 0 < counts["too_long"] == counts["dialogues"] - held < counts["dialogues"]
    with pytest.raises(UserError, match=r"none of 100 dialogues fits train\.max_length=8 tokens; raise it"):
        tokenize.main(8, "drop", *out)
    assert (tmp_path / "tokenized/train").is_dir()


def test_a_cut_dialogue_keeps_its_first_turns_where_there_is_something_to_learn(
    two_sources: Path, base: Path, tmp_path: Path, caplog
):
    turns = [row["messages"][-2:] for _, row in read_jsonl(two_sources / "train.jsonl")][:3]
    ((kept, _),) = training_examples(load_tokenizer(base), [turns[0] + turns[1]])
    silent = [message | {"train": message["role"] == "user"} for message in turns[0] + turns[1]] + turns[2]
    said = {"long": turns[0] + turns[1] + turns[2], "silent": silent, "short": turns[0]}
    rows = [{"id": name, "source": "a", "messages": messages} for name, messages in said.items()]
    for split in ("train", "validation"):
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    out = (tmp_path, base, tmp_path / "tokenized", tmp_path / "tokenize.json")

    tokenize.main(len(kept), "drop", *out)
    counts = read_json(tmp_path / "tokenize.json")["train"]
    assert (counts["dialogues"], counts["too_long"], counts["cut"], counts["sequences"]) == (3, 2, 0, 1)
    assert "train: 2 of 3 dialogues are left out" in caplog.text and "keeps the first turns of 2 that" in caplog.text

    tokenize.main(len(kept), "cut", *out)
    counts = read_json(tmp_path / "tokenize.json")["train"]
    assert (counts["dialogues"], counts["too_long"], counts["cut"], counts["sequences"]) == (3, 1, 1, 2)
    sequences = load_from_disk(tmp_path / "tokenized/train")
    assert sequences["record_ids"][:] == [["long"], ["short"]] and sequences["input_ids"][0] == kept.tolist()
