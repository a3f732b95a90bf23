"""Bits per byte against one window at a time in float64; the bootstrap against its plain form."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.evaluation import scores
from snowcoder_jax.model import decoder
from snowcoder_jax.recipe import Model

MODEL = Model(
    hidden_dim=16, mlp_dim=24, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8,
    max_sequence_length=16, initializer_range=0.5,
)  # fmt: skip
VOCAB, START, S = 29, 3, 16


@pytest.fixture(scope="module")
def params() -> decoder.Params:
    return decoder.init_params(MODEL, VOCAB, seed=1)


def random_documents(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, VOCAB, length).tolist() for length in lengths]


@jax.jit
def hidden_states(params, ids):
    return decoder.apply(params, MODEL, VOCAB, ids)


def bits_of_window(params, context: list[int], targets: list[int]) -> float:
    """Bits of the last `len(targets)` of `context + targets`, its first token given."""
    # Nothing looks ahead, so padding at the end changes nothing and spares compilations.
    ids = np.zeros((1, S), np.int32)
    num_inputs = len(context) + len(targets) - 1
    ids[0, :num_inputs] = (context + targets)[:-1]
    hidden = hidden_states(params, ids)[0, :num_inputs]
    logits = (
        np.asarray(hidden, np.float64)
        @ np.asarray(decoder.output_embedding(params, MODEL), np.float64).T
    )
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows = np.arange(num_inputs)[-len(targets) :]
    return float(-log_probabilities[rows, targets].sum() / np.log(2))


def plain_bits(params, ids: list[int], num_given: int = 0) -> float:
    """The documented windows, one at a time: a quarter of a sequence is context."""
    ids = [START, *ids]
    total, start = 0.0, 0
    while start + 1 < len(ids):
        stop = min(start + S, len(ids) - 1)
        counted = max(num_given, start + S // 4 if start else 0)
        if counted < stop:
            total += bits_of_window(params, ids[start : counted + 1], ids[counted + 1 : stop + 1])
        if stop == len(ids) - 1:
            break
        start = stop - S // 4
    return total


def score(params, documents, batch_size=3, **kwargs):
    return scores.document_bits(
        params, MODEL, VOCAB, documents, start_id=START, sequence_length=S,
        batch_size=batch_size, loss_chunk_tokens=7, **kwargs,
    )  # fmt: skip


def test_equals_each_window_alone_at_every_boundary(params):
    documents = random_documents(0, 1, 2, S - 1, S, S + 1, 28, 29, 5 * S + 3, 0)
    seen = []
    bits = score(params, documents, on_progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(bits, [plain_bits(params, d) for d in documents], rtol=2e-5)
    num_rows = seen[-1][1]
    assert seen == [(min(n, num_rows), num_rows) for n in range(3, num_rows + 3, 3)]


def test_tokens_given_are_context_and_not_counted(params):
    documents = random_documents(10, 10, 40, 40, 12)
    given_tokens = [0, 4, 30, 39, 12]
    bits = score(params, documents, num_given=given_tokens)
    expected = [plain_bits(params, d, n) for d, n in zip(documents, given_tokens, strict=True)]
    np.testing.assert_allclose(bits, expected, rtol=2e-5)
    assert bits[4] == 0.0


def test_neighbours_order_and_batch_size_do_not_matter(params):
    documents = random_documents(5, 30, 3, 7, 9, 16, 1)
    bits = score(params, documents)
    backwards = score(params, documents[::-1], batch_size=64)[::-1]
    np.testing.assert_allclose(bits, backwards, rtol=2e-5)
    np.testing.assert_allclose(bits[1:2], score(params, documents[1:2]), rtol=2e-5)


def test_no_documents_and_empty_ones_take_no_bits(params):
    assert score(params, []).tolist() == []
    assert score(params, [[], []]).tolist() == [0.0, 0.0]


@given(
    lengths=st.lists(st.integers(0, 100), max_size=30),
    share=st.floats(0, 1),
    sequence_length=st.integers(1, 40),
)
@settings(deadline=None)
def test_every_token_is_counted_once_and_rows_hold_all_windows(lengths, share, sequence_length):
    windows = []
    for i, length in enumerate(lengths):
        num_given = int(share * length)
        own = scores._windows(i, length, num_given, sequence_length)
        counted = [t for w in own for t in range(w.counted, w.stop)]
        assert counted == list(range(num_given, length))
        for window in own:
            assert 0 < len(window) <= sequence_length
            assert window.start == 0 or window.counted - window.start >= sequence_length // 4
        windows += own
    rows = scores._pack(windows, sequence_length)
    assert sorted(map(str, windows)) == sorted(str(w) for row in rows for w in row)
    loads = [sum(map(len, row)) for row in rows]
    assert all(0 < load <= sequence_length for load in loads)
    # At most one row may be half empty, or its windows would have gone into the other.
    assert sum(load <= sequence_length // 2 for load in loads) <= 1


def test_by_language_says_nothing_below_the_minimum():
    bits, sizes = np.array([8.0, 4.0, 1.0, 0.0]), np.array([4, 4, 1, 0])
    languages = ["C", "Python", "C", "Go"]
    by_language, num_bytes = scores.by_language(bits, sizes, languages, 5)
    assert by_language == {"all": 13 / 9, "C": 9 / 5, "Python": None, "Go": None}
    assert num_bytes == {"all": 9, "C": 5, "Python": 4, "Go": 0}
    by_language, _ = scores.by_language(bits, sizes, languages, 4)
    assert by_language["Python"] == 1.0
    empty = scores.by_language(np.zeros(0), np.zeros(0, np.int64), [], 1)
    assert empty == ({"all": None}, {"all": 0})


def test_bootstrap_agrees_with_its_plain_form():
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 500, 200)
    a = sizes * rng.uniform(1.0, 2.0, 200)
    b = a + sizes * rng.normal(0.05, 0.2, 200)
    result = scores.bootstrap_difference(a, b, sizes, samples=4000, seed=7)
    draws = rng.integers(0, 200, (4000, 200))
    plain = (a - b)[draws].sum(1) / sizes[draws].sum(1)
    low, high = np.percentile(plain, (2.5, 97.5))
    assert result["difference"] == pytest.approx((a - b).sum() / sizes.sum())
    assert result["low"] == pytest.approx(low, abs=0.003)
    assert result["high"] == pytest.approx(high, abs=0.003)
    assert result["documents"] == 200
    assert result == scores.bootstrap_difference(a, b, sizes, samples=4000, seed=7)
    assert result != scores.bootstrap_difference(a, b, sizes, samples=4000, seed=8)


def test_bootstrap_of_many_documents_goes_in_rounds():
    sizes = np.ones(1_500_000, np.int64)
    result = scores.bootstrap_difference(sizes * 2.0, sizes, sizes, samples=3, seed=0)
    assert (result["low"], result["difference"], result["high"]) == (1.0, 1.0, 1.0)


def test_bootstrap_of_nothing_and_of_empty_documents():
    nothing = {"difference": None, "low": None, "high": None, "documents": 0}
    assert scores.bootstrap_difference([], [], [], samples=10, seed=0) == nothing
    assert scores.bootstrap_difference([0.0], [0.0], [0], samples=10, seed=0) == nothing
    one = scores.bootstrap_difference([3.0, 0.0], [1.0, 0.0], [2, 0], samples=10, seed=0)
    assert one == {"difference": 1.0, "low": 1.0, "high": 1.0, "documents": 1}
