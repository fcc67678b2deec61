"""The whole `prepare` stage against datatrove's MinHash de-duplication alone, and its cost by size.

`python -m bench.prepare` writes bench/prepare.json and prints its two tables; DATATROVE_PYTHON names an interpreter
that has datatrove, else one is set up under .bench/.
"""

import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median

from omegaconf import OmegaConf

from bench.corpus import corpus, near_quality
from bench.measuring import measure
from bench.processes import peer_python
from stages.lib.core.files import read_json, read_jsonl, sha256, write_json, write_jsonl

DIALOGUES, QUESTIONS = 112_000, 10_000  # HealthCareMagic's dialogues and MedQA's train questions, about
SIZES = (14_000, 56_000, 112_000, 448_000)  # dialogues, with questions in proportion
ROUNDS = 3
SEED = 1
LENGTHS_FROM = Path("../shared/data/chatdoctor_4k.json")  # where it is missing: the sample corpus
DATATROVE = ("datatrove[io,processing]==0.10.1", "spacy==3.8.18")
PEERS = {"datatrove": "spacy", "datatrove, words split at spaces": "spaces"}  # as it comes; with a splitter of ours
MEDQA = "contaminated_medqa_test"  # lookalikes share long runs, too, but with dialogues of the test split
PLANTED = (("dialogues", "contaminated_dialogues"), ("medqa_train", "contaminated_questions"))
HELD = {"dialogues": "dialogues", "medqa_train": "train_questions", "medqa_test": "test_questions"}
OURS = "import sys; from pathlib import Path; from bench.prepare import prepare; prepare(*map(Path, sys.argv[1:]))"


def main() -> None:
    """Measure both, check what they dropped against the truth, write and print the result."""
    peer = peer_python("datatrove", DATATROVE)
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        rounds, quality = compare(peer, top / "compared")
        cost = [cost_of(size, top / str(size)) for size in SIZES]
    machine = {"cpu_count": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    machine |= {"datatrove": DATATROVE, "rensa": version("rensa"), "numpy": version("numpy")}
    result = {"machine": machine, "dialogues": DIALOGUES, "questions": QUESTIONS, "rounds": rounds}
    ratios = {name: median(one["ours"]["seconds"] / one[name]["seconds"] for one in rounds) for name in PEERS}
    result |= {"ratios": ratios, "summary": summary(rounds, quality), "cost": cost}
    write_json(Path("bench/prepare.json"), result)
    print(f"{table(result['summary'])}\n\nseconds, ours to theirs: {ratios}\n\n{table(cost)}")


def compare(peer: str, folder: Path) -> tuple[list[dict], dict]:
    """Seconds and peak memory of each round, ours and theirs in turn, and what the last round found."""
    raw, texts = folder / "raw", folder / "texts"
    truth = make_raw(raw, DIALOGUES, QUESTIONS)
    rows = read_json(raw / "dialogues.json")
    for part in range(2):  # a file a task
        chosen = range(part * len(rows) // 2, (part + 1) * len(rows) // 2)
        asked = ({"id": str(i), "text": f"{rows[i]['input']}\n{rows[i]['output']}"} for i in chosen)
        texts.mkdir(exist_ok=True)
        write_jsonl(texts / f"{part}.jsonl", asked)
    rounds, script = [], str(Path(__file__).with_name("peer_datatrove.py"))
    for number in range(ROUNDS):
        ours = folder / f"ours{number}"
        measured = {"ours": measure([sys.executable, "-c", OURS, str(raw), str(ours)])}
        quality = {"ours": near_quality(*dropped_by(ours), truth) | contamination(ours, truth)}
        for name, splitter in PEERS.items():
            work, removed = folder / f"{splitter}{number}", folder / f"{splitter}{number}.json"
            measured[name] = measure([peer, "-P", script, str(texts), str(work), str(removed), splitter])
            quality[name] = near_quality([int(i) for i in read_json(removed)], 0, set(), truth)
        rounds.append(measured)
        print(f"round {number + 1}: {json.dumps(measured)}", file=sys.stderr)
    return rounds, quality


def cost_of(dialogues: int, folder: Path) -> dict:
    """Rows, seconds, seconds per 1000 rows and peak memory (MB) of ours at one size."""
    make_raw(folder / "raw", dialogues, dialogues * QUESTIONS // DIALOGUES)
    rows = dialogues + sum(1 for file in (folder / "raw").glob("*.jsonl") for _ in read_jsonl(file))
    measured = measure([sys.executable, "-c", OURS, str(folder / "raw"), str(folder / "ours")])
    print(f"{dialogues} dialogues: {json.dumps(measured)}", file=sys.stderr)
    per_1000 = 1000 * measured["seconds"] / rows
    return {"dialogues": dialogues, "rows": rows, **measured, "seconds_per_1000": per_1000}


def make_raw(raw: Path, dialogues: int, questions: int) -> dict:
    """The corpus with the sources.json that `prepare` reads; returns the truth."""
    truth = corpus(raw, dialogues, questions, SEED, LENGTHS_FROM)
    list_sources(raw)
    return truth


def list_sources(raw: Path) -> None:
    """Write the sources.json that `prepare` reads, for one file of each kind of HELD."""
    sources = []
    for name, records in HELD.items():
        file = raw / f"{name}.{'json' if records == 'dialogues' else 'jsonl'}"
        source = {"name": name, "records": records, "file": file.name, "columns": {}, "first_option": None}
        source |= {"sha256": sha256(file), "bytes": file.stat().st_size, "kind": "file", "repo": "", "revision": ""}
        sources.append(source | {"path": str(file), "licence": "synthetic"})
    write_json(raw / "sources.json", sources)


def prepare(raw: Path, folder: Path, **changes) -> None:
    """Run the stage as it stands in conf/, with changes, from raw to `prepared/` in the folder."""
    from stages.lib.settings.data import Prepare
    from stages.prepare import main as stage

    given = OmegaConf.load("conf/data/prepare.yaml").prepare
    settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Prepare), given, changes))
    stage(settings, raw, folder / "prepared", folder / "data.json", folder / "plots", folder / "CARD.md")


