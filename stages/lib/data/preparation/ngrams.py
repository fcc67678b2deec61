"""Texts as 64-bit hashes of their words, and of their word n-grams."""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, pairwise

import numpy as np

WORD = re.compile(r"\w+")
BLOCK = 2**21  # words that are hashed together, for the sake of memory
MULTIPLIER = 0x9E3779B97F4A7C15  # odd: 2^64 over the golden ratio


@dataclass(frozen=True)
class Hashes:
    """Hashes of many texts, end to end: text i has `flat[starts[i]:starts[i + 1]]`."""

    flat: np.ndarray  # uint64
    starts: np.ndarray  # int64, one more than there are texts

    def of(self, i: int) -> np.ndarray:
        """The hashes of text i."""
        return self.flat[self.starts[i] : self.starts[i + 1]]


def words(text: str) -> list[str]:
    """The words of a text in small letters; what lies between them does not count."""
    return WORD.findall(text.casefold())


def word_hashes(texts: list[list[str]]) -> Hashes:
    """BLAKE2b of each word, cut to 64 bits: the same word always has the same hash."""
    hashed = {word: _hash(word) for word in set(chain.from_iterable(texts))}
    flat = list(map(hashed.__getitem__, chain.from_iterable(texts)))
    return Hashes(np.array(flat, np.uint64), _starts([len(text) for text in texts]))


@lru_cache(maxsize=2**16)
def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def join(parts: list[Hashes]) -> Hashes:
    """The texts of all parts, in order."""
    lengths = [np.diff(part.starts) for part in parts]
    return Hashes(
        np.concatenate([part.flat for part in parts] or [np.zeros(0, np.uint64)]),
        _starts(np.concatenate(lengths or [np.zeros(0, np.int64)])),
    )


def select(hashes: Hashes, chosen: list[int] | np.ndarray) -> Hashes:
    """The chosen texts, in the order of all."""
    lengths = np.diff(hashes.starts)
    keep = np.zeros(len(lengths), bool)
    keep[chosen] = True
    return Hashes(hashes.flat[np.repeat(keep, lengths)], _starts(lengths[keep]))


def ngrams(hashes: Hashes, n: int) -> Hashes:
    """The hash of every n-gram, in order; a text of fewer words is one shorter n-gram, an empty one has none.

    A polynomial hash modulo 2^64, put together from n-grams of 1, 2, 4, ... words, then mixed (the finaliser of
    MurmurHash3, Appleby).
    """
    cuts = np.searchsorted(hashes.starts, np.arange(0, hashes.starts[-1], BLOCK))
    cuts = np.unique(np.append(cuts, [0, len(hashes.starts) - 1]))
    parts = [Hashes(hashes.flat[s[0] : s[-1]], s - s[0]) for s in (hashes.starts[i : j + 1] for i, j in pairwise(cuts))]
    return join([_ngrams(part, n) for part in parts])


def _ngrams(hashes: Hashes, n: int) -> Hashes:
    """`ngrams` of a few texts; zeros behind each make up for the words that a short one lacks."""
    lengths = np.diff(hashes.starts)
    padded = np.zeros(hashes.starts[-1] + n * len(lengths) + n, np.uint64)
    shifts = n * np.arange(len(lengths))
    padded[np.arange(hashes.starts[-1]) + np.repeat(shifts, lengths)] = hashes.flat

    gram = padded
    size = 1  # words that `gram` has hashes of, a power of two
    whole = np.zeros_like(padded)
    covered = 0  # words at the start of the n-gram that `whole` has hashes of
    while True:
        if n & size:
            whole = whole * _power(size) + np.roll(gram, -covered)
            covered += size
        if covered == n:
            break
        gram = gram * _power(size) + np.roll(gram, -size)
        size *= 2

    counts = np.where(lengths > 0, np.maximum(lengths - n + 1, 1), 0)
    starts = _starts(counts)
    mixed = whole[np.arange(starts[-1]) + np.repeat(hashes.starts[:-1] + shifts - starts[:-1], counts)]
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    return Hashes(mixed, starts)


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(MULTIPLIER, exponent, 2**64))


def _starts(lengths: list[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
