"""Bits per byte: what a model needs to tell a text, and how sure a difference is.

A document is scored from the end-of-text token on, alone. One that is longer than the sequence is
scored in windows: each window after the first begins with the last quarter of a sequence of the
tokens before it, as context that is not counted again. Windows of several documents share a row;
the attention's first-key mask keeps them apart, and rotary positions are relative, so the figures
are those of each window alone.

Shape legend: B rows of a batch, R rows in all, S positions, N documents, D hidden.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import DTypeLike

from snowcoder_jax.model import decoder, loss
from snowcoder_jax.recipe import Model

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int32]

CONTEXT_SHARE = 4  # a later window's context is a sequence divided by this


@dataclasses.dataclass(frozen=True)
class _Window:
    """Tokens [start, stop) of a document as targets; those from `counted` on are counted."""

    document: int
    start: int
    stop: int
    counted: int

    def __len__(self) -> int:
        return self.stop - self.start


def document_bits(
    params: decoder.Params,
    config: Model,
    vocab_size: int,
    documents: Sequence[Sequence[int]],
    *,
    start_id: int,
    sequence_length: int,
    batch_size: int,
    compute_dtype: DTypeLike = jnp.float32,
    loss_chunk_tokens: int = 2_048,
    num_given: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Bits that a model needs for each document's tokens, float64 [N].

    Args:
      documents: token ids without `start_id`; an empty one takes 0 bits.
      start_id: the token before a document's first, the end-of-text token.
      num_given: how many leading tokens of each document are given and not counted; None: none.
      on_progress: called with (rows done, rows in all) after each batch.
    """
    given = num_given if num_given is not None else [0] * len(documents)
    windows = [
        window
        for i, (ids, n) in enumerate(zip(documents, given, strict=True))
        for window in _windows(i, len(ids), n, sequence_length)
    ]
    rows = _pack(windows, sequence_length)
    bits_N = np.zeros(len(documents))
    batch_size = min(batch_size, len(rows))
    for first in range(0, len(rows), max(1, batch_size)):
        batch = rows[first : first + batch_size]
        # The last batch is padded: one shape, one compilation.
        shape = (batch_size, sequence_length)
        inputs_BS, targets_BS = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        first_key_BS, owner_BS = np.zeros(shape, np.int32), np.full(shape, -1, np.int64)
        for row, packed in enumerate(batch):
            at = 0
            for window in packed:
                ids = documents[window.document]
                end = at + len(window)
                before = start_id if window.start == 0 else ids[window.start - 1]
                targets_BS[row, at:end] = ids[window.start : window.stop]
                inputs_BS[row, at] = before
                inputs_BS[row, at + 1 : end] = targets_BS[row, at : end - 1]
                first_key_BS[row, at:end] = at
                owner_BS[row, at + window.counted - window.start : end] = window.document
                at = end
            first_key_BS[row, at:] = at
        losses_BS = _token_losses(
            params,
            inputs_BS,
            targets_BS,
            first_key_BS,
            config=config,
            vocab_size=vocab_size,
            compute_dtype=jnp.dtype(compute_dtype).name,
            chunk_tokens=loss_chunk_tokens,
        )
        is_counted_BS = owner_BS >= 0
        nats = np.asarray(losses_BS, np.float64)[is_counted_BS]
        bits_N += np.bincount(owner_BS[is_counted_BS], nats / np.log(2), len(documents))
        if on_progress is not None:
            on_progress(first + len(batch), len(rows))
    return bits_N


@functools.partial(
    jax.jit, static_argnames=("config", "vocab_size", "compute_dtype", "chunk_tokens")
)
def _token_losses(
    params: decoder.Params,
    inputs_BS: jax.Array,
    targets_BS: jax.Array,
    first_key_BS: jax.Array,
    *,
    config: Model,
    vocab_size: int,
    compute_dtype: str,
    chunk_tokens: int,
) -> jax.Array:
    hidden_BSD = decoder.apply(
        params, config, vocab_size, inputs_BS, first_key_BS, compute_dtype=compute_dtype
    )
    embedding_VD = decoder.output_embedding(params, config)
    return loss.token_losses(hidden_BSD, embedding_VD, targets_BS, chunk_tokens=chunk_tokens)


