"""Heads are whole statements where possible; a request's key changes with all that matters."""

from __future__ import annotations

import ast
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_teacher import byte_tokenizer, seed_documents

from snowcoder_jax.synthesis.prompts import MIN_HEAD_TOKENS, Sampling, completion_requests, head_of
from snowcoder_jax.synthesis.seeds import SeedDocument
from snowcoder_jax.tokenizer import FILE_SEP

TOKENIZER = byte_tokenizer()
FILE = (
    '"""What it is."""\n\nimport os\nimport sys\n\n\n'
    "def f(a):\n    return (\n        a\n    )\n\n\nX = 1\n"
)


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


def requests_of(documents: list[SeedDocument], **changed: object) -> dict[str, str]:
    arguments: dict[str, object] = {
        "tokenizer": TOKENIZER,
        "teacher_fingerprint": "a",
        "sampling": Sampling(10, 0.6, 0.9),
        "head_tokens": 100,
        "seed": 0,
    }
    asked = completion_requests(documents, **{**arguments, **changed})  # type: ignore[arg-type]
    return {r.seed_id: r.key for r in asked.requests}


def test_the_prompt_is_a_file_as_in_training_and_fits() -> None:
    asked = completion_requests(
        seed_documents(5),
        tokenizer=TOKENIZER,
        teacher_fingerprint="a",
        sampling=Sampling(10, 0.6, 0.9),
        head_tokens=100,
        seed=0,
    )
    assert len(asked.requests) == 5
    for request in asked.requests:
        assert request.prompt_ids[0] == TOKENIZER.special(FILE_SEP)
        assert TOKENIZER.decode(request.prompt_ids[1:]) == request.prompt
        assert len(request.prompt_ids) <= 100


def test_the_key_changes_with_teacher_prompt_sampling_and_seed_only() -> None:
    documents = seed_documents(3)
    keys = requests_of(documents)
    assert len(set(keys.values())) == 3
    assert requests_of(documents[::-1]) == keys
    renamed = [dataclasses.replace(d, repo="other", score=0.1) for d in documents]
    assert requests_of(renamed) == keys
    for changed in (
        {"teacher_fingerprint": "b"},
        {"sampling": Sampling(11, 0.6, 0.9)},
        {"sampling": Sampling(10, 0.7, 0.9)},
        {"head_tokens": 90},
        {"seed": 1},
    ):
        assert not set(requests_of(documents, **changed).values()) & set(keys.values())


def test_two_seeds_with_one_head_are_two_requests() -> None:
    one = seed_documents(1)[0]
    assert len(set(requests_of([one, dataclasses.replace(one, id="twin")]).values())) == 2
