"""score: what one model's predictions are worth."""

import sys
from pathlib import Path

import numpy as np

from stages.lib.core import paths
from stages.lib.core.files import read_jsonl, write_json
from stages.lib.core.stage import run
from stages.lib.evaluation.metrics import exams, safety, text, wilson
from stages.lib.evaluation.metrics.bootstrap import by_id
from stages.lib.evaluation.metrics.measures import measured
from stages.lib.evaluation.metrics.perplexity import exp_of_mean


def main(safety_set: Path, metrics: Path, name: str) -> None:
    """Judge the predictions of the model `name`: every measure with its interval, and the tables behind them."""
    rows = [row for _, row in read_jsonl(paths.predictions(metrics, name))]
    likelihoods, answers, choices, shuffled, replies = (
        [row for row in rows if row["kind"] == kind]
        for kind in ("likelihood", "dialogue", "medqa", "medqa_shuffled", "safety")
    )
    prompts, rubric = safety.load(safety_set)
    tokens = [row["tokens"] for row in likelihoods]
    stopped = np.array([[row["stopped"], 1] for row in answers], float)
    stopped_low, stopped_high = wilson.interval(by_id(stopped, [row["id"] for row in answers]))
    result: dict[str, object] = {"name": name}
    result |= measured(rows)
    result |= {
        "perplexity_stderr": exp_of_mean([row["nats"] for row in likelihoods], tokens)[1],
        "answer_tokens": sum(tokens),
        "dialogues": len(likelihoods),
        "bleu_signature": text.signature("bleu", answers),
        "chrf_signature": text.signature("chrf", answers),
        "answers": len(answers),
        "stopped": sum(row["stopped"] for row in answers) / len(answers),
        "stopped_low": stopped_low,
        "stopped_high": stopped_high,
    }
    result |= exams.tables(choices, shuffled)
    result |= {"safety": safety.judge(prompts, [row["answer"] for row in replies], rubric)}
    write_json(paths.scores(metrics, name), result)


if __name__ == "__main__":
    run(main, paths=(paths.SAFETY, paths.METRICS), items=sys.argv[1:])
