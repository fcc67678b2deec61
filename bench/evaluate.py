"""MedQA's letters beside lm-eval's, and a ladder of known scores: `python -m bench.evaluate [FOLDER]`.

FOLDER has medqa_test.jsonl and medqa_train.jsonl in MedQA's format; without it ../shared/data is taken, and where that
is missing, the test questions of data/prepared. Needs models/ (`dvc repro`). Both get the same weights, float32 and
token ids; each run is a process of its own, rounds interleaved. Writes bench/evaluate.json: figures, never a question.
"""

import json
import logging
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from bench.flops import of_reading, product_rate
from bench.ladder import ladder
from bench.prepare import table
from bench.processes import run
from stages.lib.core import params, paths
from stages.lib.core.files import read_json, read_jsonl, write_json, write_jsonl
from stages.lib.core.resources import processor
from stages.lib.data.preparation.cleaning import clean_chunk
from stages.lib.data.preparation.reading.records import Origin, Seen
from stages.lib.data.preparation.reading.sources import read_source
from stages.lib.evaluation.predict.examples import question_examples
from stages.lib.model import chat
from stages.lib.model.loading import load_tokenizer
from stages.lib.settings.data import Prepare
from stages.predict import ROWS

RESULT = Path(__file__).with_suffix(".json")
LM_EVAL = "lm_eval==0.4.13"
ROUNDS = 3
BATCHES = (1, 4, 8, 16, 32, 64, "auto")  # of lm-eval's; the fastest is its best
DATA = Path("../shared/data")
FILES = ("medqa_test.jsonl", "medqa_train.jsonl")
GGUFS = ("f16", "q4_K_M")
SECONDS = ("process_seconds", "scoring_seconds", "reading_seconds")


def main(folder: Path) -> None:
    """Measure, compare, climb the ladder; write and print the result."""
    tokenizer, about = load_tokenizer(paths.MERGED), read_json(paths.MERGED / "config.json")
    context = about["max_position_embeddings"]
    rows, source = questions(folder)
    every = question_examples(tokenizer, rows, sys.maxsize)
    examples = [e for e in every if len(e["prompt_ids"]) + sum(map(len, e["answers_ids"])) <= context]
    lengths = [len(example["prompt_ids"]) for example in examples]
    logging.info("%s: %d questions, %d of them too long", source, len(rows), len(rows) - len(examples))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        # Nothing is looked up on the hub, and no copy of the questions stays in a cache.
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(work / "cache")}
        given = lay_out(examples, tokenizer, work) | {"context": context}
        tried = {str(size): once("peer_lm_eval", given | {"batch_size": size, "lean": True}, work) for size in BATCHES}
        best = min(BATCHES, key=lambda size: tried[str(size)]["reading_seconds"])
        variants = {
            "ours": ("evaluate_ours", {}),
            "lm-eval at its best": ("peer_lm_eval", {"batch_size": best, "lean": True}),
            "lm-eval as it comes": ("peer_lm_eval", {"batch_size": 1, "lean": False}),
        }
        seen = {name: [] for name in variants}
        for number in range(ROUNDS):
            for name, (module, told) in variants.items():
                seen[name].append(once(module, given | told, work))
                logging.info("round %d, %s: %s", number + 1, name, figures(seen[name][-1]))
        ours = seen["ours"][0]
        others = {f"{name}, round {i + 1}": one for name, rounds in seen.items() for i, one in enumerate(rounds)}
        others |= {
            f"GGUF {kind}": once("evaluate_ours", given | {"model": str(paths.gguf(kind))}, work) for kind in GGUFS
        }
        rungs = ladder(examples, ours["letters"], paths.BASE, context, work / "ladder")
    letters = {name: agreement(ours, one) for name, one in others.items()}
    reached = limit(about, lengths, median(one["reading_seconds"] for one in seen["ours"]))
    result = {
        "machine": {"processor": processor(), "cores": torch.get_num_threads(), "lm_eval": LM_EVAL}
        | {name: version(name) for name in ("torch", "transformers")},
        "data": {"source": source, "questions": len(examples), "too_long": len(rows) - len(examples)}
        | {"tokens": sum(lengths), "closest": ours["closest"]},
        "rounds": {name: [figures(one) for one in rounds] for name, rounds in seen.items()},
        "lm-eval's batch sizes": {size: figures(one) for size, one in tried.items()} | {"best": best},
        "letters": letters,
        "limit": reached,
        "ladder": rungs,
    }
    write_json(RESULT, result)
    named = [[{"": name} | row for name, row in some.items()] for some in (letters, rungs)]
    print("\n\n".join(map(table, [speeds(seen), *named])), json.dumps(reached), sep="\n\n")


