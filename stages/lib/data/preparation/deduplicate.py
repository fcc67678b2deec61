"""Exact and near-duplicates among texts."""

from functools import cache
from typing import Any

import numpy as np
from rensa import RMinHash, RMinHashLSH

from stages.lib.data.preparation.ngrams import Hashes, ngrams, select

SEED = 1  # of the MinHash permutations


def exact_duplicates(keys: list[str]) -> dict[int, int]:
    """Index of each repeated key -> index of its first occurrence."""
    first: dict[str, int] = {}
    return {i: first[key] for i, key in enumerate(keys) if first.setdefault(key, i) != i}


def near_duplicates(hashes: Hashes, ngram: int, threshold: float, bands: int, band_rows: int) -> list[list[int]]:
    """Clusters of two or more texts, connected by pairs whose Jaccard similarity reaches the threshold.

    MinHash LSH (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3) proposes pairs, the true similarity
    of the sets of word n-grams decides, so no text is dropped for an accident of hashing.
    """
    grams = ngrams(hashes, ngram)
    proposed = _proposed(grams, bands, band_rows)
    parent = list(range(len(grams.starts) - 1))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    @cache
    def set_of(i: int) -> frozenset[int]:
        return frozenset(grams.of(i).tolist())

    def near(i: int, j: int) -> bool:
        a, b = set_of(i), set_of(j)
        small, large = sorted((len(a), len(b)))
        return small >= threshold * large and len(a & b) >= threshold * len(a | b)

    for bucket in proposed:
        seen: dict[int, list[int]] = {}  # members by cluster: a text is compared with a cluster until it is in it
        for j in bucket:
            for members in list(seen.values()):
                if root(members[0]) != root(j) and any(near(i, j) for i in members):
                    parent[max(root(members[0]), root(j))] = min(root(members[0]), root(j))
            seen.setdefault(root(j), []).append(j)
    clusters: dict[int, list[int]] = {}
    for i in sorted({i for bucket in proposed for i in bucket}):
        clusters.setdefault(root(i), []).append(i)
    return [members for members in clusters.values() if len(members) > 1]


def _proposed(grams: Hashes, bands: int, band_rows: int) -> list[tuple[int, ...]]:
    """Groups of texts that agree in a whole band of their signatures, each group once."""
    filled = np.flatnonzero(np.diff(grams.starts))
    if len(filled) < 2:
        return []
    index = RMinHashLSH(threshold=0.5, num_perm=bands * band_rows, num_bands=bands)
    flags = index.query_duplicate_flags_matrix_one_shot(_signatures(select(grams, filled), bands * band_rows))
    flagged = filled[np.asarray(flags, bool)]
    if len(flagged) == 0:
        return []
    signatures = np.array(_signatures(select(grams, flagged), bands * band_rows).to_rows(), np.uint32)
    groups = set()
    for band in np.split(signatures, bands, axis=1):
        _, group = np.unique(np.ascontiguousarray(band).view(f"V{band_rows * 4}").ravel(), return_inverse=True)
        order = np.argsort(group, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            if len(members) > 1:
                groups.add(tuple(flagged[members].tolist()))
    return sorted(groups)


def _signatures(grams: Hashes, num_perm: int) -> Any:
    return RMinHash.digest_matrix_from_flat_token_hashes(
        np.ascontiguousarray(grams.flat), grams.starts.astype(np.uint64), num_perm=num_perm, seed=SEED
    )
