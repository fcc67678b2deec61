"""Logits: their log-probabilities, and how many fit into memory."""

import numpy as np

BATCH_TOKENS = 1 << 13
BATCH_LOGITS = 1 << 28


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural log-probabilities of logits, over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def batch_tokens(vocab_size: int) -> int:
    """How many tokens a batch may have, padding and generated ones included: 8192, and no more than 2²⁸ logits."""
    return min(BATCH_TOKENS, BATCH_LOGITS // vocab_size)
