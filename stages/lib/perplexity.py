"""Perplexity of the reference answers."""

import numpy as np
from tqdm import tqdm


def measure(model, examples: list[dict], end_token: int) -> tuple[dict, list[float]]:
    """exp of the mean negative log-likelihood per answer token, the end token included, weighed by tokens.

    Also returns each dialogue's sum of negative log-likelihoods, in nats.
    """
    sums, counts = [], []
    for example in tqdm(examples, desc="perplexity"):
        answer = [*example["answer_ids"], end_token]
        (logprobs,) = model.answer_logprobs(example["prompt_ids"], [answer])
        sums.append(float(-logprobs.sum()))
        counts.append(len(answer))
    value, stderr = exp_of_mean(sums, counts)
    if not np.isfinite(value):
        raise ValueError(f"perplexity is {value}: the model gives NaN or infinite log-probabilities")
    return {
        "perplexity": value,
        "perplexity_stderr": stderr,
        "answer_tokens": sum(counts),
        "dialogues": len(sums),
    }, sums


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
