"""Pieces of the inspect page: bins, samples, windows of text, marks in code."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snowcoder_jax.reports import inspect_plots
from snowcoder_jax.reports.highlight import code_block
from snowcoder_jax.reports.inspect_samples import Smallest
from snowcoder_jax.reports.inspect_sources import effective_number
from snowcoder_jax.reports.inspect_tallies import Tally, common_grid
from snowcoder_jax.reports.inspect_texts import NUM_LINES, Document
from snowcoder_jax.text import secrets
from snowcoder_jax.text.reader import clean_text

EMAIL = "jane.roe@corp-mail.com"


def document(content: str, language: str = "Python") -> Document:
    spans = [dict(span) for span in secrets.find_spans(content)]
    return Document("id", "repo", "path", language, "MIT", content, spans)


values = st.lists(
    st.one_of(
        st.floats(-1e12, 1e12), st.floats(0, 1), st.integers(0, 10**6).map(float), st.just(np.nan)
    ),
    min_size=1,
    max_size=50,
)


@example(parts=[[0.75]], threshold=0.5)
@example(parts=[[1.0], [0.0]], threshold=1.0)
@given(parts=st.lists(values, min_size=1, max_size=4), threshold=st.floats(1e-9, 1e9))
def test_every_value_is_in_one_bin_on_its_side_of_the_threshold(
    parts: list[list[float]], threshold: float
) -> None:
    whole, others = Tally(), Tally()
    for part in parts:
        array = np.array(part)
        whole.add(array, array > threshold)
    others.add(np.array([0.5]), np.array([False]))
    flat = np.array([v for part in parts for v in part])
    assert whole.num_missing == np.isnan(flat).sum()
    if whole.num_values == 0:
        return
    bins = whole.bins(common_grid([whole, others], [threshold]))
    known = flat[~np.isnan(flat)]
    assert bins.failed.sum() + bins.num_zero[1] == (known > threshold).sum() == whole.num_failed
    assert bins.passed.sum() + bins.num_zero[0] == (known <= threshold).sum()
    assert len(bins.edges) == len(bins.passed) + 1 <= 40
    assert (np.diff(bins.edges) > 0).all()
    # Drawing never fails, whatever the range.
    assert "<svg" in inspect_plots.histogram("C", "1 file", bins, [threshold])


def test_round_thresholds_part_bins() -> None:
    tally = Tally()
    array = np.array([3.0, 99.9, 100.0, 100.1, 5_000.0])
    tally.add(array, array > 100)
    edges = tally.bins(common_grid([tally], [100.0])).edges
    assert np.isclose(edges, 100.0).any()
    tally = Tally()
    tally.add(np.array([0.1, 0.9]), np.array([True, False]))
    bins = tally.bins(common_grid([tally], [0.25]))
    assert not bins.is_log
    assert np.isclose(bins.edges, 0.25).any()


@given(st.permutations(range(12)))
def test_samples_do_not_depend_on_the_order(order: list[int]) -> None:
    smallest = Smallest(3)
    for i in order:
        smallest.add(("rule",), {"id": f"{i:02}", "key": i % 4})
    assert [e["id"] for e in smallest.buckets()["rule",]] == ["00", "04", "08"]


@settings(max_examples=60)
@given(st.data())
def test_no_window_shows_a_secret_or_changes_the_text(data: st.DataObject) -> None:
    pieces = st.one_of(
        st.text(max_size=12),
        st.sampled_from([f' "{EMAIL}" ', "\n", "\t", "é", "\ue000", "x" * 300]),
    )
    content = "".join(data.draw(st.lists(pieces, min_size=1, max_size=30)))
    start = data.draw(st.integers(0, len(content) - 1)) if content else 0
    part = content[start : start + data.draw(st.integers(0, 40))]
    made = document(content)
    clean = clean_text(content, "Python", made._spans)
    for shown in (made.head(), made.longest_line(), made.around(part), made.secrets("email")):
        assert shown is not None
        assert EMAIL not in shown.text
        plain = shown.text
        for mark in shown.marks:
            plain = plain.replace(mark, "")
        lines = clean.split("\n")[shown.first_line - 1 :][:NUM_LINES]
        for line, original in zip(plain.split("\n"), lines, strict=False):
            assert line == original or "characters)" in line


def test_a_match_that_begins_inside_a_secret_is_marked_with_the_whole_marker() -> None:
    made = document(f'before = 1\nmail = "{EMAIL}"\nafter = 2\n')
    shown = made.around('corp-mail.com"\nafter')
    assert shown is not None
    assert shown.marked_parts() == ['<EMAIL_1>"\nafter']


def test_a_match_is_found_with_other_white_space_and_shown_from_above_it() -> None:
    content = "\n".join(f"line_{i} = {i}" for i in range(300))
    shown = document(content).around("LINE_200 =  200   line_201")
    assert shown is not None
    assert shown.first_line == 195
    assert shown.marked_parts() == ["line_200 = 200\nline_201"]
    missing = document(content).around("nowhere")
    assert missing is not None
    assert (missing.marked_parts(), missing.first_line) == ([], 1)


def test_a_notebook_is_shown_as_a_script_and_a_broken_one_as_nothing() -> None:
    cell = '{"cell_type": "code", "source": ["a_name = 1"], "metadata": {}, "outputs": []}'
    made = document(
        f'{{"cells": [{cell}], "metadata": {{}}, "nbformat": 4, "nbformat_minor": 5}}',
        "Jupyter Notebook",
    )
    shown = made.around("a_name = 1")
    assert shown is not None
    assert shown.marked_parts() == ["a_name = 1"]
    assert "cell_type" not in shown.text
    assert document("{", "Jupyter Notebook").head() is None


def test_pairs_begin_near_their_first_difference() -> None:
    same = "\n".join(f"line_{i} = {i}" for i in range(100))
    pair = document(same + "\nleft = 1\n").beside(document(same + "\nright = 2\n"), 5)
    assert pair is not None
    assert pair.first.first_line == pair.second.first_line == 95
    assert pair.first.marked_parts() == ["left = 1"]
    assert pair.second.marked_parts() == ["right = 2"]
    assert 0.9 < pair.similarity < 1


@pytest.mark.parametrize("language", ["Python", "C", "Shell", "unknown"])
def test_marks_nest_with_syntax_and_keep_the_text(language: str) -> None:
    chance = random.Random(0)
    for _ in range(30):
        words = ['"""', "def f(x):\n", "# note\n", " <b>", "'s'", "[", "]", "1\n", "&amp;"]
        text = "".join(chance.choices([*words, "\n"], k=20))
        block = code_block("x" + text, language, marks="[]")
        stack: list[str] = []
        for closing, name in re.findall(r"<(/?)(\w+)[^>]*>", block):
            if closing:
                assert stack.pop() == name
            else:
                stack.append(name)
        assert stack == []
        plain = re.sub(r"<[^>]+>", "", block).replace("&#x27;", "'").replace("&quot;", '"')
        plain = plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        assert plain.strip() == re.sub(r"[\[\]]", "", "x" + text).strip()


def test_what_is_marked_is_what_stands_between_the_marks() -> None:
    block = code_block("a = [1 + 2] + 3", "Python", marks="[]")
    marked = re.sub("<[^>]+>", "", "".join(re.findall("<mark>(.*?)</mark>", block)))
    assert marked == "1 + 2"
    # Cut before its end, a mark goes to the end.
    assert "<mark>2</mark>" in code_block("1 [2", "unknown", marks="[]")


def test_the_effective_number_of_repositories() -> None:
    assert effective_number(np.array([0.25] * 4)) == pytest.approx(4)
    assert effective_number(np.array([1.0, 0.0])) == pytest.approx(1)
    assert effective_number(np.array([])) == 0
