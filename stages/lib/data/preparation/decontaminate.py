"""Texts that share a long run of words with what is tested on."""

import numpy as np

from stages.lib.ngrams import Hashes

OVERLAP = 13  # words in a row that must not be shared: GPT-3's report
TABLE_BITS = 24


def contaminated(runs: Hashes, held_out: Hashes) -> dict[int, int]:
    """Index of each text that shares a run with a held-out one -> the word at which its first such run begins.

    Both are `ngrams` of the same length. The measure of GPT-3's report (Brown et al. 2020, appendix C), but
    strict: a run that is common wording counts too.
    """
    wanted = np.unique(held_out.flat)
    shift = np.uint64(64 - TABLE_BITS)
    table = np.zeros(2**TABLE_BITS, bool)  # a look-up that tells most runs apart before the exact comparison
    table[wanted >> shift] = True
    maybe = np.flatnonzero(table[runs.flat >> shift])
    shared = maybe[np.isin(runs.flat[maybe], wanted)]
    text = np.searchsorted(runs.starts, shared, side="right") - 1
    first, at = np.unique(text, return_index=True)
    return {int(i): int(shared[k] - runs.starts[i]) for i, k in zip(first, at, strict=True)}
