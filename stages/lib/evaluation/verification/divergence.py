"""How far one model's predictions are from another's, token by token."""

import numpy as np
from tqdm import tqdm

from stages.lib.perplexity import exp_of_mean, log_softmax

ROWS = 64  # positions whose probabilities are in memory at a time


def measure(reference, other, dialogues: list[list[int]]) -> dict:
    """Compare the next-token predictions of two models at every position of the dialogues' token ids.

    Kullback-Leibler divergence KL(reference ‖ other) in nats, its mean and its 99th percentile; the share of positions
    with the same most likely token; the other's perplexity over the reference's, with its standard error; the largest
    difference of two logits.
    """
    divergences, same, sums, counts, largest = [], 0, [], [], 0.0
    for ids in tqdm(dialogues, desc="divergence"):
        one, two = reference.logits(ids), other.logits(ids)
        largest = max(largest, float(np.abs(one - two).max()))
        same += int((one.argmax(1) == two.argmax(1)).sum())
        loss = 0.0
        for start in range(0, len(ids), ROWS):
            p, q = (log_softmax(logits[start : start + ROWS]) for logits in (one, two))
            divergences.append((np.exp(p) * (p - q)).sum(1))
            following = ids[start + 1 : start + 1 + ROWS]
            at = np.arange(len(following))
            loss += float((p[at, following] - q[at, following]).sum())
        sums.append(loss)
        counts.append(len(ids) - 1)
    values = np.concatenate(divergences)
    ratio, stderr = exp_of_mean(sums, counts)
    return {
        "kl_mean": float(values.mean()),
        "kl_p99": float(np.quantile(values, 0.99)),
        "same_top": same / len(values),
        "perplexity_ratio": ratio,
        "perplexity_ratio_stderr": stderr,
        "largest_logit_difference": largest,
        "positions": len(values),
        "dialogues": len(dialogues),
    }
