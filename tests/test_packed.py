"""The packed record format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.packed import Record, decode_record, encode_record


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
