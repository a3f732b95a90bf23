"""Completions: heads are whole statements where possible, continuations are cut back to them."""

from __future__ import annotations

import ast
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import byte_tokenizer

from snowcoder_jax.synthesis.completion import MIN_HEAD_TOKENS, cut_to_statements, head_of

TOKENIZER = byte_tokenizer()
FILE = (
    '"""What it is."""\n\nimport os\nimport sys\n\n\n'
    "def f(a):\n    return (\n        a\n    )\n\n\nX = 1\n"
)
HEAD = "import os\n\nX = 1"
FUNCTION = "\n\ndef f():\n    return 1\n"


@pytest.mark.parametrize(
    ("max_tokens", "head_end"),
    [
        (1000, "    )\n\n\n"),
        (83, "    )\n\n\n"),
        (82, "import sys\n\n\n"),
        (42, "import sys\n\n\n"),
        (41, "import os\n"),
        (29, "import os\n"),
        (28, '"""\n\n'),
    ],
)
def test_the_head_is_the_longest_run_of_whole_statements(max_tokens: int, head_end: str) -> None:
    head, reason = head_of(FILE, TOKENIZER, max_tokens)
    assert reason == ""
    assert FILE.startswith(head)
    assert head.endswith(head_end)
    ast.parse(head)


def test_a_big_first_statement_is_cut_at_a_line() -> None:
    text = "class A:\n" + "".join(f"    field_{i} = {i}\n" for i in range(100)) + "\nX = 1\n"
    first_field = "class A:\n    field_0 = 0\n"
    second_field = first_field + "    field_1 = 1\n"
    assert head_of(text, TOKENIZER, len(second_field)) == (second_field, "")
    assert head_of(text, TOKENIZER, len(second_field) - 1) == (first_field, "")


@pytest.mark.parametrize("line", ["value_{} = {}\n", "\n", "    field_{} = {}\n"])
def test_a_big_file_takes_memory_by_its_size_not_by_its_square(line: str) -> None:
    # All the runs of lines that begin this file are 3 GB together.
    lines = "".join(line.format(i, i) for i in range(15_000))
    text = f"class A:\n    one = 1\n    two = 2\n{lines}\nlast = 1\n"
    tracemalloc.start()
    try:
        head, _ = head_of(text, TOKENIZER, 100)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert head.startswith("class A:\n    one = 1\n")
    assert peak_bytes < 200_000_000


def test_statements_on_one_line_are_not_parted() -> None:
    text = "first_value = 1; second_value = 2\nthird = 3\n"
    assert head_of(text, TOKENIZER, 34)[0] == "first_value = 1; second_value = 2\n"
    assert head_of(text, TOKENIZER, 33) == ("", "short")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "short"),
        ("x = 1\n", "short"),
        ("x = 1\ny = 2\nz = 3\n", "short"),  # 12 bytes before the last statement
        ("one_statement_and_nothing_besides = 1\n", "short"),
        ("def broken(:\n" * 9, "unparsable"),
        ("x = 1\0\n" * 9, "unparsable"),
    ],
)
def test_seeds_without_a_head_say_why(text: str, reason: str) -> None:
    assert head_of(text, TOKENIZER, 100) == ("", reason)


def test_the_head_begins_at_the_first_statement() -> None:
    licence = "#!/bin/python\n# You may use this.\n" * 20
    assert head_of(licence + FILE, TOKENIZER, 50) == head_of(FILE, TOKENIZER, 50)
    decorated = "@decorator\ndef f():\n    pass\n"
    assert head_of(licence + decorated + "X = 1\n", TOKENIZER, 50)[0] == decorated


def test_a_docstring_too_long_for_the_head_is_left_out() -> None:
    text = '"""' + "Many words.\n" * 20 + '"""\n' + FILE.split("\n", 2)[2]
    assert head_of(text, TOKENIZER, 60)[0] == "import os\nimport sys\n\n\n"


def test_other_line_breaks_become_plain_ones() -> None:
    assert head_of(FILE.replace("\n", "\r\n"), TOKENIZER, 50) == head_of(FILE, TOKENIZER, 50)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_a_head_within_bounds_or_a_reason(text: str) -> None:
    head, reason = head_of(text, TOKENIZER, 60)
    assert bool(head) != bool(reason)
    if head:
        assert MIN_HEAD_TOKENS <= len(TOKENIZER.encode(head)) <= 60


