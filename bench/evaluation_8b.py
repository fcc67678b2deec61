"""How fast `predict` reads and writes with bench.train_8b's base: `python -m bench.evaluation_8b SETTINGS OUT`."""

import time
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from bench.base_8b import sizes
from bench.processes import Answers, asked
from bench.steps import cap, peaks
from stages.lib.core import paths
from stages.lib.evaluation.engines.batches import batches
from stages.lib.evaluation.engines.text import Text
from stages.lib.evaluation.engines.transformers_model import TransformersModel
from stages.lib.evaluation.predict.exams import MAX_NEW_TOKENS

RECIPE = Path("conf/experiment/chatdoctor-8b.yaml")
QUESTIONS = 1273  # MedQA's test questions
# Tokens, of the real sources about their means: of a dialogue's prompt and answer, a question and each of its four
# answers, a safety prompt.
DIALOGUE, ANSWER, QUESTION, OPTION, SAFETY = 122, 130, 222, 9, 40
FEW = 5  # prompts
NEW_TOKENS = {"cuda": 32, "cpu": 4}


def measure(settings: dict, answers: Answers) -> None:
    """Load the base as `predict` does; say the rates of prefill and decode, and the minutes that a model then takes."""
    cap(sizes().cap_gib)
    recipe = OmegaConf.load(RECIPE).evaluate.predict
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    start = time.perf_counter()
    model = TransformersModel(Path(settings["folder"]) / "base", None, device, dtype, recipe.batch_tokens)
    load = time.perf_counter() - start
    answers.add(f"loaded in {load:.0f} s; a batch has {recipe.batch_tokens:,} tokens", load_seconds=load)
    work = texts_of(recipe)
    made = {name: batches([text] * count, model.fits) for name, (count, text) in work.items()}
    together = {name: max(map(len, each), default=0) for name, each in made.items()}
    prefill = read_rate(model, work["questions"][1], together["questions"])
    answers.add(
        f"{together['questions']} questions and their answers together: {prefill:,.0f} tokens read a second",
        read_rate=prefill,
    )
    most, steps = together["dialogues, answered"], {}
    for rows in (FEW, most):
        steps[rows] = step_seconds(model, rows, NEW_TOKENS[device])
        rates = f"{1e3 * steps[rows]:.1f} ms a step, {rows / steps[rows]:,.0f} tokens written a second"
        answers.add(f"{rows} prompts together: {rates}", step_seconds=steps)
    read = sum(count * (text.prompt + sum(text.answers)) for count, text in work.values())
    written = sum(len(made[name]) * text.generated for name, (_, text) in work.items())
    minutes = (read / prefill + written * steps[most]) / 60
    memory = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in peaks().items())
    total = f"{read:,} tokens read, at most {written:,} steps: {minutes:.1f} minutes"
    answers.add(f"a model of the recipe: {total}; {memory}", minutes=minutes, **peaks())


def texts_of(recipe) -> dict[str, tuple[int, Text]]:
    """What `predict` asks a model by the recipe: how many texts of each kind, and one of them."""
    answered = Text(DIALOGUE, [ANSWER], recipe.max_new_tokens)
    question = Text(QUESTION, [OPTION] * 4, MAX_NEW_TOKENS)
    prompts = len((paths.SAFETY / "prompts.jsonl").read_text(encoding="utf-8").splitlines())
    return {
        "dialogues, answered": (recipe.answers, answered),
        "dialogues": (recipe.dialogues - recipe.answers, answered._replace(generated=0)),
        "questions": (QUESTIONS, question),
        "questions, shuffled": (QUESTIONS * recipe.shuffles, question._replace(generated=0)),
        "safety prompts": (prompts, Text(SAFETY, [], recipe.max_new_tokens)),
    }


def read_rate(model: TransformersModel, text: Text, rows: int) -> float:
    """Tokens a second of prompts with their answers, so many together; the second of two times."""
    prompts, answers = random_ids(model, rows, text.prompt), [random_ids(model, 4, OPTION) for _ in range(rows)]
    for _ in range(2):
        start = time.perf_counter()
        model.ask(prompts, answers, 0, set())
        seconds = time.perf_counter() - start
    return rows * (text.prompt + sum(text.answers)) / seconds


def step_seconds(model: TransformersModel, rows: int, new: int) -> float:
    """Seconds in which each of so many prompts gets one more token, without their prefill; the mean of `new`."""
    prompts, seconds = random_ids(model, rows, DIALOGUE), {}
    for tokens in (2, 1, new + 1):  # the first one warms up
        start = time.perf_counter()
        for _ in model.generate(prompts, tokens, set()):
            pass
        seconds[tokens] = time.perf_counter() - start
    return (seconds[new + 1] - seconds[1]) / new


def random_ids(model: TransformersModel, rows: int, tokens: int) -> list[list[int]]:
    """Random texts of so many tokens."""
    return np.random.default_rng(rows).integers(0, model.model.config.vocab_size, (rows, tokens)).tolist()


if __name__ == "__main__":
    measure(*asked())
