"""95 % intervals of shares: of answers that are right, of answers that end."""

from math import sqrt

import numpy as np

Z = 1.959964  # the normal curve's quantile, so that 95 % lie between −Z and Z


def interval(units: np.ndarray) -> tuple[float, float]:
    """Wilson's score interval (1927, JASA 22: 209-212) of a share; one of 0 of 8, or of 8 of 8, has a width too.

    `units` has (times right, times asked) of each distinct question, shape (questions, 2), as `bootstrap.by_id` makes
    it. The share counts a question as often as it stands, but its second answer tells nothing new. The interval is
    therefore that of Kish's effective number of questions (1965), (Σ asked)² / Σ asked²: all of them where each stands
    once, and of 10 that stand twice beside 10 that stand once 18, not 30. This is exact where a question is right each
    time or wrong each time; where its right answers contradict each other, the interval is wider than it need be.
    """
    right, asked = (float(total) for total in units.sum(0))
    return of_share(right / asked, asked**2 / float((units[:, 1] ** 2).sum()))


def of_share(share: float, effective: float) -> tuple[float, float]:
    """Wilson's interval of a share of so many independent questions, which need not be a whole number."""
    shrunk = 1 + Z**2 / effective
    middle = (share + Z**2 / (2 * effective)) / shrunk
    half = Z / shrunk * sqrt(share * (1 - share) / effective + Z**2 / (4 * effective**2))
    return max(0.0, middle - half), min(1.0, middle + half)
