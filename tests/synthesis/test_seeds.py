"""Which seeds: shares are met, nothing is left out without a word, every beginning is mixed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.synthesis import seeds


def drawn(
    available: dict[str, int], num_seeds: int | None, shares: dict[str, float]
) -> dict[str, int]:
    planned = seeds.plan(available, num_seeds, shares)
    return {language: of.drawn for language, of in planned.items()}


def test_a_named_language_gets_its_share_and_the_others_keep_their_proportions() -> None:
    available = {"Python": 100, "Java": 90, "Go": 30}
    planned = seeds.plan(available, 80, {"Python": 0.5})
    assert {k: v.drawn for k, v in planned.items()} == {"Go": 10, "Java": 30, "Python": 40}
    assert {k: v.wanted for k, v in planned.items()} == {"Go": 10, "Java": 30, "Python": 40}
    assert {k: v.available for k, v in planned.items()} == available


def test_the_lack_of_a_language_that_runs_out_goes_to_the_others_and_shows() -> None:
    planned = seeds.plan({"Python": 5, "Java": 90, "Go": 30}, 80, {"Python": 0.5})
    assert planned["Python"].wanted == 40
    assert {k: v.drawn for k, v in planned.items()} == {"Go": 19, "Java": 56, "Python": 5}


def test_when_all_run_out_or_no_number_is_given_every_document_is_a_seed() -> None:
    available = {"Python": 3, "Java": 4}
    assert drawn(available, 80, {"Python": 0.5}) == available
    assert drawn(available, None, {"Python": 0.5}) == available
    assert drawn(available, None, {"Python": 1.0}) == {"Java": 0, "Python": 3}


@pytest.mark.parametrize("shares", [{}, {"Python": 1.0}, {"Rust": 0.3}, {"Rust": 1.0}])
def test_shares_of_languages_that_are_not_there_go_to_those_that_are(
    shares: dict[str, float],
) -> None:
    assert drawn({"Python": 20}, 7, shares) == {"Python": 0 if shares == {"Rust": 1.0} else 7}


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("ABCDE"), st.integers(0, 30)),
    st.dictionaries(st.sampled_from("ABCDE"), st.floats(0.01, 0.19)),
    st.none() | st.integers(1, 60),
)
def test_as_many_are_drawn_as_were_asked_for_or_are_there(
    available: dict[str, int], shares: dict[str, float], num_seeds: int | None
) -> None:
    planned = seeds.plan(available, num_seeds, shares)
    there = sum(available.values())
    wanted = there if num_seeds is None else min(num_seeds, there)
    assert sum(of.drawn for of in planned.values()) == wanted
    assert all(of.drawn <= of.available for of in planned.values())
    assert all(0 < of.pace <= 1 for of in planned.values())


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.floats(0.001, 1))
def test_a_draw_keeps_the_order_of_hashes_and_fits_64_bits(a: int, b: int, pace: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= seeds.draw_of(low, high, pace) <= seeds.draw_of(high, high, pace) < 2**64


def test_every_beginning_of_the_order_has_the_shares() -> None:
    """Also where the selection is nothing like the shares, and where a language runs out."""
    available = {"Python": 500, "Java": 4_000, "Go": 500}
    planned = seeds.plan(available, None, {"Python": 0.5})
    order = []
    for language, of in planned.items():
        hashes = sorted(seeds.seed_hash(1, f"{language} {i}") for i in range(of.available))
        order += [(seeds.draw_of(h, hashes[of.drawn - 1], of.pace), language) for h in hashes]
    first = [language for _, language in sorted(order)[:400]]
    assert first.count("Python") == pytest.approx(200, abs=40)
    assert first.count("Java") == pytest.approx(8 * first.count("Go"), rel=0.6)
    python_ends = max(i for i, (_, language) in enumerate(sorted(order)) if language == "Python")
    assert python_ends < 1_200
