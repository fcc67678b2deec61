"""The likelihood of the reference answers."""

from stages.lib.evaluation.engines.batches import answer_logprobs
from stages.lib.evaluation.engines.language_model import LanguageModel


def predict_likelihoods(model: LanguageModel, examples: list[dict], eos_id: int) -> list[dict]:
    """The likelihood of each dialogue's reference answer, EOS included.

    `nats`: the sum of its negative log-likelihoods, over `tokens` and over the text's `bytes` in UTF-8.
    """
    answers = [[[*example["answer_ids"], eos_id]] for example in examples]
    scored = answer_logprobs(model, [example["prompt_ids"] for example in examples], answers, "perplexity")
    return [
        {
            "id": example["id"],
            "kind": "likelihood",
            "nats": float(-logprobs.sum()),
            "tokens": len(logprobs),
            "bytes": len(example["reference"].strip().encode()),
        }
        for example, (logprobs,) in zip(examples, scored, strict=True)
    ]