def limit(about: dict, lengths: list[int], seconds: float) -> dict[str, float]:
    """The operations that reading prompts of these lengths needs, and which share of the possible speed was reached."""
    needed = sum(of_reading(about, length) for length in lengths)
    mean = round(sum(lengths) / len(lengths))
    peak = product_rate(mean, about["hidden_size"], about["intermediate_size"], torch.float32)
    return {"flops": needed, "peak_flops_per_second": peak, "share": needed / peak / seconds}


def questions(folder: Path) -> tuple[list[dict], str]:
    """MedQA's questions as `prepare` writes them, no answer among the messages; and where they come from."""
    if not all((folder / name).is_file() for name in FILES):
        logging.info("%s: no MedQA there; the sample's test questions are taken instead", folder)
        return [row for _, row in read_jsonl(paths.PREPARED / FILES[0])], "the sample's test questions"
    read = [
        one
        for name in FILES
        for one in read_source(folder / name, Origin(name, "test_questions", "data.sources.2"), Seen())
    ]
    rows, _ = clean_chunk(read, params.load("data.prepare", Prepare))
    return [row | {"messages": row["messages"][:1]} for row in rows], "MedQA"


def lay_out(examples: list[dict], tokenizer, work: Path) -> dict[str, str]:
    """Write the questions for ours as `evaluate` reads them, the rendered prompts for lm-eval; return the settings."""
    keys = ("id", "messages", "options", "answer_idx")
    asked = [{key: row[key] for key in keys} for row in examples]
    prompts = [chat.rendered(tokenizer, row["messages"], answering=True) for row in asked]
    texts = ({"prompt": text, "answer_idx": row["answer_idx"]} for text, row in zip(prompts, asked, strict=True))
    write_jsonl(work / "questions.jsonl", asked)
    write_jsonl(work / "prompts.jsonl", texts)
    places = {"questions": str(work / "questions.jsonl"), "prompts": str(work / "prompts.jsonl")}
    return places | {"model": str(paths.MERGED), "base": str(paths.BASE), "rows": ROWS}


def once(module: str, settings: dict, work: Path) -> dict:
    """What one process wrote, and the seconds that the whole of it took; raises RuntimeError where it failed."""
    start = time.perf_counter()
    seen = run(module, settings, work / "run", *([LM_EVAL] if module == "peer_lm_eval" else []))
    if "failed" in seen:
        raise RuntimeError(f"bench.{module}: {seen['failed']}")
    return seen | {"process_seconds": time.perf_counter() - start}


def agreement(ours: dict, other: dict) -> dict:
    """How many letters are ours, and both accuracies; raises RuntimeError where not the same token ids were read."""
    if ours["read"] != other["read"]:
        wrong = sum(a != b for a, b in zip(ours["read"], other["read"], strict=True))
        raise RuntimeError(f"{wrong} of {len(ours['read'])} texts are not the same token ids: nothing can be compared")
    same = sum(a == b for a, b in zip(ours["letters"], other["letters"], strict=True))
    accuracy = {"accuracy": other["accuracy"], "as ours": other["accuracy"] == ours["accuracy"]}
    return {"same letters": same, "of": len(ours["letters"])} | accuracy


def figures(seen: dict) -> dict:
    """The seconds and the peak memory of a run."""
    return {key: seen[key] for key in (*SECONDS, "peak")}


def speeds(seen: dict[str, list]) -> list[dict]:
    """A row a variant: medians of the rounds, and the medians of the rounds' ratios to ours."""
    rows = []
    for name, rounds in seen.items():
        rows.append({"": name})
        for key in SECONDS:
            pairs = zip(seen["ours"], rounds, strict=True)
            rows[-1][key.replace("_", ", ")] = round(median(one[key] for one in rounds), 2)
            rows[-1][f"{key.split('_')[0]} to ours"] = round(median(one[key] / ours[key] for ours, one in pairs), 2)
        rows[-1]["peak memory, MB"] = round(median(one["peak"] for one in rounds) / 1e6)
    return rows


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    main(Path(sys.argv[1]) if sys.argv[1:] else DATA)