def dropped_by(folder: Path) -> tuple[list[int], int, set[int]]:
    """Which dialogues ours dropped as duplicates, counted from 0, how many questions, and dialogues dropped before."""
    rows = [row for _, row in read_jsonl(folder / "prepared/dropped.jsonl")]
    drops = [row for row in rows if row["reason"].endswith("_duplicate")]
    found = [row["row"] - 1 for row in drops if row["source"] == "dialogues"]
    before = {row["row"] - 1 for row in rows if row["source"] == "dialogues" and row["step"] in ("read", "quality")}
    return found, len(drops) - len(found), before


def contamination(folder: Path, truth: dict) -> dict:
    """Share of the planted contamination that is in no text trained on, and drops of that reason without one.

    A contaminated dialogue that falls in the test split is not trained on, so it counts as kept out.
    """
    planted = {(name, i + 1) for name, key in PLANTED for i in truth[key]}
    trained = [row for split in ("train", "validation") for _, row in read_jsonl(folder / f"prepared/{split}.jsonl")]
    drops = [row for _, row in read_jsonl(folder / "prepared/dropped.jsonl") if row["reason"] == MEDQA]
    leaked = planted & {(row["source"], row["row"]) for row in trained}
    wrong = {(row["source"], row["row"]) for row in drops} - planted
    return {"contamination_kept_out": 1 - len(leaked) / len(planted), "contamination_wrong": len(wrong)}


def summary(rounds: list[dict], quality: dict) -> list[dict]:
    """A row for ours and one for each peer: medians over the rounds, and what they found."""
    return [
        {"": name} | {key: median(one[name][key] for one in rounds) for key in ("seconds", "peak_mb")} | found
        for name, found in quality.items()
    ]


def table(rows: list[dict]) -> str:
    """Rows as a Markdown table, with a dash where a row lacks a column."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_shown(row.get(column, "-")) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *cells])


def _shown(value: object) -> str:
    return f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
