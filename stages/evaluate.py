"""evaluate: one model's perplexity, BLEU-4 and MedQA exact match."""

import sys
from pathlib import Path

from stages.lib import bleu, dialogues, medqa, paths, perplexity
from stages.lib.files import read_jsonl, sha256, write_json, write_jsonl
from stages.lib.models import load_tokenizer
from stages.lib.schema import Measure
from stages.lib.scoring import answer_examples, open_model, question_examples, stop_ids_of
from stages.lib.stage import run


def main(measure: Measure, models: Path, prepared: Path, base: Path, metrics: Path, name: str, model_path: str) -> None:
    """Score and answer the same test dialogues and questions, as the same token ids, with the model `name`."""
    tokenizer = load_tokenizer(base)
    stop_ids = stop_ids_of(base)
    model = open_model(models / model_path, measure.context)
    rows = dialogues.by_id(prepared / "test.jsonl")[: measure.dialogues or None]
    questions = [row for _, row in read_jsonl(prepared / "medqa_test.jsonl")][: measure.questions or None]
    examples = answer_examples(tokenizer, rows, measure.context - measure.max_new_tokens)
    prompts = question_examples(tokenizer, questions, measure.context)

    perplexities, _ = perplexity.measure(model, examples, tokenizer.eos_token_id)
    answered = examples[: measure.answers or None]
    scores, answers = bleu.measure(model, answered, tokenizer, measure.max_new_tokens, stop_ids)
    matches, letters = medqa.measure(model, prompts)

    predictions = metrics / "predictions" / f"{name}.jsonl"
    write_jsonl(predictions, answers + letters)
    result = perplexities | scores | matches | {"predictions_sha256": sha256(predictions)}
    write_json(metrics / "evaluate" / f"{name}.json", {"name": name} | result)


if __name__ == "__main__":
    run(
        main,
        sections=("evaluate.measure",),
        paths=(paths.MODELS, paths.PREPARED, paths.BASE, paths.METRICS),
        items=sys.argv[1:],
    )
