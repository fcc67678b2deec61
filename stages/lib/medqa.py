"""MedQA: a question as a prompt, its answer as text, and the exact match of a model's chosen letter."""

import math

import numpy as np
from tqdm import tqdm

LETTERS = ("A", "B", "C", "D")
INSTRUCTION = "Answer with the letter of the correct option."


def question_text(question: str, options: dict[str, str]) -> str:
    """The question and one option a line."""
    return "\n".join([question, *(f"{letter}. {options[letter]}" for letter in LETTERS)])


def question_prompt(question: str, options: dict[str, str]) -> str:
    """The user's text: question, options, what to answer with."""
    return f"{question_text(question, options)}\n{INSTRUCTION}"


def answer_text(answer_idx: str, options: dict[str, str]) -> str:
    """The answer that is trained: letter and text."""
    return f"{answer_idx}. {options[answer_idx]}"


def measure(model, questions: list[dict]) -> tuple[dict, list[dict]]:
    """Share of questions answered right, chosen in two ways from the same log-probabilities.

    `exact_match`: the option whose whole answer, as it is trained ("B. text" and the end of the turn), has
    the highest log-likelihood. `letter_exact_match`: by the letter alone, as lm-eval's `medqa_4options` and
    the published figures choose. A model that binds letters to options gives the same by both; a very small
    one knows the answer's text long before its letter. Standard errors are binomial.
    """
    chosen = []
    for row in tqdm(questions, desc="MedQA"):
        scored = model.answer_logprobs(row["prompt_ids"], row["answers_ids"])
        whole, letter = [s.sum() for s in scored], [s[0] for s in scored]
        if not np.isfinite([whole, letter]).all():
            raise ValueError(f"question {row['id']}: the model gives NaN or infinite log-probabilities")
        choices = {"answer": LETTERS[int(np.argmax(whole))], "letter": LETTERS[int(np.argmax(letter))]}
        chosen.append({"id": row["id"], "kind": "medqa", "answer_idx": row["answer_idx"]} | choices)
    return {
        **_share("exact_match", [row["answer"] == row["answer_idx"] for row in chosen]),
        **_share("letter_exact_match", [row["letter"] == row["answer_idx"] for row in chosen]),
        "questions": len(chosen),
        "chosen": {letter: sum(row["answer"] == letter for row in chosen) for letter in LETTERS},
    }, chosen


def _share(name: str, right: list[bool]) -> dict[str, float]:
    share = sum(right) / len(right)
    return {name: share, f"{name}_stderr": math.sqrt(share * (1 - share) / len(right))}
