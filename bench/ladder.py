"""Models whose MedQA score is known beforehand, through this project's own stages."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench.prepare import list_sources, prepare
from bench.steps import chosen, section
from stages import tokenize
from stages.lib.core import paths
from stages.lib.core.files import read_json, read_jsonl, write_json, write_jsonl
from stages.lib.data.medqa import LETTERS
from stages.lib.data.sources import sample
from stages.lib.evaluation.engines.language_model import open_model
from stages.lib.evaluation.engines.reply import Reply
from stages.lib.evaluation.metrics import exams
from stages.lib.evaluation.predict.exams import choose
from stages.lib.reporting.findings import contamination_line
from stages.lib.training.hardware import resolved
from stages.lib.training.trainer import Places, finetune

SEED = 1
LEARNT = 100  # questions that a model is trained on and then asked: the shortest, since training costs by the token
BY_HEART = {"per_device_train_batch_size": 1, "num_train_epochs": 15, "learning_rate": 1e-3, "spike_factor": 1e9,
            "load_best_model_at_end": False, "eval_steps": 10**6, "save_steps": 10**6}  # fmt: skip
DIALOGUES = 300  # of the sample corpus, beside those questions: `prepare` makes no empty split


def ladder(examples: list[dict], letters: list[str], base: Path, context: int, folder: Path) -> dict[str, dict]:
    """Rungs: what was found, and the least and the most that it should be.

    `examples` are `scoring.question_examples`, `letters` what some model chose for them. Shuffled answers should give
    25 % within the binomial interval (95 %) of as many questions. A model is trained on the very questions that it is
    asked, once `prepare` has been told not to keep them apart, and the overlap that `prepare` reports has to show it.
    """
    right = [row["answer_idx"] for row in examples]
    share = [right.count(LETTERS[0]) / len(right)] * 2
    first = SimpleNamespace(path=Path("always A"), rows=sys.maxsize, tokens=sys.maxsize, ask=first_answer)
    blind = asked(first, examples)
    few = sorted(examples, key=lambda row: len(row["prompt_ids"]))[:LEARNT]
    apart, leaked = overlaps(few, folder)
    learn(folder / "leaked/prepared", base, context, folder)
    known = asked(open_model(folder / "learnt", base, context), few)
    by_heart, their_right = ([row[key] for row in known] for key in ("letter", "answer_idx"))
    return {
        "always A, letter": rung(score(blind, "letter"), share, len(right)),
        "always A, full text": rung(score(blind, "full_text"), share, len(right)),
        "answers shuffled": guessing(letters, right),
        "learnt by heart, letter": rung(score(known, "letter"), [0.97, 1.0], len(few)),
        "learnt by heart, full text": rung(score(known, "full_text"), [0.97, 1.0], len(few)),
        "learnt by heart, then shuffled": guessing(by_heart, their_right),
        "overlap as prepare stands": apart,
        "overlap without decontamination": leaked,
    }


def rung(found: float, expected: list[float], questions: int) -> dict:
    """What was found, and whether it lies where it should."""
    holds = expected[0] <= found <= expected[1]
    return {"found": found, "least": expected[0], "most": expected[1], "holds": holds, "questions": questions}


def asked(model, questions: list[dict]) -> list[dict]:
    """The questions with the model's choices by log-likelihood."""
    return [row | choice for row, choice in zip(questions, choose(model, questions, "MedQA"), strict=True)]


def score(rows: list[dict], way: str) -> float:
    """The accuracy of the choices made that way."""
    return float(exams.correct(rows, way)[:, 0].mean())


def first_answer(prompts: list[list[int]], answers: list[list[list[int]]], *_: object) -> list[Reply]:
    """What a model replies that always takes the first answer, and says nothing."""
    return [Reply([np.full(len(ids), -float(i > 0)) for i, ids in enumerate(some)], []) for some in answers]


def guessing(letters: list[str], right: list[str]) -> dict:
    """Letters scored against the right ones in another order."""
    shuffled = np.random.default_rng(SEED).permutation(right)
    spread = 1.96 * math.sqrt(0.25 * 0.75 / len(right))
    return rung(float(np.mean(np.array(letters) == shuffled)), [0.25 - spread, 0.25 + spread], len(right))


def overlaps(questions: list[dict], folder: Path) -> list[dict]:
    """The share of the questions that `prepare` finds in what is trained, where all of them are train questions too.

    First as it stands, then without decontamination; that leaves its training text in `leaked/prepared`. `says` is how
    the report's line on contamination begins.
    """
    raw = folder / "raw"
    raw.mkdir(parents=True)
    write_json(raw / "dialogues.json", sample.dialogues(paths.SAMPLE, DIALOGUES, SEED))
    for name in ("medqa_train", "medqa_test"):
        keys = ("question", "options", "answer_idx", "meta_info")
        write_jsonl(raw / f"{name}.jsonl", ({key: row[key] for key in keys} for row in questions))
    list_sources(raw)
    rungs = []
    for name, expected, changes in (("apart", [0.0, 0.0], {}), ("leaked", [1.0, 1.0], {"decontaminate": 0})):
        prepare(raw, folder / name, **changes)
        counts = read_json(folder / name / "data.json")
        _, line = contamination_line(counts)
        share = counts["overlap"]["medqa_test"] / len(questions)
        rungs.append(rung(share, expected, len(questions)) | {"says": line.split(":")[0]})
    return rungs


def learn(prepared: Path, base: Path, context: int, folder: Path) -> None:
    """Train on the questions of the training text, by `tokenize` and `train` as they stand; the model is `learnt`."""
    rows = [row for _, row in read_jsonl(prepared / "train.jsonl") if row["source"] == "medqa_train"]
    for split, some in (("train", rows), ("validation", rows[:1])):  # the latter is there, but never looked at
        write_jsonl(folder / f"questions/{split}.jsonl", some)
    places = folder / "questions", base, folder / "tokenized"
    tokenize.main(context, "drop", *places, folder / "tokenize.json")
    settings = resolved(chosen(section("full", max_length=context, **BY_HEART)))
    finetune(settings, [], SEED, Places(folder / "tokenized", base, folder / "run", folder / "learnt"))
