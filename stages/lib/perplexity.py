"""Perplexity of the reference answers."""

import numpy as np
from tqdm import tqdm


def measure(model, examples: list[dict], end_token: int) -> tuple[dict, list[float]]:
    """exp of the mean negative log-likelihood per answer token, the end token included, weighed by tokens.

    The standard error treats dialogues as the independent units (ratio estimator) and is carried to the
    perplexity by the delta method. Also returns each dialogue's sum of negative log-likelihoods, in nats.
    """
    sums, counts = [], []
    for example in tqdm(examples, desc="perplexity"):
        answer = [*example["answer_ids"], end_token]
        (logprobs,) = model.answer_logprobs(example["prompt_ids"], [answer])
        sums.append(float(-logprobs.sum()))
        counts.append(len(answer))
    sums_, counts_ = np.array(sums), np.array(counts)
    mean = sums_.sum() / counts_.sum()
    value = float(np.exp(mean))
    if not np.isfinite(value):
        raise ValueError(f"perplexity is {value}: the model gives NaN or infinite log-probabilities")
    residual = sums_ - mean * counts_
    spread = np.sqrt((residual**2).sum() / max(1, len(sums) - 1) / len(sums)) / counts_.mean()
    return {
        "perplexity": value,
        "perplexity_stderr": float(value * spread),
        "answer_tokens": int(counts_.sum()),
        "dialogues": len(sums),
    }, sums
