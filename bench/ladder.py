"""Models whose MedQA score is known beforehand, through this project's own measure and training."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench.steps import chosen, section
from stages import tokenize
from stages.lib import medqa
from stages.lib.files import write_jsonl
from stages.lib.finetune import finetune
from stages.lib.machine import resolved
from stages.lib.models import load_tokenizer
from stages.lib.scoring import open_model

SEED = 1
LEARNT = 100  # questions that a model is trained on and then asked: the shortest, since training costs by the token
BY_HEART = {"per_device_train_batch_size": 1, "num_train_epochs": 15, "learning_rate": 1e-3, "spike_factor": 1e9,
            "load_best_model_at_end": False, "eval_steps": 10**6, "save_steps": 10**6}  # fmt: skip


def ladder(examples: list[dict], letters: list[str], base: Path, context: int, folder: Path) -> dict[str, dict]:
    """Rungs: a score by `medqa.measure` and what it should be.

    `examples` are `scoring.question_examples`, `letters` what some model chose for them. Shuffled answers should give
    25 % within the binomial interval (95 %) of as many questions.
    """
    right = [row["answer_idx"] for row in examples]
    first, _ = medqa.measure(SimpleNamespace(answer_logprobs=one_by_one(first_answer)), examples)
    share = [right.count(medqa.LETTERS[0]) / len(right)] * 2
    few = sorted(examples, key=lambda row: len(row["prompt_ids"]))[:LEARNT]
    known, answered = medqa.measure(open_model(learn(few, base, context, folder), context), few)
    by_heart, their_right = ([row[key] for row in answered] for key in ("letter", "answer_idx"))
    return {
        "always A, letter": rung(first["letter_exact_match"], share, len(right)),
        "always A, answer": rung(first["exact_match"], share, len(right)),
        "answers shuffled": guessing(letters, right),
        "learnt by heart, letter": rung(known["letter_exact_match"], [0.97, 1.0], len(few)),
        "learnt by heart, answer": rung(known["exact_match"], [0.97, 1.0], len(few)),
        "learnt by heart, then shuffled": guessing(by_heart, their_right),
    }


def rung(score: float, expected: list[float], questions: int) -> dict:
    """A score beside the least and the most that it should be."""
    return {"score": score, "expected": expected, "holds": expected[0] <= score <= expected[1], "questions": questions}


def first_answer(prompts: list[list[int]], answers: list[list[list[int]]]) -> Iterator[list[np.ndarray]]:
    """The log-probabilities of a model that always takes the first answer."""
    for options in answers:
        yield [np.full(len(ids), 0.0 if i == 0 else -1.0) for i, ids in enumerate(options)]


def one_by_one(many):
    """The scorer's method for one question, by its method for many."""
    return lambda prompt, answers: next(many([prompt], [answers]))


def guessing(letters: list[str], right: list[str]) -> dict:
    """Letters scored against the right ones in another order."""
    shuffled = np.random.default_rng(SEED).permutation(right)
    spread = 1.96 * math.sqrt(0.25 * 0.75 / len(right))
    return rung(float(np.mean(np.array(letters) == shuffled)), [0.25 - spread, 0.25 + spread], len(right))


def learn(questions: list[dict], base: Path, context: int, folder: Path) -> Path:
    """A model that was trained on the questions and their right answers, by `tokenize` and `train` as they stand."""
    rows = []
    for row in questions:
        answer = {"role": "assistant", "content": medqa.answer_text(row["answer_idx"], row["options"])}
        rows.append({"id": row["id"], "source": "medqa", "messages": [*row["messages"], answer]})
    for split, some in (("train", rows), ("validation", rows[:1])):
        write_jsonl(folder / f"prepared/{split}.jsonl", some)
    places = folder / "prepared", base, folder / "tokenized"
    tokenize.main(load_tokenizer(base).eos_token, context, *places, folder / "tokenize.json")
    settings = resolved(chosen(section("full", max_length=context, **BY_HEART)))
    finetune(settings, [], SEED, folder / "tokenized", base, folder / "run", folder / "learnt")
    return folder / "learnt"
