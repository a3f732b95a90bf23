"""A byte n-gram model: the yardstick beside every figure in bits per byte.

Interpolated Witten-Bell smoothing (Witten and Bell 1991, IEEE Transactions on Information Theory
37(4), method C; interpolated as in Chen and Goodman, TR-10-98, section 2.4):

    p(b | h) = (count(h b) + kinds(h) p(b | shorter h)) / (count(h) + kinds(h))

with `kinds(h)` the number of different bytes seen after h, the uniform 1/256 below the shortest
context, and the model of the shorter context alone where h was never seen. Documents know nothing
of each other: the bytes before a document's first are a start mark that is never predicted.

Tables are sorted arrays of n-grams packed 9 bits a symbol into 64-bit integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SYMBOL_BITS = 9
START = 256
MAX_ORDER = 63 // SYMBOL_BITS
# Bounds the memory of scoring; documents stay whole.
SCORE_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class _Order:
    """n-grams of one length: `grams` and their probabilities; contexts and their backoff weight."""

    grams: Keys
    probabilities: Floats
    contexts: Keys
    backoffs: Floats


class ByteNgram:
    """A byte model of a given order: a byte is told from the `order` - 1 before it.

    Args:
      order: 1 to 7.
    """

    def __init__(self, order: int = 5) -> None:
        assert 1 <= order <= MAX_ORDER, order
        self.order = order
        self._orders: list[_Order] = []

    def train(self, documents: bytes | Sequence[bytes]) -> None:
        """Count all documents (`bytes`: one document), replacing what was learnt before."""
        grams = _grams([documents] if isinstance(documents, bytes) else documents, self.order)
        grams.sort()
        keys, counts = _sum_runs(grams, np.ones(len(grams), np.int64))
        tables = [(keys, counts)]
        for length in range(self.order - 1, 0, -1):
            # The shorter n-grams are the ends of the longer ones.
            ends = keys & _mask(length)
            by_end = np.argsort(ends, kind="stable")
            keys, counts = _sum_runs(ends[by_end], counts[by_end])
            tables.append((keys, counts))
        self._orders = []
        for keys, counts in reversed(tables):
            self._orders.append(self._smoothed(keys, counts))

    def _smoothed(self, keys: Keys, counts: Keys) -> _Order:
        context_of_gram = keys >> SYMBOL_BITS
        contexts, totals = _sum_runs(context_of_gram, counts)
        _, kinds = _sum_runs(context_of_gram, np.ones_like(counts))
        repeats = np.repeat(np.arange(len(contexts)), kinds)
        shorter = self._look_up(keys & _mask(len(self._orders)), len(self._orders))
        probabilities = (counts + kinds[repeats] * shorter) / (totals + kinds)[repeats]
        return _Order(keys, probabilities, contexts, kinds / (totals + kinds))

    def _look_up(self, grams: Keys, length: int) -> Floats:
        """Probabilities of the last symbol of each n-gram, by the models up to `length`."""
        result = np.full(len(grams), 1 / 256)
        for n, order in enumerate(self._orders[:length], 1):
            if not len(order.grams):
                continue  # nothing was there to learn from
            ends = grams & _mask(n)
            where = _find(order.contexts, ends >> SYMBOL_BITS)
            result *= np.where(where >= 0, order.backoffs[where], 1.0)
            where = _find(order.grams, ends)
            result = np.where(where >= 0, order.probabilities[where], result)
        return result

    def bits(self, document: bytes) -> float:
        """Bits to tell one document."""
        return float(self.document_bits([document])[0])

    def document_bits(self, documents: Sequence[bytes]) -> Floats:
        """Bits to tell each document, float64 [number of documents]."""
        assert self._orders, "train comes first"
        result = np.zeros(len(documents))
        batch: list[int] = []
        num_bytes = 0
        for i, document in enumerate(documents):
            batch.append(i)
            num_bytes += len(document)
            if num_bytes >= SCORE_BYTES or i == len(documents) - 1:
                result[batch] = self._batch_bits([documents[j] for j in batch])
                batch, num_bytes = [], 0
        return result

    def _batch_bits(self, documents: Sequence[bytes]) -> Floats:
        grams = _grams(documents, self.order)
        # Looked up once each, in order: text repeats itself, and sorted queries stay in the cache.
        unique, inverse = np.unique(grams, return_inverse=True)
        bits = -np.log2(self._look_up(unique, self.order))[inverse]
        document_of_byte = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
        return np.bincount(document_of_byte, bits, len(documents)).astype(np.float64)


def _mask(length: int) -> int:
    return (1 << (SYMBOL_BITS * length)) - 1


def _grams(documents: Sequence[bytes], order: int) -> Keys:
    """The n-gram that ends at each byte of each document, joined in their order."""
    text = np.frombuffer(b"".join(documents), np.uint8).astype(np.int64)
    lengths = np.array([len(d) for d in documents], np.int64)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.arange(len(text)) - starts
    grams = text.copy()
    for back in range(1, order):
        earlier = np.full(len(text), START, np.int64)
        if back < len(text):
            earlier[back:] = np.where(position[back:] >= back, text[:-back], START)
        grams |= earlier << (SYMBOL_BITS * back)
    return grams


def _sum_runs(keys: Keys, values: Keys) -> tuple[Keys, Keys]:
    """Each different key of a sorted array, with the sum of its values."""
    if not len(keys):
        return keys, values
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first], np.add.reduceat(values, first)


def _find(table: Keys, keys: Keys) -> npt.NDArray[np.intp]:
    """Where each key stands in a sorted table that is not empty, or -1."""
    where = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[where] == keys, where, -1)
