"""95 % intervals and paired differences by resampling what is independent: dialogues, questions.

Efron & Tibshirani 1993, percentile intervals; Koehn 2004 for BLEU. The same figures in every run.
"""

from collections.abc import Callable
from math import comb

import numpy as np

RESAMPLES = 1000
SEED = 20041
TAILS = (2.5, 97.5)  # per cent
Value = Callable[[np.ndarray], np.ndarray]  # sums over units, shape (n, k) -> figures, shape (n,)


def interval(units: np.ndarray, value: Value) -> tuple[float, float]:
    """Between which the figure lies in 95 % of the resamples; `units` has the terms of its sums, shape (units, k)."""
    low, high = np.percentile(value(_sums(units)), TAILS)
    return float(low), float(high)


def paired(one: np.ndarray, other: np.ndarray, value: Value) -> dict[str, float]:
    """`difference` of the figures, other less one, its 95 % interval and the two-sided `p` of no difference.

    Both are measured on the same units in the same order, and each resample takes the same units of both.
    """
    differences = value(_sums(other)) - value(_sums(one))
    low, high = np.percentile(differences, TAILS)
    beyond = 1 + min((differences <= 0).sum(), (differences >= 0).sum())
    difference = float(value(other.sum(0, keepdims=True))[0] - value(one.sum(0, keepdims=True))[0])
    p = min(1.0, 2 * float(beyond) / (RESAMPLES + 1))
    return {"difference": difference, "low": float(low), "high": float(high), "p": p}


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Two-sided exact p of McNemar's test (1947): of the questions that just one of two got right, half are each's."""
    gained, lost = int((other > one).sum()), int((one > other).sum())
    changed = gained + lost
    tail = sum(comb(changed, k) for k in range(min(gained, lost) + 1)) / 2**changed
    return min(1.0, 2 * tail)


def ratio(sums: np.ndarray) -> np.ndarray:
    """The first sum over the second."""
    return sums[:, 0] / sums[:, 1]


def _sums(units: np.ndarray) -> np.ndarray:
    """Sums of the units of each resample, shape (RESAMPLES, k).

    Added unit by unit: the last digits of a matrix product depend on the processor.
    """
    count = len(units)
    weights = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    sums = np.zeros((RESAMPLES, units.shape[1]))
    for weight, unit in zip(weights.T, units, strict=True):
        sums += np.outer(weight, unit)
    return sums
