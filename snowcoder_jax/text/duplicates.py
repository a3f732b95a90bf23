"""Exact and near-duplicates: keys of a text, candidate pairs, exact Jaccard similarity.

Near-duplicates follow RECIPE section 3: shingles are the set of word 5-grams; MinHash (Broder
1997) with bands x rows permutations proposes pairs, and a pair counts only if the exact Jaccard
similarity of its shingle sets reaches the threshold. 25 x 10 proposes a pair of similarity 0.8
with probability 0.95, and one of 0.7 with 0.51: 1 - (1 - s^10)^25.

Where many documents share a key, comparing all pairs would be quadratic. A family is connected
without it: by its template where it has one, and by almost any of its members where all are near
to each other. A template shares more keys with others than any of its variants does, so those of
the highest degree in shared keys are compared with all the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rensa
import xxhash

from snowcoder_jax.text import words
from snowcoder_jax.text.components import distinct_rows
from snowcoder_jax.text.words import Hashes

# A candidate: `first` < `second`, two document numbers.
Pairs = npt.NDArray[np.int64]

_MINHASH_SEED = 20240903

# A group of documents under one key is compared pair by pair up to this size. A larger one is a
# crowd: its most prominent members, so many, are compared with all of it, and every member with one
# drawn neighbour on either side.
MAX_FULL_GROUP = 24
NUM_REPRESENTATIVES = 4

# Document numbers from here on are references; by default there are none.
NO_REFERENCE = 2**63 - 1


def exact_key(text: str) -> tuple[int, int]:
    """128 bits, as two 64-bit numbers, of a text without its ASCII white space."""
    folded = text.encode("utf-8", "surrogatepass").translate(None, b" \t\r\n\v\f")
    digest = xxhash.xxh3_128_intdigest(folded)
    return digest >> 64, digest & (2**64 - 1)


def exact_rows(texts: Sequence[str]) -> Hashes:
    """What parts exact copies from other texts, shape [texts, 2].

    The first number and the high half of the second are 96 bits of `exact_key`. The low half of
    the second is a hash of the text as it stands: it gives copies of different white space an
    order that does not depend on where they lie.
    """
    rows = np.zeros((len(texts), 2), np.uint64)
    for row, text in enumerate(texts):
        high, low = exact_key(text)
        as_it_stands = xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))
        rows[row] = high, low >> 32 << 32 | as_it_stands >> 32
    return rows


def copies(rows: Hashes, document: npt.NDArray[np.int64]) -> Pairs:
    """(copy, first of its copies), both document numbers, for all but the first of equal texts.

    Args:
      rows: of `exact_rows`.
      document: the document number of each row.
    """
    order = np.lexsort((document, rows[:, 1], rows[:, 0]))
    rows, document = rows[order], document[order]
    half = np.uint64(32)
    is_copy = np.zeros(len(rows), np.bool_)
    is_copy[1:] = (rows[1:, 0] == rows[:-1, 0]) & (rows[1:, 1] >> half == rows[:-1, 1] >> half)
    first = np.maximum.accumulate(np.where(is_copy, 0, np.arange(len(rows))))
    return np.stack([document[is_copy], document[first[is_copy]]], 1)


def word_ngrams(text: str, ngram_words: int) -> Hashes:
    """The hashes of a text's word n-grams as they come; a shorter text is one gram of its words.

    A text without words has none, so it is near to nothing.
    """
    hash_W = words.split_words(text.encode("utf-8", "surrogatepass")).hashes
    return words.ngram_hashes(hash_W, max(1, min(ngram_words, len(hash_W))))


def shingles(text: str, ngram_words: int) -> Hashes:
    """The sorted set of a text's `word_ngrams`."""
    return words.sorted_set(word_ngrams(text, ngram_words))


def jaccard(a: Hashes, b: Hashes) -> float:
    """|A and B| / |A or B| of two sorted sets; 0 where either is empty."""
    if len(a) == 0 or len(b) == 0:
        return 0.0
    both = np.concatenate([a, b])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def band_keys(grams: Sequence[Hashes], bands: int, rows: int) -> Hashes:
    """One 64-bit key for each document and band, shape [documents, bands].

    Two documents share the key of a band where all of its `rows` minima are equal.

    Args:
      grams: `word_ngrams` or `shingles` of each document; how often one comes makes no difference.
        A document without any must not be passed: all such would be alike.
    """
    assert all(len(g) for g in grams)
    offsets = np.cumsum([0, *(len(g) for g in grams)]).astype(np.uint64)
    flat = np.concatenate(grams) if grams else np.zeros(0, np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        flat, offsets, bands * rows, _MINHASH_SEED
    )
    minima = np.array(matrix.to_rows(), np.uint64).reshape(-1, bands, rows)
    keys = np.broadcast_to(np.arange(bands, dtype=np.uint64), minima.shape[:2]).copy()
    for row in range(rows):
        keys = words.mix(keys * np.uint64(0x9E3779B97F4A7C15) + minima[:, :, row] + np.uint64(1))
    return keys


