"""Python's parser behind functions that never raise."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text.parsing import parses, top_level_statements


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", True),
        ("x = 1\n", True),
        ("def f(:\n", False),
        ("x = '\\d' is 1\n", True),  # two SyntaxWarnings
        ("x = 1\0", False),
        ("\ud800", False),
        ("\ufeffx = 1", False),
        ("if x:\n\ty\n        z\n", False),
        ("print 'python 2'", False),
    ],
)
def test_parses(text: str, answer: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parses(text, "Python") is answer


def test_what_cannot_be_told_is_none() -> None:
    assert parses("int main() {}", "C") is None
    assert parses("x = 1\n" * 1_000_000, "Python") is None
    for deep in ("(" * 50_000, "-" * 100_000 + "1", "x" + ".a" * 100_000, "[" * 5000 + "]" * 5000):
        assert parses(deep, "Python") in (None, False)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert parses(text, "Python") in (True, False, None)
    top_level_statements(text)


def test_statements_are_cut_in_bytes() -> None:
    text = (
        '"""Dök"""\r\nimport os; x = "é"\n\n\x0c\n@a\n@b(1)\nasync def f(\n    y,\n):\n    pass\n'
        "# end\nclass C: z = 'ü'  # note\n"
    )
    data = text.encode()
    statements = top_level_statements(text)
    assert [data[s.start : s.end].decode() for s in statements] == [
        '"""Dök"""',
        "import os",
        'x = "é"',
        "@a\n@b(1)\nasync def f(\n    y,\n):\n    pass",
        "class C: z = 'ü'",
    ]
    assert [(s.kind, s.name) for s in statements[3:]] == [
        ("AsyncFunctionDef", "f"),
        ("ClassDef", "C"),
    ]


def test_broken_code_has_no_statements() -> None:
    assert top_level_statements("x = 1\ny = (") == []
