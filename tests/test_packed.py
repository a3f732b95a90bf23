"""The packed record format, and how a stream of tokens is cut into records."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.packed import Piece, Record, cut_records, decode_record, encode_record


@given(
    st.lists(st.integers(0, 70_000), min_size=1, max_size=50),
    st.lists(st.integers(0, 49), max_size=5),
    st.lists(st.tuples(st.integers(0, 49), st.integers(0, 49)), max_size=4),
)
def test_round_trip(ids: list[int], starts: list[int], masked: list[tuple[int, int]]) -> None:
    record = Record(
        np.array(ids, np.int32),
        np.array(starts, np.int32),
        np.array(masked, np.int32).reshape(-1, 2),
    )
    again = decode_record(encode_record(record))
    np.testing.assert_array_equal(again.ids, record.ids)
    np.testing.assert_array_equal(again.starts, record.starts)
    np.testing.assert_array_equal(again.masked, record.masked)


def record_of(top: int) -> bytes:
    nothing = np.zeros(0, np.int32)
    return encode_record(Record(np.array([top], np.int32), nothing, nothing.reshape(0, 2)))


def test_ids_take_two_bytes_until_they_do_not_fit() -> None:
    assert len(record_of(65_536)) == len(record_of(65_535)) + 2


@pytest.mark.parametrize("cut", [0, 3, 19, -1])
def test_a_cut_record_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match=r"record"):
        decode_record(record_of(5)[:cut])


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"record"):
        decode_record(data)


pieces_of_a_stream = st.lists(
    st.tuples(st.integers(0, 30), st.booleans(), st.integers(0, 30)).map(
        # An empty file is no start of a document, and a head is no longer than its file.
        lambda p: (p[0], p[1] and p[0] > 0, min(p[2], p[0]))
    ),
    max_size=12,
)


@given(pieces_of_a_stream, st.integers(1, 20))
def test_records_are_windows_of_the_stream_that_overlap_by_one_token(
    sizes: list[tuple[int, bool, int]], sequence_length: int
) -> None:
    pieces, begin = [], 0
    starts, masked = [], np.zeros(sum(n for n, _, _ in sizes) + sequence_length, np.bool_)
    for num_tokens, is_start, num_masked in sizes:
        ids = np.arange(begin, begin + num_tokens, dtype=np.int32)
        pieces.append(Piece(ids, is_start, num_masked))
        starts += [begin] if is_start else []
        masked[begin : begin + num_masked] = True
        begin += num_tokens
    total = begin
    masked[total:] = True
    records = list(cut_records(pieces, sequence_length, pad_id=-1))
    # Every token but the first is a target once.
    assert len(records) == (max(1, -(-(total - 1) // sequence_length)) if total else 0)
    for k, record in enumerate(records):
        begin, end = k * sequence_length, (k + 1) * sequence_length + 1
        stream = [i if i < total else -1 for i in range(begin, end)]
        assert record.ids.tolist() == stream
        assert record.starts.tolist() == [s - begin for s in starts if begin <= s < end]
        marks = np.zeros(sequence_length + 1, np.bool_)
        for first, last in record.masked:
            assert 0 <= first < last <= sequence_length + 1
            marks[first:last] = True
        expected = np.pad(masked, (0, sequence_length + 1), constant_values=True)[begin:end]
        np.testing.assert_array_equal(marks, expected)


def test_records_are_given_before_the_stream_ends() -> None:
    taken = []

    def pieces() -> Iterator[Piece]:
        for number in range(100):
            taken.append(number)
            yield Piece(np.zeros(10, np.int32))

    first = next(cut_records(pieces(), 8, pad_id=0))
    assert (len(first.ids), taken) == (9, [0])
