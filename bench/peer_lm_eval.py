"""One run of lm-eval: `python -m bench.peer_lm_eval SETTINGS OUT`, as bench.evaluate asks for it, with lm-eval 0.4.13.

The task is bench/lm_eval_task, whose contexts are prompts rendered by this project. lm-eval moves the line break at a
prompt's end to the front of each letter: what it scores is the line break and the letter, and the line break's part is
the same for all four. It adds no BOS where a text begins with one.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import yaml
from lm_eval import evaluate, simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from bench.measuring import resident
from bench.processes import fingerprint

TASK = Path(__file__).with_name("lm_eval_task") / "medqa_as_rendered.yaml"


def choose(settings: dict, out: Path) -> None:
    """Write the letters that a model chooses on the CPU in float32, their accuracy, the seconds and what was read.

    `lean`: this task alone is looked up and nothing is gathered about the machine, by functions that lm-eval offers;
    else all is done that its command does. `reading_seconds` are those from token ids to log-probabilities,
    `scoring_seconds` those from text.
    """
    model = HFLM(
        pretrained=settings["model"],
        device="cpu",
        dtype="float32",
        batch_size=settings["batch_size"],
        max_length=settings["context"],
    )
    spent, given = {}, {}
    for name, method in (("scoring", "loglikelihood"), ("reading", "_loglikelihood_tokens")):
        setattr(model, method, timed(getattr(model, method), name, spent, given))
    tasks = TaskManager(include_defaults=not settings["lean"])
    asked = yaml.safe_load(TASK.read_text(encoding="utf-8"))
    asked["dataset_kwargs"] = {"data_files": {"test": settings["prompts"]}}
    if settings["lean"]:
        result = evaluate(model, tasks.load([asked]))
    else:
        result = simple_evaluate(model, tasks=[asked], task_manager=tasks)
    samples = sorted(result["samples"][TASK.stem], key=lambda sample: sample["doc_id"])
    scores = [[score for score, _ in sample["filtered_resps"]] for sample in samples]
    seen = {"letters": ["ABCD"[one.index(max(one))] for one in scores], **spent}
    seen |= {"accuracy": result["results"][TASK.stem]["acc,none"]}
    seen |= {"read": fingerprint(context + letter for _, context, letter in given["reading"])}
    out.write_text(json.dumps(seen | {"peak": resident()}), encoding="utf-8")


def timed(method: Callable, name: str, spent: dict, given: dict) -> Callable:
    """The method, with its seconds and its requests noted under the name."""

    @wraps(method)
    def call(requests: list, **options) -> list:
        start = time.perf_counter()
        answered = method(requests, **options)
        spent[f"{name}_seconds"], given[name] = time.perf_counter() - start, requests
        return answered

    return call


if __name__ == "__main__":
    choose(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
