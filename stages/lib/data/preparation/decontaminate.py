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
    ours, theirs = grams.flat, held_out.flat
    if len(theirs) > len(ours):  # what is sorted below is then the few that may be shared
        theirs = theirs[_may_be_in(theirs, ours)]
    candidates = np.flatnonzero(_may_be_in(ours, theirs))
    shared = candidates[_is_in(ours[candidates], np.sort(theirs))]
    text = np.searchsorted(grams.starts, shared, side="right") - 1
    first, at = np.unique(text, return_index=True)
    return {int(i): int(shared[k] - grams.starts[i]) for i, k in zip(first, at, strict=True)}


def _may_be_in(hashes: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """False for nearly all that are not among the tested, by a table of their first bits."""
    shift = np.uint64(64 - TABLE_BITS)
    table = np.zeros(2**TABLE_BITS, bool)
    table[tested >> shift] = True
    return table[hashes >> shift]


def _is_in(hashes: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which hashes are among the ordered ones; numpy's own `isin` takes many times as long for so many integers."""
    if len(ordered) == 0:
        return np.zeros(len(hashes), bool)
    at = np.searchsorted(ordered, hashes)
    return ordered[np.minimum(at, len(ordered) - 1)] == hashes
