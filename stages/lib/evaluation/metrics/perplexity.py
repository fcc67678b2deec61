"""Perplexity, and how sure it is."""

import numpy as np


def exp_of_mean(sums: list[float], counts: list[int]) -> tuple[float, float]:
    """exp(all sums / all counts) and its standard error.

    Dialogues, of which each has a sum and a count of tokens, are the independent units (ratio estimator); the
    error is carried through exp by the delta method.
    """
    nats, tokens = np.array(sums), np.array(counts)
    mean = nats.sum() / tokens.sum()
    residual = nats - mean * tokens
    spread = np.sqrt((residual**2).sum() / max(1, len(nats) - 1) / len(nats)) / tokens.mean()
    return float(np.exp(mean)), float(np.exp(mean) * spread)
