"""predict: what one model makes of the test dialogues, the questions and the safety prompts."""

import sys
from pathlib import Path
from typing import NamedTuple

from stages.lib.core import paths
from stages.lib.core.files import read_jsonl, write_jsonl
from stages.lib.core.stage import run
from stages.lib.data.prepared import sorted_dialogues
from stages.lib.data.safety_prompts import read_prompts
from stages.lib.evaluation.engines.language_model import open_model
from stages.lib.evaluation.engines.text import ROWS
from stages.lib.evaluation.predict.dialogues import predict_dialogues
from stages.lib.evaluation.predict.examples import answer_examples, question_examples, stop_ids_of
from stages.lib.evaluation.predict.exams import predict_exam, predict_shuffled, shuffle_options
from stages.lib.evaluation.predict.safety import predict_safety
from stages.lib.model.allocator import use_expandable_segments
from stages.lib.model.loading import load_tokenizer
from stages.lib.settings.predict import Predict


class Files(NamedTuple):
    """What the stage reads, then where it writes."""

    models: Path
    prepared: Path
    base: Path
    safety_prompts: Path
    metrics: Path


def main(asked: Predict, files: Files, name: str, model_path: str) -> None:
    """Ask the model `name` the test dialogues, the questions and the safety set, as the same token ids as any other."""
    use_expandable_segments()
    tokenizer = load_tokenizer(files.base)
    stop_ids = stop_ids_of(files.base)
    dialogues = sorted_dialogues(files.prepared / "test.jsonl")[: asked.dialogues or None]
    examples = answer_examples(tokenizer, dialogues, asked.context - asked.max_new_tokens)
    questions = [row for _, row in read_jsonl(files.prepared / "medqa_test.jsonl")][: asked.questions or None]
    exam = question_examples(tokenizer, questions, asked.context)
    prompts = read_prompts(files.safety_prompts)

    model = open_model(files.models / model_path, files.base, asked.context, ROWS, asked.batch_tokens)
    answered = asked.answers or len(examples)
    predictions = predict_dialogues(model, examples, answered, tokenizer, asked.max_new_tokens, stop_ids)
    choices = predict_exam(model, exam, tokenizer, stop_ids)
    predictions += choices
    for repeat in range(1, asked.shuffles + 1):
        shuffled = [shuffle_options(row, repeat) for row in questions]
        again = question_examples(tokenizer, shuffled, asked.context)
        predictions += predict_shuffled(model, exam, again, choices, repeat)
    predictions += predict_safety(model, prompts, tokenizer, asked.max_new_tokens, stop_ids)
    write_jsonl(paths.predictions(files.metrics, name), predictions)


if __name__ == "__main__":
    run(
        main,
        sections=("evaluate.predict",),
        paths=(paths.MODELS, paths.PREPARED, paths.BASE, paths.SAFETY / "prompts.jsonl", paths.METRICS),
        items=sys.argv[1:],
    )
