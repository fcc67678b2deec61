"""evaluate: one model's predictions, and what they are worth."""

import sys
from pathlib import Path

from stages.lib import dialogues, exam, measures, paths, perplexity, safety, similarity
from stages.lib.files import read_jsonl, sha256, write_json, write_jsonl
from stages.lib.models import load_tokenizer
from stages.lib.schema import Measure
from stages.lib.scoring import answer_examples, open_model, question_examples, stop_ids_of
from stages.lib.stage import run

ROWS = 64  # texts that a model reads together


def main(
    measure: Measure,
    models: Path,
    prepared: Path,
    base: Path,
    safe: Path,
    metrics: Path,
    name: str,
    model_path: str,
) -> None:
    """Ask the model `name` the test dialogues, the questions and the safety set, as the same token ids as any other."""
    tokenizer, stop_ids = load_tokenizer(base), stop_ids_of(base)
    rows = dialogues.by_id(prepared / "test.jsonl")[: measure.dialogues or None]
    examples = answer_examples(tokenizer, rows, measure.context - measure.max_new_tokens)
    questions = [row for _, row in read_jsonl(prepared / "medqa_test.jsonl")][: measure.questions or None]
    asked = question_examples(tokenizer, questions, measure.context)
    prompts, rubric = safety.load(safe)

    model = open_model(models / model_path, base, measure.context, ROWS)
    likelihoods = perplexity.likelihoods(model, examples, tokenizer.eos_token_id)
    answered = examples[: measure.answers or None]
    answers = similarity.answered(model, answered, tokenizer, measure.max_new_tokens, stop_ids)
    chosen = exam.asked(model, asked, tokenizer, stop_ids)
    again = []
    for repeat in range(1, measure.shuffles + 1):
        other = question_examples(tokenizer, [exam.shuffled(row, repeat) for row in questions], measure.context)
        again += exam.asked_again(model, asked, other, chosen, repeat)
    replies = safety.answered(model, prompts, tokenizer, measure.max_new_tokens, stop_ids)

    predictions = metrics / "predictions" / f"{name}.jsonl"
    found = [*likelihoods, *answers, *chosen, *again, *replies]
    write_jsonl(predictions, found)
    sums, counts = ([row[key] for row in likelihoods] for key in ("nats", "tokens"))
    result = {"name": name} | measures.measured(found)
    result |= {
        "perplexity_stderr": perplexity.exp_of_mean(sums, counts)[1],
        "answer_tokens": sum(counts),
        "dialogues": len(likelihoods),
        "bleu_signature": similarity.signature("bleu", answers),
        "chrf_signature": similarity.signature("chrf", answers),
        "answers": len(answers),
        "stopped": sum(row["stopped"] for row in answers) / len(answers),
    }
    result |= exam.tables(chosen, again)
    result |= {"safety": safety.judge(prompts, [row["answer"] for row in replies], rubric)}
    write_json(metrics / "evaluate" / f"{name}.json", result | {"predictions_sha256": sha256(predictions)})


if __name__ == "__main__":
    run(
        main,
        sections=("evaluate.measure",),
        paths=(paths.MODELS, paths.PREPARED, paths.BASE, paths.SAFETY, paths.METRICS),
        items=sys.argv[1:],
    )