class Crowds(NamedTuple):
    """Documents of groups that are too large to compare all pairs; one for each key and member."""

    group: npt.NDArray[np.int64]
    document: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]  # of the group


def group_pairs(key: npt.NDArray[Any], document: npt.NDArray[np.int64]) -> tuple[Pairs, Crowds]:
    """Pairs of documents in small groups, each once, sorted, shape [pairs, 2]; and the crowds.

    Args:
      key: unsigned integers of any width; documents that share one are a group.
      document: the document number of each key.
    """
    ordered = np.sort(key)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated) == 0:
        nothing = np.zeros(0, np.int64)
        return np.zeros((0, 2), np.int64), Crowds(nothing, nothing, nothing)
    # What meets nothing is most of it, and goes first.
    nearest = np.minimum(np.searchsorted(repeated, key), len(repeated) - 1)
    meets = repeated[nearest] == key
    key, document = key[meets], document[meets]
    order = np.lexsort((document, key))
    key, document = key[order], document[order]
    bounds = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1], [True]]))
    start, size = bounds[:-1], np.diff(bounds)
    pairs = [np.zeros((0, 2), np.int64)]
    for group_size in np.unique(size[size <= MAX_FULL_GROUP]).tolist():
        members = document[start[size == group_size][:, None] + np.arange(group_size)]
        first, second = np.triu_indices(group_size, 1)
        pairs.append(np.stack([members[:, first].ravel(), members[:, second].ravel()], 1))
    size = np.repeat(size, size)
    is_crowd = size > MAX_FULL_GROUP
    group = key[is_crowd].astype(np.uint64).view(np.int64)
    return distinct_rows(np.concatenate(pairs)), Crowds(group, document[is_crowd], size[is_crowd])


def prominence(
    document: npt.NDArray[np.int64], size: npt.NDArray[np.int64], text_hash: Hashes
) -> npt.NDArray[np.int64]:
    """How prominent the document of each row is, by all rows of its in all crowds.

    The high half is its degree, the number of meetings with others: a template shares the keys of
    all its variants, a variant only those that its own changes left alone. The low half is of its
    text, so that what is drawn does not depend on where a document lies.
    """
    _, which = np.unique(document, return_inverse=True)
    degree = np.bincount(which, size - 1).astype(np.int64)[which]
    low = (text_hash >> np.uint64(32)).view(np.int64)
    return np.minimum(degree, 2**31 - 1) << 32 | low


def crowd_pairs(
    group: npt.NDArray[np.int64],
    document: npt.NDArray[np.int64],
    prominent: npt.NDArray[np.int64],
    first_reference: int = NO_REFERENCE,
) -> Pairs:
    """Pairs by which crowds are compared, each once, sorted; shape [pairs, 2].

    At most `NUM_REPRESENTATIVES` + 1 for each member, and with references among them as many
    representatives again, so that neither kind hides the other's. Two references make no pair.

    Args:
      group: an independent hash of its key in the low 32 bits, whatever keeps groups apart above.
      prominent: of `prominence`.
    """
    is_reference = document >= first_reference
    order = np.lexsort((document, -prominent, is_reference, group))
    group, document, prominent = group[order], document[order], prominent[order]
    is_reference = is_reference[order]
    groups, number = np.unique(group, return_inverse=True)
    kind = 2 * number + is_reference
    position = np.arange(len(kind))
    is_first = np.diff(kind, prepend=-1) > 0
    place = position - np.maximum.accumulate(np.where(is_first, position, 0))
    drawn = words.mix((group & 0xFFFFFFFF | prominent << 32).view(np.uint64))
    mingled = np.lexsort((document, drawn, number))
    is_neighbour = number[mingled[1:]] == number[mingled[:-1]]
    neighbours = np.stack([mingled[:-1][is_neighbour], mingled[1:][is_neighbour]], 1)
    pairs = [document[neighbours]]
    for of_references, chosen in itertools.product((False, True), range(NUM_REPRESENTATIVES)):
        is_chosen = (place == chosen) & (is_reference == of_references)
        representative = np.full(len(groups), -1)
        representative[number[is_chosen]] = document[is_chosen]
        met = representative[number]
        pairs.append(np.stack([met, document], 1)[(met >= 0) & (met != document)])
    found = np.sort(np.concatenate(pairs), axis=1)
    return distinct_rows(found[found[:, 0] < first_reference])


def candidate_pairs(key: npt.NDArray[Any], document: npt.NDArray[np.int64]) -> Pairs:
    """All pairs to be compared, each once, sorted, with the keys of all bands in one place.

    Args:
      key: as of `group_pairs`.
    """
    pairs, crowds = group_pairs(key, document)
    text_hash = words.mix(crowds.document.view(np.uint64))
    prominent = prominence(crowds.document, crowds.size, text_hash)
    more = crowd_pairs(crowds.group, crowds.document, prominent)
    return distinct_rows(np.concatenate([pairs, more]))
