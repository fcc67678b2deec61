"""Greedy answers to the test dialogues."""

from transformers import PreTrainedTokenizerBase

from stages.lib.evaluation.engines.batches import greedy
from stages.lib.evaluation.engines.language_model import LanguageModel


def predict_answers(
    model: LanguageModel,
    examples: list[dict],
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    stop_ids: set[int],
) -> list[dict]:
    """Every greedy answer beside its reference; `stopped` says whether it ended with EOS before `max_new_tokens`."""
    prompts = [example["prompt_ids"] for example in examples]
    answers = greedy(model, prompts, max_new_tokens, stop_ids, "answers")
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [
        {
            "id": example["id"],
            "kind": "dialogue",
            "question": example["messages"][-2]["content"],
            "reference": example["reference"],
            "answer": text.strip(),
            "stopped": len(ids) < max_new_tokens,
        }
        for example, ids, text in zip(examples, answers, texts, strict=True)
    ]
