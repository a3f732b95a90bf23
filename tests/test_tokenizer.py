"""The tokenizer: both libraries agree, specials never come from text, bytes survive."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.errors import InputError
from snowcoder_jax.tokenizer import SPECIAL_TOKENS, Tokenizer, train

TEXTS = [
    Path(__file__).read_text(),
    "def f(x):\n\treturn  x + 1234   # größer als\n" * 20,
    "a" * 50 + "=" * 80 + "\n" * 7 + " " * 33 + "x\r\n",
    "日本語 👍🏽 I'll we've don't 'S 'LL \u00a0\u2028 ½ ٣٤ x² \x00 \ufeff",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    train(TEXTS * 3, 600, folder)
    return Tokenizer.load(folder)


def test_sizes_and_specials(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 600
    assert [tokenizer.special(s) for s in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.end_of_text == 0


def test_the_fast_ids_are_hugging_faces(tokenizer: Tokenizer) -> None:
    tokenizer.check_agreement(TEXTS)


@given(st.text())
def test_any_text_agrees_and_comes_back(tokenizer: Tokenizer, text: str) -> None:
    tokenizer.check_agreement([text])
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert sum(tokenizer.token_bytes[ids]) == len(text.encode())


def test_a_marker_written_in_a_file_is_only_letters(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("x <|endoftext|> <file_sep> y")
    assert min(ids) >= len(SPECIAL_TOKENS)
    tokenizer.check_agreement(["x <|endoftext|> <file_sep> y"])


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("1234")] == ["1", "2", "3", "4"]


def test_training_twice_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(TEXTS, 400, str(tmp_path / name))
    a, b = (tmp_path / n / "tokenizer.json" for n in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()


def test_too_little_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.vocab_size.*lower"):
        train(["aa bb"], 4000, str(tmp_path))


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json: is not there"):
        Tokenizer.load(str(tmp_path / "none"))
