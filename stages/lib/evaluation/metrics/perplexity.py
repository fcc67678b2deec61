"""Perplexity of the reference answers."""

import numpy as np

from stages.lib.batches import answer_logprobs


def likelihoods(model, examples: list[dict], end_token: int) -> list[dict]:
    """The likelihood of each dialogue's reference answer, the end token included.

    `nats`: the sum of its negative log-likelihoods, over `tokens` and over the text's `bytes` in UTF-8.
    """
    answers = [[[*example["answer_ids"], end_token]] for example in examples]
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


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural log-probabilities of logits, over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def exp_of_mean(sums: list[float], counts: list[int]) -> tuple[float, float]:
    """exp(all sums / all counts) and its standard error.

    Dialogues, of which each has a sum and a count of tokens, are the independent units (ratio estimator); the
    error is carried through exp by the delta method.
    """
    sums, counts = np.array(sums), np.array(counts)
    mean = sums.sum() / counts.sum()
    residual = sums - mean * counts
    spread = np.sqrt((residual**2).sum() / max(1, len(sums) - 1) / len(sums)) / counts.mean()
    return float(np.exp(mean)), float(np.exp(mean) * spread)
