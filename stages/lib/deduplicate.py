"""Exact and near-duplicates among texts."""

import re
from hashlib import blake2b

import numpy as np
from datasketch import MinHash, MinHashLSH
from tqdm import tqdm

from stages.lib.split import content_hash

WORD = re.compile(r"\w+")


def exact_duplicates(texts: list[str]) -> dict[int, int]:
    """Index of each repeated text -> index of its first occurrence; case does not count."""
    first: dict[str, int] = {}
    duplicates = {}
    for i, text in enumerate(texts):
        kept = first.setdefault(content_hash(text), i)
        if kept != i:
            duplicates[i] = kept
    return duplicates


def near_duplicates(texts: list[str], ngram: int, threshold: float, num_perm: int) -> dict[int, int]:
    """Index of each text that is a near-duplicate of an earlier kept one -> index of that one.

    MinHash LSH (Broder 1997) proposes candidates, the true Jaccard similarity of the word n-grams decides,
    so no text is dropped for an accident of hashing. The first of a cluster is kept.
    """
    index = MinHashLSH(threshold=threshold, num_perm=num_perm)
    kept: dict[int, np.ndarray] = {}
    duplicates = {}
    for i, text in enumerate(tqdm(texts, desc="near-duplicates")):
        shingles = _shingles(text, ngram)
        sketch = MinHash(num_perm=num_perm, hashfunc=int)
        sketch.update_batch(shingles.tolist())
        alike = [j for j in sorted(index.query(sketch)) if _jaccard(shingles, kept[j]) >= threshold]
        if alike:
            duplicates[i] = alike[0]
        else:
            kept[i] = shingles
            index.insert(i, sketch)
    return duplicates


def _shingles(text: str, ngram: int) -> np.ndarray:
    """Sorted 32-bit hashes of the distinct word n-grams; a shorter text is one n-gram."""
    words = WORD.findall(text.casefold())
    grams = {" ".join(words[i : i + ngram]) for i in range(max(1, len(words) - ngram + 1))}
    return np.unique(
        np.array([int.from_bytes(blake2b(g.encode(), digest_size=4).digest(), "big") for g in grams], np.uint32)
    )


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)
