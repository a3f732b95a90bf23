"""Signals of the words of texts and of how they repeat, many texts at a time.

Gopher's repetition signals (arXiv 2112.11446, table A1) as RedPajama and OpenCoder have them
(arXiv 2411.04905, appendix): words are runs of letters and digits, ASCII case folded, underscores
and other marks between them. Words are compared by 64-bit hashes.

Shapes: N texts, W words of the texts in order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from snowcoder_jax.text import signals
from snowcoder_jax.text.signals import Columns, Ints, share
from snowcoder_jax.text.words import mix, split_words

Hashes = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

TOP_GRAMS = (2, 3, 4)
REPEATED_GRAMS = (5, 6, 7, 8, 9, 10)
NAMES = (
    "num_words",
    "mean_word_characters",
    "unique_word_share",
    *(f"top_{n}gram_share" for n in TOP_GRAMS),
    *(f"repeated_{n}gram_share" for n in REPEATED_GRAMS),
)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def measure(texts: Sequence[bytes]) -> Columns:
    """The signals of texts by name, each of shape [N].

    num_words; mean_word_characters; unique_word_share: different words, of all.
    top_Ngram_share: characters of the words of the commonest n-gram (the first of several) times
    its count, of the characters of all words; 0 where none occurs twice.
    repeated_Ngram_share: characters of words inside n-grams that occur more than once.
    """
    parts = [_measure_group(texts[group]) for group in signals.groups(texts)]
    return {name: np.concatenate([p[name] for p in parts] or [np.zeros(0)]) for name in NAMES}


def _measure_group(texts: Sequence[bytes]) -> Columns:
    laid = signals.lay_out([t.lower().replace(b"_", b" ") for t in texts])
    hash_W, start_W, end_W = split_words(laid.data)
    continuation_P = np.flatnonzero(laid.array.view(np.int8) < -64)
    characters_W = end_W - start_W
    if len(continuation_P):
        of_word = np.searchsorted(end_W, continuation_P, side="right")
        characters_W = characters_W - np.bincount(of_word, minlength=len(end_W))[: len(end_W)]
    # Words of text n: from first_N[n] to below first_N[n + 1].
    first_N = np.searchsorted(start_W, np.append(laid.starts, len(laid.data)))
    num_words_N = np.diff(first_N)
    text_W = np.repeat(np.arange(len(texts)), num_words_N)
    sums = np.concatenate([[0], np.cumsum(characters_W)])
    total_N = sums[first_N[1:]] - sums[first_N[:-1]]
    # The same word in another text is another word.
    hash_W = mix(hash_W + mix(text_W.astype(np.uint64)))

    columns: Columns = {
        "num_words": num_words_N.astype(np.float64),
        "mean_word_characters": share(total_N, num_words_N),
    }
    every_W = np.arange(len(hash_W))
    count_W, is_first_W = _count_equal(hash_W, every_W)
    unique_N = np.bincount(text_W[is_first_W], minlength=len(texts))
    columns["unique_word_share"] = share(unique_N, num_words_N)
    gram_W = hash_W  # hashes of the n-grams that begin at each word
    last_W = first_N[1:][text_W] if len(text_W) else every_W
    repeats_W = count_W > 1
    for n in range(2, REPEATED_GRAMS[-1] + 1):
        gram_W = gram_W[:-1] * _FACTOR + hash_W[n - 1 :] if len(gram_W) > 1 else gram_W[:0]
        # An n-gram repeats only where the shorter ones at its beginning and its end do.
        size = len(gram_W)
        candidate_W = (
            repeats_W[:size] & repeats_W[1 : size + 1] & (every_W[:size] + n <= last_W[:size])
        )
        place_P = np.flatnonzero(candidate_W)
        count_P, _ = _count_equal(gram_W, place_P)
        repeats_W = np.zeros(size, np.bool_)
        repeats_W[place_P] = count_P > 1
        if n in TOP_GRAMS:
            characters_P = sums[place_P + n] - sums[place_P]
            top_N = _top(count_P, characters_P, text_W[place_P], len(texts))
            columns[f"top_{n}gram_share"] = share(top_N, total_N)
        if n in REPEATED_GRAMS:
            covered_W = _cover(np.flatnonzero(repeats_W), n, len(hash_W))
            inside = np.concatenate([[0], np.cumsum(characters_W * covered_W)])
            inside_N = inside[first_N[1:]] - inside[first_N[:-1]]
            columns[f"repeated_{n}gram_share"] = share(inside_N, total_N)
    return columns


def _count_equal(hash_W: Hashes, place_P: Ints) -> tuple[Ints, Bools]:
    """How often the hash at each place occurs among the places, and whether it is a first one.

    "First" of equal ones is one of them, not always the leftmost.
    """
    if len(place_P) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.bool_)
    hash_P = hash_W[place_P]
    order_P = np.argsort(hash_P)
    ordered = hash_P[order_P]
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    begins = np.flatnonzero(starts)
    count_P = np.empty(len(place_P), np.int64)
    sizes = np.diff(np.append(begins, len(place_P)))
    count_P[order_P] = np.repeat(sizes, sizes)
    is_first_P = np.zeros(len(place_P), np.bool_)
    is_first_P[order_P[begins]] = True
    return count_P, is_first_P


def _top(count_P: Ints, characters_P: Ints, text_P: Ints, num_texts: int) -> Ints:
    """Characters of the commonest n-gram of each text, the first of several, times its count."""
    most_N = np.zeros(num_texts, np.int64)
    np.maximum.at(most_N, text_P, count_P)
    is_most_P = (count_P == most_N[text_P]) & (count_P > 1)
    of_text, first = np.unique(text_P[is_most_P], return_index=True)
    top_N = np.zeros(num_texts, np.int64)
    top_N[of_text] = (count_P * characters_P)[is_most_P][first]
    return top_N


def _cover(start_P: Ints, size: int, num_words: int) -> Bools:
    """Which words lie in one of the n-grams that begin at the given places."""
    change = np.zeros(num_words + 1, np.int64)
    change[start_P] += 1
    change[start_P + size] -= 1
    return np.cumsum(change)[:-1] > 0
