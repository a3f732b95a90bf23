"""Fill-in-the-middle: nothing of a file is lost, and the draws are what they are said to be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text.fim import cut, is_turned

IDS = [f"document {i}" for i in range(2000)]


@given(st.text(), st.text(), st.integers(0, 2**32))
def test_the_parts_are_the_file_again(text: str, identity: str, seed: int) -> None:
    parts = cut(text, identity, seed=seed)
    assert parts.prefix + parts.middle + parts.suffix == text


def test_cuts_fall_everywhere_ends_included_and_never_inside_a_character() -> None:
    parts = [cut("é👍x", identity, seed=0) for identity in IDS]
    cuts = {(len(p.prefix), len(p.prefix + p.middle)) for p in parts}
    assert cuts == {(a, b) for a in range(4) for b in range(a, 4)}


def test_half_of_the_files_give_the_suffix_first() -> None:
    first = sum(cut("x", identity, seed=0).suffix_first for identity in IDS)
    assert abs(first - len(IDS) / 2) < 100  # over four standard deviations


def test_the_share_is_kept_and_another_seed_turns_others() -> None:
    def turned(seed: int, share: float) -> set[str]:
        return {i for i in IDS if is_turned(i, seed=seed, share=share)}

    assert turned(0, 0.0) == set()
    assert turned(0, 1.0) == set(IDS)
    assert abs(len(turned(0, 0.3)) - 600) < 90
    assert turned(0, 0.3) < turned(0, 0.5)
    assert turned(0, 0.3) != turned(1, 0.3)
