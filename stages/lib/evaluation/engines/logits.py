"""Logits: their log-probabilities, and how many fit into memory."""

import numpy as np

LOGITS = 1 << 28  # that are in memory at a time; 1 GB in float32


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural log-probabilities of logits, over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def log_probability(logits: np.ndarray, token: int) -> float:
    """Natural log-probability of one token by the logits of all, without those of the others: a fifth of the time."""
    most = logits.max()
    return float(logits[token] - most) - float(np.log(np.exp(logits - most).sum(dtype=np.float64)))


def scored_tokens(vocab_size: int) -> int:
    """How many tokens may have logits at a time, so that these are at most LOGITS."""
    return LOGITS // vocab_size
