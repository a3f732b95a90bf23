"""Acceptance: what is cut, what is refused and why, and that no text makes it raise."""

from __future__ import annotations

import ast
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_teacher import BENCHMARK_LINE, ContainsLine, good_part

from snowcoder_jax.evaluation.problems import load_problems
from snowcoder_jax.synthesis.accept import (
    Acceptance,
    Limits,
    Verdict,
    containment,
    cut_to_statements,
    repeated_share,
    shingles,
)
from snowcoder_jax.text.contamination import ContaminationIndex

HEAD = "import os\n\nX = 1"
FUNCTION = "\n\ndef f():\n    return 1\n"
SEED = HEAD + "\n\n\n" + good_part(5) + good_part(6)


def count_words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def acceptance(min_new_tokens: int = 32) -> Acceptance:
    return Acceptance(Limits(min_new_tokens, 0.7), count_words, ContainsLine())


def judge(text: str, finish: str = "stop", by: Acceptance | None = None) -> Verdict:
    by = by or acceptance()
    return by.judge(head=HEAD, seed_text=SEED, continuation=text, finish=finish)


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


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text(), st.text(), st.sampled_from(["stop", "length", "error"]))
def test_no_text_makes_the_verdict_raise(head: str, seed: str, text: str, finish: str) -> None:
    by = acceptance(min_new_tokens=0)
    for _ in range(2):
        by.judge(head=head, seed_text=seed, continuation=text, finish=finish)


def test_a_new_function_is_accepted_with_its_tokens() -> None:
    text = "\n\n\n" + good_part(1).strip() + "\n"
    assert judge(text) == Verdict(True, "", text, count_words(text))


def test_each_refusal_has_its_reason_value_and_threshold() -> None:
    by = acceptance()
    assert judge(good_part(1), by=by).accepted
    short = judge("\n\nx = 1\n", by=by)
    assert (short.reason, short.value, short.threshold) == ("too_short", 3, 32)
    looped = judge("\n" + "total = total + step\n" * 30, by=by)
    assert looped.reason == "repetition"
    assert looped.value is not None
    assert looped.value > 0.9
    assert judge(good_part(6), by=by).reason == "copy_of_seed"
    again = judge(good_part(1), by=by)
    assert (again.reason, again.value, again.threshold) == ("copy_of_other", 1.0, 0.7)
    benchmark = judge(good_part(2) + f"\n\n{BENCHMARK_LINE} = 1\n", by=by)
    assert (benchmark.reason, benchmark.detail) == ("contaminated", BENCHMARK_LINE)
    assert judge("ignored", finish="error", by=by).reason == "error"


def test_the_threshold_of_length_is_met_at_it_and_not_below() -> None:
    text = good_part(1)
    num_tokens = count_words(text.rstrip() + "\n")
    assert judge(text, by=acceptance(num_tokens)).accepted
    assert judge(text, by=acceptance(num_tokens + 1)).reason == "too_short"


def test_what_was_refused_is_no_other() -> None:
    by = acceptance()
    text = good_part(1) + f"\n\n{BENCHMARK_LINE} = 1\n"
    assert [judge(text, by=by).reason for _ in range(2)] == ["contaminated"] * 2


def test_a_near_copy_is_found_at_the_threshold() -> None:
    words = [f"word_{i}" for i in range(104)]
    own = shingles(" ".join(words))
    assert len(own) == 100
    for num_shared, share in ((69, 0.69), (70, 0.70)):
        other = shingles(" ".join(words[: num_shared + 4]))
        assert containment(own, other) == share


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n" * 50,
        "".join(f"def f{i}():\n    pass\n\n\n" for i in range(30)),
        "x = [" + "(), " * 60 + "]\n",
        ("def f(x):\n    return g(x) + h(x, 1)\n\n\n") * 10,
    ],
)
def test_loops_are_repetition(text: str) -> None:
    assert repeated_share(text) > 0.8


def test_real_code_is_no_repetition() -> None:
    for module in (ast, random, re):
        with open(module.__file__, encoding="utf-8") as f:
            assert repeated_share(f.read()[:10_000]) < 0.3


def test_the_solution_of_a_shipped_problem_is_contaminated() -> None:
    index = ContaminationIndex.from_benchmarks((), ngram_words=10)
    problem = load_problems()[0]
    by = Acceptance(Limits(8, 0.7), count_words, index)
    verdict = judge("\n\n\n" + problem.prompt + problem.solution, by=by)
    assert verdict.reason == "contaminated"
    assert problem.name in verdict.detail
    assert judge(good_part(1), by=by).accepted