@pytest.mark.parametrize(
    ("continuation", "ended", "kept"),
    [
        (FUNCTION, True, FUNCTION),
        (FUNCTION + "\nY = 2", True, FUNCTION + "\nY = 2\n"),
        # Cut off by length: the last statement may lack its end, though it parses.
        (FUNCTION + "\nY = 2", False, FUNCTION),
        (FUNCTION + "\ny = 2; z = 3", False, FUNCTION),
        (FUNCTION + "\ndef g(:\n    pass\n", True, FUNCTION),
        (FUNCTION + "\nx = (1,\n", False, FUNCTION),
        (FUNCTION + "\nx = '''\ntext\nthat goes on", False, FUNCTION),
        (FUNCTION + "\n# about what is dropped\ndef g(:", True, FUNCTION),
        (FUNCTION + "\n@decorator\n@another", True, FUNCTION),
        (FUNCTION + "\nreturn 1\n", True, FUNCTION),
        (FUNCTION + "\ny = 1\n\0", True, FUNCTION + "\ny = 1\n"),
        ("\ny = (\n1\n)\nz = [", True, "\ny = (\n1\n)\n"),
        ("\nif f():\n    g()\nelse:\n    h()\nel", False, "\nif f():\n    g()\nelse:\n    h()\n"),
        ("\ry = 1\rz = 2\rw = (", True, "\ry = 1\rz = 2\n"),
        (" + 2\ny = 1\n", True, " + 2\ny = 1\n"),
    ],
)
def test_cut_back_to_the_last_whole_statement(continuation: str, ended: bool, kept: str) -> None:
    assert cut_to_statements(HEAD, continuation, ended=ended) == (kept, "")
    ast.parse(HEAD + kept)


@pytest.mark.parametrize(
    ("continuation", "ended", "reason"),
    [
        ("", True, "empty"),
        (" \n\t\n", True, "empty"),
        (")]}", True, "unparsable"),
        ("\n\ndef f(:\n    pass\n", True, "unparsable"),
        ("\nawait x\n", True, "unparsable"),
        ("(" * 100_000, True, "unparsable"),
        ("\nx = " + "-" * 100_000 + "1", True, "unparsable"),
        ("\nx = a" + ".b" * 50_000, True, "unparsable"),
        ("\n" + "x" * 300_000, True, "unparsable"),
        ("0", True, "no_new_statement"),
        ("; y = 2\n", True, "no_new_statement"),
        ("\n# a comment\n", True, "no_new_statement"),
        ("\npass\n'text'\nname\n...\n", True, "no_new_statement"),
        (FUNCTION, False, "no_new_statement"),
    ],
)
def test_nothing_whole_and_new_is_refused(continuation: str, ended: bool, reason: str) -> None:
    assert cut_to_statements(HEAD, continuation, ended=ended) == ("", reason)


def test_a_head_inside_a_statement_is_gone_on_with() -> None:
    head = "class A:\n    x = 1"
    kept, reason = cut_to_statements(head, "\n    y = 2\n\nB = A()\n\nC = (", ended=False)
    assert (kept, reason) == ("\n    y = 2\n\nB = A()\n", "")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([HEAD, "", "class A:\n    x = 1", "'''", "\r"]),
    st.one_of(
        st.text(),
        st.binary().map(lambda b: b.decode("utf-8", "surrogateescape")),
        st.lists(
            st.sampled_from(
                ["def f(x):\n", "    return x\n", "x = 1\n", "'''", '"', "(", ")", "\r", "\0",
                 "\x0c", "\\", "@a\n", "else:\n", "\ufeff", "\ud800", "#", ";", "\t", "f'{", "\n"]
            )
        ).map("".join),
    ),
    st.booleans(),
)  # fmt: skip
def test_no_text_makes_the_cut_raise_and_what_it_keeps_parses(
    head: str, text: str, ended: bool
) -> None:
    kept, reason = cut_to_statements(head, text, ended=ended)
    assert bool(kept) != bool(reason)
    if kept:
        ast.parse(head + kept)
        # Cutting what was kept changes nothing.
        assert cut_to_statements(head, kept, ended=True) == (kept, "")
