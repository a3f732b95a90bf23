"""Windows are whole lines within bounds, and begin and end where the text does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.synthesis.windows import Window, window_of

FUNCTION = "def f{0}(a):\n    b = a + {0}\n\n    return b\n\n\n"
FILE = "".join(FUNCTION.format(i) for i in range(10, 50)).rstrip() + "\n"
FUNCTION_BYTES = len(FUNCTION.format(10))


def test_a_text_that_fits_is_shown_whole() -> None:
    assert window_of(FILE, len(FILE), 7) == Window(FILE, 0, 0)
    window = window_of(FILE, len(FILE) - 1, 7)
    assert window is not None
    assert window.last_line > 0


def test_bytes_are_counted_and_not_characters() -> None:
    text = "é\n" * 10
    assert window_of(text, 30, 0) == Window(text)
    window = window_of(text, 29, 0)
    assert window is not None
    assert window.text == "é\n" * 9


def test_windows_are_whole_top_level_blocks_all_over_the_file() -> None:
    windows = [window_of(FILE, 3 * FUNCTION_BYTES + 30, draw) for draw in range(100)]
    starts = set()
    for window in windows:
        assert window is not None
        assert window.text.startswith("def f")
        assert window.text.endswith("return b\n")
        assert window.text.count("def f") in (2, 3)
        starts.add(window.first_line)
    # All but those too near the end for half a window.
    assert len(starts) == 39


def test_a_window_is_not_cut_back_to_less_than_half_of_what_fits() -> None:
    short, long = FUNCTION.format(10), FUNCTION.format(11).replace("\n\n", "\n    pass\n" * 20, 1)
    window = window_of(short + long, len(short) + 40, 0)
    assert window is not None
    assert window.text == short.rstrip() + "\n"
    window = window_of(short + long, 2 * len(short) + 40, 0)
    assert window is not None
    assert window.text.startswith(short + "def f11")


def test_line_numbers_are_those_of_the_text() -> None:
    window = window_of(FILE, 2 * FUNCTION_BYTES, 5)
    assert window is not None
    lines = FILE.splitlines(keepends=True)
    assert window.text == "".join(lines[window.first_line - 1 : window.last_line])


def test_a_window_begins_at_the_outermost_block_that_there_is() -> None:
    method = "    def f{0}(self):\n        return {0}\n\n"
    body = "".join(method.format(i) for i in range(10, 40))
    outer = window_of("class A:\n" + body, 200, 3)
    assert outer is not None
    assert outer.text.startswith("class A:\n")
    inner = window_of(body, 200, 3)
    assert inner is not None
    assert inner.text.startswith("    def f13")
    assert inner.text.endswith("\n        return 17\n")


@pytest.mark.parametrize(
    "definition",
    [
        "def f(a):\n    return a\n",
        "@decorated\nclass A:\n    pass\n",
        "/**\n * Words.\n */\npublic static final class A {\n}\n",
        "static int *twice(struct a *b,\n        int c)\n{\n}\n",
        "void A::f() {\n}\n",
        "template <typename T>\nT f(T x) { return x; }\n",
        "#[derive(Debug)]\npub(crate) struct A {\n}\n",
        "export default async function f() {\n}\n",
        "func (a *A) F() int {\n}\n",
        "create table a (\n  b int\n);\n",
        "twice() {\n  echo\n}\n",
        "fun twice(x: Int) = 2 * x\n",
    ],
)
def test_definitions_are_preferred_with_what_stands_directly_above_them(definition: str) -> None:
    other = "# some words\n\nWords at the margin\nof a long text.\n\ncall(1)\n\n" * 9
    text = other + definition + "\n" + other
    for draw in range(9):
        window = window_of(text, len(other), draw)
        assert window is not None
        assert window.text.startswith(definition)


def test_without_blank_lines_any_line_may_begin_it() -> None:
    text = "".join(f"call({i})\n" for i in range(1000, 1100))
    found = {window.first_line for draw in range(300) if (window := window_of(text, 110, draw))}
    # The first line is a block; no other is.
    assert found == {1}
    found = {w.first_line for draw in range(300) if (w := window_of(")\n" + text, 110, draw))}
    assert len(found) > 90


def test_a_line_too_long_is_left_out_and_only_such_lines_give_nothing() -> None:
    long = "x" * 101 + "\n"
    assert window_of(long * 3, 100, 0) is None
    window = window_of(long + "def f():\n    pass\n" + long, 100, 0)
    assert window == Window("def f():\n    pass\n", 2, 3)


def test_other_line_breaks_become_plain_ones() -> None:
    for draw in range(5):
        assert window_of(FILE.replace("\n", "\r\n"), 200, draw) == window_of(FILE, 200, draw)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(["\n", "\r", "a = 1\n", "    b\n", "é" * 9, ")\n", "\t", "\ud800"])
        ).map("".join),
    ),
    st.integers(0, 60),
    st.integers(0, 2**64),
)
def test_any_text_gives_lines_of_its_own_within_bounds(text: str, size: int, draw: int) -> None:
    window = window_of(text, size, draw)
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line + "\n" for line in plain.split("\n")]
    fits = any(
        line.strip() and len(line.rstrip("\n").encode("utf-8", "surrogatepass")) < size
        for line in lines
    )
    if window is None:
        assert not fits or plain.strip() == ""
        return
    assert len(window.text.encode("utf-8", "surrogatepass")) <= size
    if window.first_line:
        of_text = "".join(lines[window.first_line - 1 : window.last_line])
        assert window.text.rstrip("\n") == of_text.rstrip("\n")
        assert window.text.strip()
    else:
        assert window.text == plain
