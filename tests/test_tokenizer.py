"""The tokenizer: both libraries agree, specials never come from text, bytes survive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.tokenizer import SPECIAL_TOKENS, WORD_PATTERN, Tokenizer, train

HERE = Path(__file__).parent
TEXTS = [
    Path(__file__).read_text(),
    "def f(x):\n\treturn  x + 1234   # größer als\n" * 20,
    "a" * 50 + "=" * 80 + "\n" * 7 + " " * 33 + "x\r\n",
    "日本語 👍🏽 I'll we've don't 'S 'LL \u00a0\u2028 ½ ٣٤ x² \x00 \ufeff",
]
# All that Unicode calls white space and two that look it, among the classes of the pattern.
SPACES = "\t\n\v\f\r\x1c\x1f \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
spaced_text = st.text(st.sampled_from(SPACES + "aé日'1٣=<sll"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    train(TEXTS * 3, 600, folder)
    return Tokenizer.load(folder)


def test_sizes_and_specials(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 600
    assert [tokenizer.special(s) for s in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.end_of_text == 0


def test_the_fast_ids_are_hugging_faces_on_files_of_every_language(tokenizer: Tokenizer) -> None:
    files = [p for p in sorted((HERE / "fixtures").rglob("*")) if p.is_file()]
    files += sorted(HERE.rglob("*.py"))
    assert len(files) > 30
    tokenizer.check_agreement([*TEXTS, *(p.read_text("utf-8", "replace") for p in files)])


@given(st.text() | spaced_text)
def test_any_text_agrees_and_comes_back(tokenizer: Tokenizer, text: str) -> None:
    tokenizer.check_agreement([text])
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert sum(tokenizer.token_bytes[ids]) == len(text.encode())


@given(st.text() | spaced_text)
def test_words_are_split_as_gpt2_does_but_for_the_digits(text: str) -> None:
    plain = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    ours, gpt2 = (pre_tokenizers.Split(Regex(p), "isolated") for p in (WORD_PATTERN, plain))
    assert ours.pre_tokenize_str(text) == gpt2.pre_tokenize_str(text)


@pytest.mark.parametrize("text", [" " * 1_100_000 + "x", "x" + "\n" * 1_100_000])
def test_a_million_spaces_in_a_row_are_encoded_too(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()


def test_half_a_character_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("x\ud800")


def test_two_libraries_that_disagree_are_a_fault(tokenizer: Tokenizer, tmp_path: Path) -> None:
    train(TEXTS, 400, str(tmp_path))
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\S+|\s+"
    other = Tokenizer(json.dumps(spec))
    other.check_agreement(["x"])
    with pytest.raises(MachineError, match="different ids"):
        other.check_agreement(["x", "def f(x): return x"])


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
