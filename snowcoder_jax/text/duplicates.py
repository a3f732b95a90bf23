"""Exact and near-duplicates: keys of a text, candidate pairs, exact Jaccard, clusters.

Near-duplicates follow RECIPE section 3: shingles are the set of word 5-grams; MinHash (Broder
1997) with bands x rows permutations proposes pairs, and a pair counts only if the exact Jaccard
similarity of its shingle sets reaches the threshold. 25 x 10 proposes a pair of similarity 0.8
with probability 0.95, and one of 0.7 with 0.51: 1 - (1 - s^10)^25.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import rensa
import xxhash

from snowcoder_jax.text import words
from snowcoder_jax.text.words import Hashes

# A candidate: `first` < `second`, two document numbers.
Pairs = npt.NDArray[np.int64]

_MINHASH_SEED = 20240903

# A group of documents under one key is compared pair by pair up to this size. In a larger one
# every document is compared with these many first ones and with its neighbour: linear, and still
# connected where all are alike.
MAX_FULL_GROUP = 24
NUM_REPRESENTATIVES = 8


def exact_key(text: str) -> tuple[int, int]:
    """128 bits, as two 64-bit numbers, of a text without its ASCII white space."""
    folded = text.encode("utf-8", "surrogatepass").translate(None, b" \t\r\n\v\f")
    digest = xxhash.xxh3_128_intdigest(folded)
    return digest >> 64, digest & (2**64 - 1)


def shingles(text: str, ngram_words: int) -> Hashes:
    """The sorted set of a text's word n-gram hashes; a shorter text is one gram of all its words.

    A text without words has none, so it is near to nothing.
    """
    hash_W = words.split_words(text.encode("utf-8", "surrogatepass")).hashes
    return words.sorted_set(words.ngram_hashes(hash_W, max(1, min(ngram_words, len(hash_W)))))


def jaccard(a: Hashes, b: Hashes) -> float:
    """|A and B| / |A or B| of two sorted sets; 0 where either is empty."""
    if len(a) == 0 or len(b) == 0:
        return 0.0
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def band_keys(shingle_sets: Sequence[Hashes], bands: int, rows: int) -> Hashes:
    """One 64-bit key for each document and band, shape [documents, bands].

    Two documents share the key of a band where all of its `rows` minima are equal. A document
    without shingles must not be passed: all such would be alike.
    """
    assert all(len(s) for s in shingle_sets)
    offsets = np.cumsum([0, *(len(s) for s in shingle_sets)]).astype(np.uint64)
    flat = np.concatenate(shingle_sets) if shingle_sets else np.zeros(0, np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        flat, offsets, bands * rows, _MINHASH_SEED
    )
    minima = np.array(matrix.to_rows(), np.uint64).reshape(-1, bands, rows)
    keys = np.broadcast_to(np.arange(bands, dtype=np.uint64), minima.shape[:2]).copy()
    for row in range(rows):
        keys = words.mix(keys * np.uint64(0x9E3779B97F4A7C15) + minima[:, :, row] + np.uint64(1))
    return keys


def candidate_pairs(key: Hashes, document: npt.NDArray[np.int64]) -> Pairs:
    """Pairs of documents that share a key, each once, sorted; shape [pairs, 2].

    Hot keys give a linear number of pairs: see `MAX_FULL_GROUP`.
    """
    pairs: list[Pairs] = []
    for group in _groups(key, document):
        if len(group) <= MAX_FULL_GROUP:
            first, second = np.triu_indices(len(group), 1)
        else:
            first, second = _linear_pairs(len(group))
        pairs.append(np.stack([group[first], group[second]], 1))
    return unique_pairs(pairs)


def unique_pairs(pairs: Iterable[Pairs]) -> Pairs:
    """Pairs joined, sorted, each once."""
    joined = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    return np.unique(joined, axis=0) if len(joined) else joined


def _groups(key: Hashes, document: npt.NDArray[np.int64]) -> Iterable[npt.NDArray[np.int64]]:
    order = np.lexsort((document, key))
    key, document = key[order], document[order]
    bounds = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1], [True]]))
    if len(key) == 0:
        return
    for start, end in itertools.pairwise(bounds):
        if end - start > 1:
            yield document[start:end]


def _linear_pairs(size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    pairs = {(r, i) for i in range(1, size) for r in (*range(NUM_REPRESENTATIVES), i - 1) if r < i}
    array = np.array(sorted(pairs), np.int64)
    return array[:, 0], array[:, 1]


def connected_components(pairs: Pairs) -> dict[int, int]:
    """Union-find: document -> the smallest document of its component, for all in a pair."""
    parent: dict[int, int] = {}

    def find(x: int) -> int:
        root = x
        while parent[root] != root:
            root = parent[root]
        while parent[x] != root:
            parent[x], x = root, parent[x]
        return root

    for a, b in pairs.tolist():
        parent.setdefault(a, a)
        parent.setdefault(b, b)
        low, high = sorted((find(a), find(b)))
        parent[high] = low
    return {x: find(x) for x in sorted(parent)}
