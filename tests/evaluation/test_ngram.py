"""The byte n-gram against a slow, plain implementation of its formula."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.evaluation import ngram
from snowcoder_jax.evaluation.ngram import ByteNgram


class PlainNgram:
    """Interpolated Witten-Bell with dicts, one symbol at a time."""

    def __init__(self, order: int, documents: list[bytes]) -> None:
        self.order = order
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for document in documents:
            for context, byte in self.events(document):
                for skip in range(order):
                    self.counts[context[skip:]][byte] += 1

    def events(self, document: bytes) -> list[tuple[tuple[int, ...], int]]:
        padded = [-1] * (self.order - 1) + list(document)
        return [(tuple(padded[i : i + self.order - 1]), byte) for i, byte in enumerate(document)]

    def probability(self, context: tuple[int, ...], byte: int) -> float:
        shorter = self.probability(context[1:], byte) if context else 1 / 256
        seen = self.counts.get(context)
        if seen is None:
            return shorter
        return (seen[byte] + len(seen) * shorter) / (seen.total() + len(seen))

    def bits(self, document: bytes) -> float:
        return sum(-math.log2(self.probability(c, b)) for c, b in self.events(document))


texts = st.lists(
    st.one_of(st.binary(max_size=20), st.text("abc \n", max_size=40).map(str.encode)), max_size=6
)


@given(training=texts, scored=texts, order=st.integers(1, ngram.MAX_ORDER))
@settings(max_examples=60, deadline=None)
def test_equals_the_plain_implementation(training, scored, order):
    model = ByteNgram(order)
    model.train(training)
    plain = PlainNgram(order, training)
    expected = [plain.bits(document) for document in scored + training]
    np.testing.assert_allclose(model.document_bits(scored + training), expected, rtol=1e-9)


def test_real_code_equals_the_plain_implementation():
    code = Path(ngram.__file__).read_bytes()
    model = ByteNgram(5)
    model.train(code[:4000])
    assert model.bits(code[4000:5000]) == pytest.approx(
        PlainNgram(5, [code[:4000]]).bits(code[4000:5000])
    )


@pytest.mark.parametrize("context", [b"", b"a", b"ab", b"abra", b"zz", b"cadab"])
def test_probabilities_sum_to_one_after_any_context(context):
    model = ByteNgram(5)
    model.train([b"abracadabra", b"abrupt", b"\x00\xff"])
    base = model.bits(context)
    bits = model.document_bits([context + bytes([b]) for b in range(256)]) - base
    assert np.exp2(-bits).sum() == pytest.approx(1.0)


def test_documents_know_nothing_of_each_other():
    model = ByteNgram(3)
    model.train([b"xy", b"zw"])
    joined = ByteNgram(3)
    joined.train(b"xyzw")
    assert joined.bits(b"xyz") < model.bits(b"xyz")
    assert model.bits(b"z") == model.bits(b"x")
    together = model.document_bits([b"xy", b"", b"zw"])
    assert together.tolist() == [model.bits(b"xy"), 0.0, model.bits(b"zw")]


def test_batches_of_scoring_change_nothing(monkeypatch):
    documents = [b"one two", b"", b"three", b"", b"four five six", b""]
    model = ByteNgram(4)
    model.train(documents)
    whole = model.document_bits(documents)
    monkeypatch.setattr(ngram, "SCORE_BYTES", 5)
    assert model.document_bits(documents).tolist() == whole.tolist()


def test_training_again_forgets_and_nothing_seen_is_uniform():
    model = ByteNgram(5)
    model.train([])
    assert model.bits(b"four") == 32.0
    model.train(b"abc")
    model.train(b"four")
    fresh = ByteNgram(5)
    fresh.train(b"four")
    assert model.bits(b"four") == fresh.bits(b"four") < 32.0
    assert model.document_bits([]).tolist() == []
