"""MedQA asked of a model: which option it chooses, in three ways, and how sure and how even-handed it is."""

import re
from collections import Counter

import numpy as np

from stages.lib import bootstrap
from stages.lib.batches import answer_logprobs, greedy
from stages.lib.medqa import LETTERS, question_prompt

# How a choice is made -> the measure of the right ones.
WAYS = {"answer": "exact_match", "letter": "letter_exact_match", "generated": "generated_exact_match"}
SPOKEN = 32  # tokens of a generated answer, in which the letter must come
BINS = 10  # of confidence
LETTER = re.compile(
    r"\W{0,3}(?-i:([A-D]))(?:[.):]|\W*$)"
    r"|\W*(?:the )?(?:(?:correct|right|best|most likely) )?(?:answer|option|choice)(?: is)?:?\W{1,4}(?-i:([A-D]))\b",
    re.IGNORECASE,
)


def asked(model, questions: list[dict], tokenizer, stop_ids: set[int]) -> list[dict]:
    """What the model chooses of each question, in three ways.

    `answer`: the option whose whole answer, as it is trained ("B. text" and the end of the turn), has the highest
    log-likelihood. `letter`: by the letter alone, as lm-eval's `medqa_4options` and published figures choose;
    `probabilities` are the four letters' shares. `generated`: the letter that the greedy answer begins with, empty
    where it names none. A model that binds letters to options gives the same by all; a very small one knows the
    answer's text long before its letter.
    """
    prompts = [row["prompt_ids"] for row in questions]
    answers = greedy(model, prompts, SPOKEN, stop_ids, "MedQA, generated")
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [
        {"id": row["id"], "kind": "medqa", "step": row["meta_info"], "answer_idx": row["answer_idx"]}
        | choice
        | {"generated": spoken_letter(text), "text": text.strip()}
        for row, choice, text in zip(questions, chosen(model, questions, "MedQA"), texts, strict=True)
    ]


def chosen(model, questions: list[dict], what: str) -> list[dict]:
    """The choices by log-likelihood, and the shares of the letters' probabilities."""
    prompts, answers = [row["prompt_ids"] for row in questions], [row["answers_ids"] for row in questions]
    found = []
    for scored in answer_logprobs(model, prompts, answers, what):
        whole, letter = np.array([[each.sum(), each[0]] for each in scored]).T
        shares = np.exp(letter - letter.max())
        choices = {"answer": LETTERS[int(whole.argmax())], "letter": LETTERS[int(letter.argmax())]}
        found.append(choices | {"probabilities": (shares / shares.sum()).round(6).tolist()})
    return found


def spoken_letter(text: str) -> str:
    """The letter that an answer begins with ("B", "B. text", "(B)", "The answer is B"), else an empty string."""
    match = LETTER.match(text)
    return (match[1] or match[2]) if match else ""


def shuffled(question: dict, repeat: int) -> dict:
    """The question with its options in another order, the same for every model."""
    order = np.random.default_rng([int(question["id"], 16), repeat]).permutation(len(LETTERS))
    options = {letter: question["options"][LETTERS[at]] for letter, at in zip(LETTERS, order, strict=True)}
    right = LETTERS[order.tolist().index(LETTERS.index(question["answer_idx"]))]
    message = {"role": "user", "content": question_prompt(question["question"], options)}
    return question | {"options": options, "answer_idx": right, "messages": [message]}


def asked_again(model, questions: list[dict], again: list[dict], first: list[dict], repeat: int) -> list[dict]:
    """The model's choices by log-likelihood of the questions `again`, which are `questions` shuffled.

    `same` says whether the chosen answer has the same text as that of `first`, the choices of the questions as given.
    """
    rows = []
    choices = chosen(model, again, f"MedQA, shuffled {repeat}")
    for question, other, before, choice in zip(questions, again, first, choices, strict=True):
        same = other["options"][choice["answer"]] == question["options"][before["answer"]]
        about = {"id": question["id"], "kind": "medqa_shuffled", "repeat": repeat, "answer_idx": other["answer_idx"]}
        rows.append(about | choice | {"same": same})
    return rows


def tables(rows: list[dict], shuffled_rows: list[dict]) -> dict:
    """What lies behind the shares of right choices: by step, confidence, letters, order of the options.

    `calibration_error`: how far confidence, the probability of the chosen letter, is from the share of right ones,
    the mean over BINS equal bins weighed by their questions (Guo et al. 2017, arXiv:1706.04599).
    """
    bins = _bins(rows)
    off = sum(each["questions"] * abs(each["confidence"] - each["accuracy"]) for each in bins)
    steps = sorted({row["step"] for row in rows})
    counted = {way: Counter(row[way] for row in rows) for way in WAYS}
    return {
        "questions": len(rows),
        "unparseable": counted["generated"][""],
        "by_step": {step: _of_step([row for row in rows if row["step"] == step]) for step in steps},
        "calibration_error": off / len(rows),
        "calibration": bins,
        "chosen": {way: {letter: count[letter] for letter in LETTERS} for way, count in counted.items()},
        "right": {letter: sum(row["answer_idx"] == letter for row in rows) for letter in LETTERS},
        "shuffled": _of_shuffled(shuffled_rows),
    }


def right(rows: list[dict], way: str) -> np.ndarray:
    """Whether each question was chosen right that way, 1 or 0, and a 1 beside it."""
    return np.array([[row[way] == row["answer_idx"], 1] for row in rows], float)


def _bins(rows: list[dict]) -> list[dict]:
    confidence = np.array([max(row["probabilities"]) for row in rows])
    hits = right(rows, "letter")[:, 0]
    at = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "confidence": float(confidence[at == i].mean()),
            "accuracy": float(hits[at == i].mean()),
            "questions": int((at == i).sum()),
        }
        for i in sorted(set(at.tolist()))
    ]


def _of_step(rows: list[dict]) -> dict:
    found: dict[str, float] = {"questions": len(rows)}
    for way, measure in WAYS.items():
        units = right(rows, way)
        low, high = bootstrap.interval(units, bootstrap.ratio)
        found |= {measure: float(units[:, 0].mean()), f"{measure}_low": low, f"{measure}_high": high}
    return found


def _of_shuffled(rows: list[dict]) -> dict:
    if not rows:
        return {"repeats": 0}
    ways = {measure: way for way, measure in WAYS.items() if way in rows[0]}
    shares = {name: sum(r[way] == r["answer_idx"] for r in rows) / len(rows) for name, way in ways.items()}
    repeats = len({row["repeat"] for row in rows})
    return {"repeats": repeats} | shares | {"same_choice": sum(row["same"] for row in rows) / len(rows)}
