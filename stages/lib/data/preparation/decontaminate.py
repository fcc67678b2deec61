"""Texts that share a long n-gram with what is tested on."""

import numpy as np

from stages.lib.data.preparation.ngrams import Hashes

OVERLAP_WORDS = 13  # length of the n-grams by which the overlap of the splits is measured: GPT-3's report
TABLE_BITS = 24


def contaminated(grams: Hashes, held_out: Hashes) -> dict[int, int]:
    """Index of each text that shares an n-gram with a held-out one -> the word at which its first such n-gram begins.

    Both are `ngrams` of the same n. The measure of GPT-3's report (Brown et al. 2020, appendix C), but strict: an
    n-gram that is common wording counts too.
    """
    tested = np.unique(held_out.flat)
    shift = np.uint64(64 - TABLE_BITS)
    table = np.zeros(2**TABLE_BITS, bool)  # a look-up that tells most n-grams apart before the exact comparison
    table[tested >> shift] = True
    candidates = np.flatnonzero(table[grams.flat >> shift])
    shared = candidates[np.isin(grams.flat[candidates], tested)]
    text = np.searchsorted(grams.starts, shared, side="right") - 1
    first, at = np.unique(text, return_index=True)
    return {int(i): int(shared[k] - grams.starts[i]) for i, k in zip(first, at, strict=True)}