def _windows(document: int, length: int, num_given: int, sequence_length: int) -> list[_Window]:
    """Windows that count each of a document's tokens from `num_given` on exactly once."""
    context = sequence_length // CONTEXT_SHARE
    windows = []
    start = 0
    while start < length:
        stop = min(start + sequence_length, length)
        counted = max(num_given, start + context if start else 0)
        if counted < stop:
            windows.append(_Window(document, start, stop, counted))
        if stop == length:
            break
        start = stop - context
    return windows


def _pack(windows: Sequence[_Window], sequence_length: int) -> list[list[_Window]]:
    """Rows of windows: the longest first, each into the row that it fills best."""
    rows: list[list[_Window]] = []
    free: list[tuple[int, int]] = []  # (positions left, row), ascending
    for window in sorted(windows, key=len, reverse=True):
        i = bisect.bisect_left(free, (len(window), -1))
        if i < len(free):
            left, row = free.pop(i)
        else:
            left, row = sequence_length, len(rows)
            rows.append([])
        rows[row].append(window)
        if left > len(window):
            bisect.insort(free, (left - len(window), row))
    return rows


def bits_per_byte(bits: npt.ArrayLike, num_bytes: npt.ArrayLike) -> float | None:
    """All bits over all bytes; None where there are no bytes."""
    total_bytes = float(np.sum(num_bytes))
    return float(np.sum(bits)) / total_bytes if total_bytes else None


def by_language(
    bits_N: Floats,
    bytes_N: npt.NDArray[np.int64],
    languages: Sequence[str],
    min_language_bytes: int,
) -> tuple[dict[str, float | None], dict[str, int]]:
    """Bits per byte of `all` and of each language, and the bytes that they rest on.

    A language with fewer than `min_language_bytes` has None: too little to say.
    """
    language_N = np.array(languages, dtype=object)
    scores: dict[str, float | None] = {"all": bits_per_byte(bits_N, bytes_N)}
    sizes = {"all": int(bytes_N.sum())}
    for language in sorted(set(languages)):
        chosen_N = language_N == language
        sizes[language] = int(bytes_N[chosen_N].sum())
        enough = sizes[language] >= min_language_bytes
        scores[language] = bits_per_byte(bits_N[chosen_N], bytes_N[chosen_N]) if enough else None
    return scores, sizes


def bootstrap_difference(
    bits_a_N: npt.ArrayLike,
    bits_b_N: npt.ArrayLike,
    bytes_N: npt.ArrayLike,
    *,
    samples: int,
    seed: int,
) -> Mapping[str, Any]:
    """a minus b in bits per byte on the same documents, with a 95% percentile interval.

    Documents are drawn with replacement, `samples` times (Efron and Tibshirani 1993, chapter 13);
    each draw gives the ratio of its summed difference to its summed bytes.

    Returns:
      `difference`, `low`, `high` in bits per byte, below 0 where a is better, and `documents`;
      the three are None where there are no bytes.
    """
    bytes_N = np.asarray(bytes_N, np.float64)
    delta_N = np.asarray(bits_a_N, np.float64) - np.asarray(bits_b_N, np.float64)
    assert delta_N.shape == bytes_N.shape, (delta_N.shape, bytes_N.shape)
    # A document without bytes says nothing, and a draw of nothing else would divide by 0.
    delta_N, bytes_N = delta_N[bytes_N > 0], bytes_N[bytes_N > 0]
    num_documents = len(bytes_N)
    if not num_documents:
        return {"difference": None, "low": None, "high": None, "documents": 0}
    generator = np.random.default_rng(seed)
    even = np.full(num_documents, 1 / num_documents)
    ratios = []
    # How often each document is drawn, some draws at a time to bound the memory.
    per_round = max(1, 4_000_000 // num_documents)
    for first in range(0, samples, per_round):
        size = min(per_round, samples - first)
        times_RN = generator.multinomial(num_documents, even, size=size)
        ratios.append((times_RN @ delta_N) / (times_RN @ bytes_N))
    low, high = np.percentile(np.concatenate(ratios), (2.5, 97.5))
    return {
        "difference": float(delta_N.sum() / bytes_N.sum()),
        "low": float(low),
        "high": float(high),
        "documents": num_documents,
    }
