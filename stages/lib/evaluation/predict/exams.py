"""MedQA asked of a model: by log-likelihood, as a generated answer, and with its options in another order."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from stages.lib.data.medqa import OPTION_LETTERS, letters_of, question_prompt
from stages.lib.evaluation.engines.batches import ask
from stages.lib.evaluation.engines.language_model import LanguageModel
from stages.lib.evaluation.engines.reply import Reply

MAX_NEW_TOKENS = 32  # of a generated answer, in which the letter must come


def predict_exam(
    model: LanguageModel, questions: list[dict], tokenizer: PreTrainedTokenizerBase, stop_ids: set[int]
) -> list[dict]:
    """What the model chooses of each question, by log-likelihood, and the `text` that it generates.

    A model that binds letters to options chooses the same by all; a very small one knows the answer's text long
    before its letter.
    """
    replies = _ask(model, questions, MAX_NEW_TOKENS, stop_ids, "MedQA")
    texts = tokenizer.batch_decode([reply.greedy for reply in replies], skip_special_tokens=True)
    return [
        {"id": row["id"], "kind": "medqa", "step": row["meta_info"], "answer_idx": row["answer_idx"]}
        | choice(reply.logprobs)
        | {"text": text.strip()}
        for row, reply, text in zip(questions, replies, texts, strict=True)
    ]


def predict_shuffled(
    model: LanguageModel, questions: list[dict], shuffled: list[dict], first: list[dict], repeat: int
) -> list[dict]:
    """The model's choices by log-likelihood of the questions `shuffled`, which are `questions` in another order.

    `same` says whether the chosen answer has the same text as that of `first`, the choices of the questions as given.
    """
    rows = []
    choices = choose(model, shuffled, f"MedQA, shuffled {repeat}")
    for question, other, before, chosen in zip(questions, shuffled, first, choices, strict=True):
        same = other["options"][chosen["full_text"]] == question["options"][before["full_text"]]
        about = {"id": question["id"], "kind": "medqa_shuffled", "repeat": repeat, "answer_idx": other["answer_idx"]}
        rows.append(about | chosen | {"same": same})
    return rows


def choose(model: LanguageModel, questions: list[dict], what: str) -> list[dict]:
    """What the model chooses of each question by log-likelihood (`choice`)."""
    return [choice(reply.logprobs) for reply in _ask(model, questions, 0, set(), what)]


def choice(logprobs: list[np.ndarray]) -> dict:
    """The letter chosen by log-likelihood, in two ways, and the shares of the letters' probabilities.

    `logprobs`: of the tokens of each option's answer, A's first. `full_text`: the option whose whole answer, as it is
    trained ("B. text" and EOS), has the highest log-likelihood. `letter`: by the letter alone, as lm-eval's
    `medqa_4options` and published figures choose; `probabilities` are the letters' shares, one of each option.
    """
    full_text, letter = np.array([[each.sum(), each[0]] for each in logprobs]).T
    shares = np.exp(letter - letter.max())
    return {
        "full_text": OPTION_LETTERS[int(full_text.argmax())],
        "letter": OPTION_LETTERS[int(letter.argmax())],
        "probabilities": (shares / shares.sum()).round(6).tolist(),
    }


def shuffle_options(question: dict, repeat: int) -> dict:
    """The question with its options in another order, the same for every model."""
    letters = letters_of(question["options"])
    order = np.random.default_rng([int(question["id"], 16), repeat]).permutation(len(letters))
    options = {letter: question["options"][letters[at]] for letter, at in zip(letters, order, strict=True)}
    right = letters[order.tolist().index(letters.index(question["answer_idx"]))]
    message = {"role": "user", "content": question_prompt(question["question"], options)}
    return question | {"options": options, "answer_idx": right, "messages": [message]}


def _ask(
    model: LanguageModel, questions: list[dict], max_new_tokens: int, stop_ids: set[int], what: str
) -> list[Reply]:
    prompts = [row["prompt_ids"] for row in questions]
    answers = [row["answers_ids"] for row in questions]
    return ask(model, prompts, answers, max_new_tokens, stop_ids, what)
