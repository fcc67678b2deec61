"""MedQA's predictions judged: accuracy by step, calibration, letters chosen, order of the options."""

import re
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from stages.lib.data.medqa import OPTION_LETTERS
from stages.lib.evaluation.metrics import bootstrap, wilson


class Guessing(NamedTuple):
    """The accuracy that guessing gives: the mean over questions of one in as many options as a question has."""

    overall: float
    by_step: dict[str, float]


class Way(NamedTuple):
    """A way to choose: the measure of these choices, and how the way is called."""

    measure: str
    label: str


WAYS = {
    "full_text": Way("accuracy", "by full text"),
    "letter": Way("letter_accuracy", "by letter"),
    "generated": Way("generated_accuracy", "as generated"),
}
BINS = 10  # of confidence
ANY = f"(?-i:([{''.join(OPTION_LETTERS)}]))"
LETTER = re.compile(
    rf"\W{{0,3}}{ANY}(?:[.):]|\W*$)"
    rf"|\W*(?:the )?(?:(?:correct|right|best|most likely) )?(?:answer|option|choice)(?: is)?:?\W{{1,4}}{ANY}\b",
    re.IGNORECASE,
)


def choice(row: dict, way: str) -> str:
    """The letter that a prediction chose: by log-likelihood, or the one that its generated text begins with."""
    return parse_letter(row["text"], _letters(row)) if way == "generated" else row[way]


def parse_letter(text: str, letters: tuple[str, ...]) -> str:
    """The letter that an answer begins with ("B", "B. text", "(B)", "The answer is B"), else an empty string.

    Another letter than one of `letters`, the question's own, is none.
    """
    match = LETTER.match(text)
    letter = (match[1] or match[2]) if match else ""
    return letter if letter in letters else ""


def guessing(predictions: list[dict]) -> Guessing:
    """What guessing would have given on the questions that these predictions, of any one model, are of."""
    rows = [row for row in predictions if row["kind"] == "medqa"]
    steps = sorted({row["step"] for row in rows})
    return Guessing(_chance(rows), {step: _chance([row for row in rows if row["step"] == step]) for step in steps})


def tables(rows: list[dict], shuffled_rows: list[dict]) -> dict:
    """What lies behind the accuracies: by step, confidence, letters, order of the options.

    `calibration_error`: how far confidence, the probability of the chosen letter, is from accuracy,
    the mean over BINS equal bins weighed by their questions (Guo et al. 2017, arXiv:1706.04599).
    """
    bins = _bins(rows)
    off = sum(each["questions"] * abs(each["confidence"] - each["accuracy"]) for each in bins)
    steps = sorted({row["step"] for row in rows})
    letters = max(map(_letters, rows), key=len)
    counted = {way: Counter(choice(row, way) for row in rows) for way in WAYS}
    return {
        "questions": len(rows),
        "distinct_questions": len({row["id"] for row in rows}),
        "unparseable": counted["generated"][""],
        "by_step": {step: _of_step([row for row in rows if row["step"] == step]) for step in steps},
        "calibration_error": off / len(rows),
        "calibration": bins,
        "chosen": {way: {letter: count[letter] for letter in letters} for way, count in counted.items()},
        "correct": {letter: sum(row["answer_idx"] == letter for row in rows) for letter in letters},
        "shuffled": _of_shuffled(shuffled_rows),
    }


def correct(rows: list[dict], way: str) -> np.ndarray:
    """Whether each question was answered correctly that way, 1 or 0, and a 1 beside it."""
    return np.array([[choice(row, way) == row["answer_idx"], 1] for row in rows], float)


def _letters(row: dict) -> tuple[str, ...]:
    """Those of the question that was asked: each has a probability."""
    return OPTION_LETTERS[: len(row["probabilities"])]


def _chance(rows: list[dict]) -> float:
    """Exact until it is rounded once, so that equal chances are equal numbers."""
    return float(sum(Fraction(1, len(row["probabilities"])) for row in rows) / len(rows))


def _bins(rows: list[dict]) -> list[dict]:
    confidence = np.array([max(row["probabilities"]) for row in rows])
    hits = correct(rows, "letter")[:, 0]
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
    figures: dict[str, float] = {"questions": len(rows)}
    for way, (measure, _) in WAYS.items():
        units = correct(rows, way)
        low, high = wilson.interval(bootstrap.by_id(units, [row["id"] for row in rows]))
        figures |= {measure: float(units[:, 0].mean()), f"{measure}_low": low, f"{measure}_high": high}
    return figures


def _of_shuffled(rows: list[dict]) -> dict:
    if not rows:
        return {"repeats": 0}
    ways = {measure: way for way, (measure, _) in WAYS.items() if way in rows[0]}
    shares = {name: sum(r[way] == r["answer_idx"] for r in rows) / len(rows) for name, way in ways.items()}
    repeats = len({row["repeat"] for row in rows})
    return {"repeats": repeats} | shares | {"same_choice": sum(row["same"] for row in rows) / len(rows)}
