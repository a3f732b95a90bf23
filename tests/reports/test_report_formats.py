"""Numbers as people read them, at the edges of their units."""

from __future__ import annotations

import pytest

from snowcoder_jax.reports import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0 k"),
        (999_949, "1.0 M"),
        (1_249_000, "1.2 M"),
        (1_363_000_000, "1.4 B"),
        (5e11, "500 B"),
        (6714.8, "6,715"),
        (2.5, "2.5"),
        (-12_000, "-12.0 k"),
    ],
)
def test_counts(value: float, text: str) -> None:
    assert formats.count_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (3_400_000, "3.4 MB"),
        (999_999_999, "1.0 GB"),
        (2.31e9, "2.3 GB"),
        (150_000_000, "150 MB"),
    ],
)
def test_sizes(value: float, text: str) -> None:
    assert formats.size_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.0 s"),
        (0.34, "0.3 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (130, "2 min 10 s"),
        (3_600, "1 h"),
        (3_840, "1 h 4 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert formats.duration_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0%"), (0.115, "12%"), (0.016, "1.6%"), (0.00094, "0.09%"), (1, "100%")],
)
def test_shares(value: float, text: str) -> None:
    assert formats.percent_text(value) == text


def test_what_is_not_a_number() -> None:
    values: tuple[object, ...] = (None, "", True, float("nan"), float("inf"), [], {})
    for value in values:
        assert formats.count_text(value) is None
        assert formats.duration_text(value) is None
    assert "not measured" in formats.bits(None)
    assert "not finite" in formats.bits(float("nan"))
    assert formats.of(3, None) == "not measured"
    assert formats.share(1, 0) is None
