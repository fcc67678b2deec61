"""prepare: clean, de-duplicate and split the raw records into dialogues."""

import logging
from pathlib import Path

from stages.lib import paths
from stages.lib.cleaning import clean_dialogues, clean_questions, keep_first
from stages.lib.errors import UserError
from stages.lib.files import replacing, write_json, write_jsonl
from stages.lib.records import read_dialogues, read_questions
from stages.lib.schema import Prepare
from stages.lib.split import split_of
from stages.lib.stage import run


def main(prepare: Prepare, raw: Path, prepared: Path, metrics_file: Path) -> None:
    """Write train, validation and test dialogues, MedQA's test questions, and every dropped record with its reason."""
    sources = {
        "chatdoctor": clean_dialogues(read_dialogues(raw / "chatdoctor.json"), prepare.keep_instruction),
        "medqa_train": clean_questions(read_questions(raw / "medqa_train.jsonl")),
        "medqa_test": clean_questions(read_questions(raw / "medqa_test.jsonl")),
    }
    counts = {name: {"read": len(rows)} for name, rows in sources.items()}
    dropped = []

    dialogues, drops = keep_first(sources["chatdoctor"], prepare)
    dropped += drops
    # The test questions come first, so that a training question that resembles one is the one to go.
    questions, drops = keep_first(sources["medqa_test"] + sources["medqa_train"], prepare)
    dropped += drops
    test_questions = [row for row in questions if row["source"] == "medqa_test"]
    train_questions = [row for row in questions if row["source"] == "medqa_train"]

    splits = {"train": [], "validation": [], "test": []}
    for row in dialogues:
        splits[split_of(row["hash"], prepare.validation, prepare.test)].append(row)
    splits["train"] += train_questions
    splits["medqa_test"] = test_questions
    for name, rows in splits.items():
        if not rows:
            raise UserError(
                f"{prepared}/{name}.jsonl would be empty: {len(dialogues)} dialogues were kept; use more data"
            )

    with replacing(prepared) as folder:
        for name, rows in splits.items():
            write_jsonl(folder / f"{name}.jsonl", ({k: v for k, v in row.items() if k != "hash"} for row in rows))
        write_jsonl(folder / "dropped.jsonl", dropped)
    for name, rows in sources.items():
        reasons = [row["reason"] for row in dropped if row["source"] == name]
        counts[name] |= {reason: reasons.count(reason) for reason in sorted(set(reasons))}
        counts[name]["kept"] = len(rows) - len(reasons)
    counts["splits"] = {name: len(rows) for name, rows in splits.items()}
    write_json(metrics_file, counts)
    logging.info("%s", counts)


if __name__ == "__main__":
    run(main, sections=("data.prepare",), paths=(paths.RAW, paths.PREPARED, paths.METRICS / "data.json"))
