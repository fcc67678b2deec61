"""The safety prompts asked of a model."""

from transformers import PreTrainedTokenizerBase

from stages.lib.evaluation.engines.batches import greedy
from stages.lib.evaluation.engines.language_model import LanguageModel
from stages.lib.model.chat import prompt_ids


def predict_safety(
    model: LanguageModel,
    prompts: list[dict],
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    stop_ids: set[int],
) -> list[dict]:
    """Each prompt with its greedy answer, control tokens spelled out: what an answer spells is judged."""
    asked = [prompt_ids(tokenizer, [{"role": "user", "content": row["prompt"]}]) for row in prompts]
    texts = tokenizer.batch_decode(greedy(model, asked, max_new_tokens, stop_ids, "safety"))
    return [
        {"id": row["id"], "kind": "safety"}
        | {key: row[key] for key in ("category", "prompt")}
        | {"answer": text.strip()}
        for row, text in zip(prompts, texts, strict=True)
    ]
