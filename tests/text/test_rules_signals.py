"""Signals of texts against plain counts, at borders of lines, characters and groups of texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.text import code_signals, generated, signals, word_signals

SOME_TEXT = st.text() | st.text("ab_ \n\r\t\0é\u2028中٣\ufffd1", max_size=60)


def measure(text: str) -> dict[str, float]:
    columns = signals.measure([text.encode("utf-8", "surrogatepass")])
    return {name: float(column[0]) for name, column in columns.items()}


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("", []),
        ("\n", [0]),
        ("ab", [2]),
        ("ab\n", [2]),
        ("ab\n\nc", [2, 0, 1]),
        ("ab\r\nc\r\n", [2, 1]),
        ("ab\r", [3]),
        ("\r\n\r\n", [0, 0]),
        ("äöü\nß\r\n", [3, 1]),
        ("\U0001f600x", [2]),
        ("a\0b\n\0", [3, 1]),
    ],
)
def test_lines_count_characters(text: str, lengths: list[int]) -> None:
    found = measure(text)
    assert found["num_lines"] == len(lengths)
    assert found["max_line_characters"] == max(lengths, default=0)
    assert found["mean_line_characters"] == pytest.approx(sum(lengths) / max(len(lengths), 1))


@settings(max_examples=300)
@given(st.lists(SOME_TEXT, min_size=1, max_size=4))
def test_signals_agree_with_a_plain_count(texts: Sequence[str]) -> None:
    columns = signals.measure([t.encode("utf-8", "surrogatepass") for t in texts])
    for index, text in enumerate(texts):
        found = {name: column[index] for name, column in columns.items()}
        pieces = text.split("\n")
        lines = pieces[:-1] if pieces[-1] == "" else pieces
        assert found["num_bytes"] == len(text.encode("utf-8", "surrogatepass"))
        assert found["num_characters"] == len(text)
        assert found["num_lines"] == len(lines)
        size = max(len(text), 1)
        letters, digits = sum(map(str.isalpha, text)), sum(map(str.isdigit, text))
        spaces = sum(map(str.isspace, text))
        assert found["letter_share"] == letters / size
        assert found["alphanumeric_share"] == (letters + digits) / size
        assert found["whitespace_share"] == spaces / size
        assert found["replacement_share"] == text.count("\ufffd") / size
        assert found["visible_letter_share"] == letters / max(len(text) - spaces, 1)
        assert found["visible_digit_share"] == digits / max(len(text) - spaces, 1)


def test_lone_surrogates_are_text_too() -> None:
    assert measure("a\ud800")["letter_share"] == 0.5


def test_groups_of_texts_hide_nothing() -> None:
    """A long text has a group of its own, and the order of texts is kept."""
    sizes = [10, signals.GROUP_BYTES, 3, 0, signals.GROUP_BYTES - 5, 7, 1]
    texts = [b"x" * size for size in sizes]
    assert signals.measure(texts)["num_bytes"].tolist() == sizes
    assert word_signals.measure(texts)["num_words"].tolist() == [float(s > 0) for s in sizes]
    covered = [i for group in signals.groups(texts) for i in range(len(texts))[group]]
    assert covered == list(range(len(texts)))
    assert len(list(signals.groups(texts))) > 1
    assert signals.measure([])["num_bytes"].tolist() == []


BASE64 = "QmFzZTY0IGxvb2tzIGxpa2UgdGhpcyB3aGVuIGl0IGlzIGxvbmcgZW5vdWdoIHRvIGNvdW50"


@pytest.mark.parametrize("size", [64, 65, 95, 96, 1_024, 1_025])
@pytest.mark.parametrize("before", range(0, 33, 8))
def test_base64_runs_are_measured_wherever_they_begin(size: int, before: int) -> None:
    text = " " * before + f'"{(BASE64 * 20)[:size]}"\n'
    assert measure(text)["max_encoded_run_characters"] == size


def test_base64_in_pieces_is_one_run() -> None:
    text = "DATA = (\n" + f'    "{BASE64[:64]}"\n' * 20 + ")\n"
    found = measure(text)
    assert found["max_encoded_run_characters"] == 64 * 20
    assert found["encoded_share"] == pytest.approx(64 * 20 / len(text))


def test_runs_of_two_texts_are_two_runs() -> None:
    columns = signals.measure([BASE64[:64].encode()] * 2)
    assert columns["max_encoded_run_characters"].tolist() == [64, 64]
    halves = signals.measure([BASE64[:40].encode()] * 2)
    assert halves["max_encoded_run_characters"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "text",
    [
        BASE64[:63],
        "# " + "=" * 200,
        "/" * 300,
        "import antigravity\n" * 50,
        "words of usual length stand here " * 50,
        "x = [1, 2, 3]\n",
        "0" * 63,
        "\\u00e4" * 7,
    ],
)
def test_ordinary_text_is_not_encoded(text: str) -> None:
    assert measure(text)["max_encoded_run_characters"] == 0


@pytest.mark.parametrize(
    "run", ["0x1f, 0xa0, " * 100, r"\x1f\xa0" * 150, "deadbeef00" * 30, r"\u00e4\u0416" * 60]
)
def test_hex_and_escapes_are_encoded(run: str) -> None:
    found = measure(f"table = {run}")
    assert found["max_encoded_run_characters"] >= 0.95 * len(run)
    assert 0.5 < found["encoded_share"] <= 1


@given(st.text("aF0x\\,;:= \n+/\0", max_size=400))
def test_the_encoded_share_is_a_share(text: str) -> None:
    found = measure(text)
    assert 0 <= found["encoded_share"] <= 1
    assert found["max_encoded_run_characters"] <= len(text)


@pytest.mark.parametrize(
    "line",
    [
        "# This file is autogenerated by make",
        "// Code generated by protoc-gen-go. DO NOT EDIT.",
        "/* AUTO-GENERATED, see gen.py */",
        "# @generated by a tool",
        "# Generated by the protocol buffer compiler.  DO NOT EDIT!",
    ],
)
def test_autogenerated_counts_in_the_first_lines_only(line: str) -> None:
    assert generated.has_marker(("\n" * 4 + line).encode())
    assert not generated.has_marker(("\n" * 5 + line).encode())


@pytest.mark.parametrize(
    ("language", "path", "text"),
    [
        ("Python", "a_pb2.py", "# x\n# Generated by the protocol buffer compiler.  DO NOT EDIT!\n"),
        ("Java", "A.java", "/**\n *\n *\n *\n *\n * Autogenerated by Thrift Compiler (0.9)\n"),
        ("C", "a.c", "/* Generated by Cython 3.0 */\nint a;\n"),
        ("C++", "a.h", "// Generated by the gRPC C++ plugin.\n"),
        ("Go", "a.go", "package a\n" * 39 + "// Code generated by x.\n"),
        ("JavaScript", "a.js", "a();\n//# sourceMappingURL=a.js.map\n"),
        ("JavaScript", "a.js", "/* parser generated by jison 0.4 */\n"),
        ("Ruby", "a.rb", "#\n#\n# This file is automatically generated by Racc 1.4\n"),
        ("Dart", "a.dart", "// GENERATED CODE - DO NOT MODIFY BY HAND\n"),
        ("C#", "src/Form.Designer.cs", "class A {}\n"),
        ("TypeScript", "web/node_modules/a/b.ts", "let a;\n"),
    ],
)
def test_linguists_rules_are_found_and_only_where_they_hold(
    language: str, path: str, text: str
) -> None:
    assert generated.by_linguist(text.encode(), language, path)
    elsewhere = "\n" * 40 + text + "\n\n"
    assert not generated.by_linguist(elsewhere.encode() + b"a\nb\n", language, "plain")


def plain_grams(words: Sequence[str], size: int) -> tuple[float, float]:
    """Characters of the commonest n-gram times its count, and of words in repeated n-grams."""
    grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    counts = Counter(grams)
    top = counts.most_common(1)
    inside = {i + k for i, g in enumerate(grams) if counts[g] > 1 for k in range(size)}
    total = max(sum(map(len, words)), 1)
    top_size = sum(map(len, top[0][0])) * top[0][1] if top and top[0][1] > 1 else 0
    return top_size / total, sum(len(words[i]) for i in inside) / total


@settings(max_examples=200)
@given(st.lists(st.text("abAé_ .1\n\0", max_size=120), min_size=1, max_size=3))
def test_word_signals_agree_with_a_plain_count(texts: Sequence[str]) -> None:
    columns = word_signals.measure([t.encode() for t in texts])
    for index, text in enumerate(texts):
        words = re.findall(r"[^\W_]+", text.replace("A", "a"))
        found = {name: column[index] for name, column in columns.items()}
        assert found["num_words"] == len(words)
        assert found["mean_word_characters"] == sum(map(len, words)) / max(len(words), 1)
        assert found["unique_word_share"] == len(set(words)) / max(len(words), 1)
        for size in word_signals.TOP_GRAMS:
            expected = plain_grams(words, size)[0]
            assert found[f"top_{size}gram_share"] == pytest.approx(expected)
        for size in word_signals.REPEATED_GRAMS:
            expected = plain_grams(words, size)[1]
            assert found[f"repeated_{size}gram_share"] == pytest.approx(expected)


def code(text: str, language: str, path: str = "a") -> dict[str, float]:
    values = code_signals.measure(text.encode(), language, path)
    return dict(zip(code_signals.NAMES, values, strict=True))


def test_headers_may_be_all_directives() -> None:
    text = "#ifndef A\n#define A\n#endif\n"
    assert code(text, "C", "a.c")["preprocessor_line_share"] == 1
    for header in ("a.h", "a.HPP", "b/c.hh"):
        assert code(text, "C++", header)["preprocessor_line_share"] == 0


def test_urls_are_no_long_words() -> None:
    assert code(f"'https://example.org/{'a' * 30}'", "Python")["long_word_share"] == 0


def test_what_a_language_does_not_have_is_zero() -> None:
    found = code("import os\npass\nprint(1)\nint main() {}\n", "Rust")
    for name in ("print_line_share", "pass_line_share", "import_line_share", "num_mains"):
        assert found[name] == 0


def test_an_empty_text_has_no_shares() -> None:
    assert set(code("", "Python").values()) == {0}
    assert set(measure("").values()) == {0}
