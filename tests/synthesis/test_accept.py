"""Acceptance: what becomes a document, what is refused and why; no text makes it raise."""

from __future__ import annotations

import ast
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import (
    SUBJECTS,
    VERBS,
    Row,
    completion_ask,
    count_words,
    good_part,
    instruct_ask,
    make_seed,
    seed_text,
)

from snowcoder_jax.languages import LANGUAGES
from snowcoder_jax.synthesis.accept import (
    MAX_FAULTY_SHARE,
    Limits,
    Verdict,
    containment,
    judge,
    parse_fault,
    repeated_share,
    shingles,
    usable_languages,
)
from snowcoder_jax.synthesis.requests import Answer, Finish, Request, Sampling, Seed
from snowcoder_jax.text import reader

HEAD = "import os\n\nX = 1"
SEED = HEAD + "\n\n\n" + good_part(5) + good_part(6)

# A short file of each language that its own tools accept.
FILES = {
    "Python": "def double(x: int) -> int:\n    return 2 * x\n",
    "Java": "class A {\n    static int twice(int x) {\n        return 2 * x;\n    }\n}\n",
    "C++": "#include <vector>\ntemplate <typename T> T twice(T x) { return x + x; }\n",
    "C": "#include <stdio.h>\nint main(void) {\n    return puts(\"x\") < 0;\n}\n",
    "JavaScript": "export const twice = (x) => 2 * x;\n",
    "PHP": "<?php\ndeclare(strict_types=1);\nfunction twice(int $x): int { return 2 * $x; }\n",
    "C#": "namespace A;\nrecord Point(int X, int Y);\nclass B { int F() => 1; }\n",
    "Go": "package main\n\nfunc twice[T int | float64](x T) T {\n\treturn 2 * x\n}\n",
    "TypeScript": "export const twice = (x: number): number => 2 * x;\n",
    "SQL": "CREATE TABLE a (id INTEGER PRIMARY KEY);\nSELECT id FROM a WHERE id > 1;\n",
    "Ruby": "def twice(x) = 2 * x\n\nputs twice(2)\n",
    "Rust": "fn twice(x: u32) -> u32 {\n    2 * x\n}\n",
    reader.NOTEBOOK: "# %% [markdown]\n# # Doubling\n\n# %%\nprint(2 * 3)\n",
    "Scala": "object A {\n  def twice(x: Int): Int = 2 * x\n}\n",
    "Kotlin": "fun twice(x: Int): Int = 2 * x\n",
    "Shell": "#!/usr/bin/env bash\nset -euo pipefail\ntwice() { echo \"$((2 * $1))\"; }\n",
    "Dart": "int twice(int x) => 2 * x;\n",
    "Swift": "func twice(_ x: Int) -> Int {\n    return 2 * x\n}\n",
}  # fmt: skip
# No file of any of them.
BROKEN = "def ((( class } fn = ; end]] <% 'é\n"


def make_row(
    text: str, /, *, prompt: str = "", finish: Finish = "stop", error: str = "", **seed: str
) -> Row:
    request = Request("k", make_seed(**seed), prompt, "v", Sampling(100, 0.6, 0.9), 0)
    return Row(request, Answer("k", text, 9, finish, error))


def limits(mode: str = "instruct", min_new_tokens: int = 0) -> Limits:
    return Limits(mode, min_new_tokens, 0.7)  # type: ignore[arg-type]


def reply(code: str, tag: str = "python", /, **seed: str) -> Verdict:
    row = make_row(f"Here it is:\n\n```{tag}\n{code}```\n\nDone.", **seed)
    return judge(row, limits(min_new_tokens=8), count_words)


def complete(text: str, finish: Finish = "stop", min_new_tokens: int = 32) -> Verdict:
    row = make_row(text, prompt=HEAD, finish=finish, text=SEED)
    return judge(row, limits("completion", min_new_tokens), count_words)


def test_limits_are_those_of_the_recipe() -> None:
    ask = instruct_ask(min_new_tokens=7, max_similarity=0.4)
    assert Limits.of(ask.synthesis) == Limits("instruct", 7, 0.4)
    assert Limits.of(completion_ask().synthesis).mode == "completion"
    assert usable_languages("completion") == ("Python",)
    assert len(usable_languages("instruct")) == 18


def test_the_code_of_a_good_reply_becomes_the_document() -> None:
    code = good_part(1).lstrip()
    assert reply("\n\n" + code + "\n\n") == Verdict(True, "", code, 0, count_words(code))


@pytest.mark.parametrize("language", [language.name for language in LANGUAGES])
def test_each_language_is_parsed_by_its_own_grammar(language: str) -> None:
    assert parse_fault(FILES[language], language) is None
    fault = parse_fault(BROKEN, language)
    assert fault is not None
    assert (fault.accepted, fault.reason) == (False, "unparsable")
    assert fault.detail


def test_typescript_with_elements_is_parsed_by_the_path_of_its_seed() -> None:
    code = "export const a = () => <div className='x'>{1}</div>;\n"
    assert parse_fault(code, "TypeScript", "a.tsx") is None
    assert parse_fault(code, "TypeScript", "a.ts") is not None


def test_a_macro_is_forgiven_in_c_and_a_fault_is_not_forgiven_in_go() -> None:
    line = "int f%d(int x) {\n    return x;\n}\n"
    code = "API_BEGIN(x) EXPORT\n" + "".join(line % i for i in range(100))
    assert parse_fault(code, "C") is None
    fault = parse_fault(code[: len(code) // 50], "C")
    assert fault is not None
    assert (fault.value or 0) > (fault.threshold or 1) == MAX_FAULTY_SHARE["C"]
    functions = "".join(f"func f{i}() int {{\n\treturn {i}\n}}\n" for i in range(100))
    assert parse_fault("package a\n" + functions, "Go") is None
    fault = parse_fault("package a\n)\n" + functions, "Go")
    assert fault is not None
    assert fault.threshold == 0.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_code_block"),
        ("I cannot help with that.", "no_code_block"),
        (
            f"```python\n{FILES['Python']}```\n```python\n{FILES['Python']}```",
            "several_code_blocks",
        ),
        (f"```python\n{FILES['Python']}", "open_code_block"),
        (f"```go\n{FILES['Go']}```", "wrong_language"),
        (f"```text\n{FILES['Python']}```", "wrong_language"),
        ("```python\n\n \n```", "empty"),
        (f"```python\n{FILES['Go']}```", "unparsable"),
        ("```python\nreturn 1\n```", "unparsable"),
        ("```python\nx = 1\0\n```", "unparsable"),
        ("```python\nx = '\ud800'\n```", "unparsable"),
        ("```python\nx = " + "(" * 100_000 + "\n```", "unparsable"),
        ("```python\n" + "x = 1\n" * 40_000 + "```", "unparsable"),
        ("```python\nx = 1\n```", "too_short"),
        ("```python\n" + "total = total + step\n" * 30 + "```", "repetition"),
        (f"```python\n{seed_text(0)}```", "copy_of_seed"),
    ],
)
def test_replies_are_refused_for_a_reason(text: str, reason: str) -> None:
    verdict = judge(make_row(text), limits(min_new_tokens=8), count_words)
    assert (verdict.accepted, verdict.reason) == (False, reason)
    verdict.content.encode()


def test_a_reply_that_was_cut_off_is_refused_whatever_it_holds() -> None:
    text = f"```python\n{good_part(1)}```"
    for finish, reason in (("stop", ""), ("length", "cut_off"), ("error", "error")):
        verdict = judge(
            make_row(text, finish=finish, error="context: \ud800"), limits(), count_words
        )
        assert verdict.reason == reason
    assert verdict.detail == "context: ?"


def test_another_language_without_a_tag_is_found_by_parsing() -> None:
    assert reply(FILES["Rust"], "", language="Rust").reason == ""
    assert reply(FILES["Rust"], "", language="Go").reason == "unparsable"
    assert reply(FILES["JavaScript"], "php", language="PHP").reason == "unparsable"


def test_a_notebook_is_written_as_a_script_and_stored_as_a_notebook() -> None:
    script = (
        "# %% [markdown]\n# # Doubling\n# What doubling *é* does.\n\n# %%\nx = 2\n\n"
        "# %%\nprint(2 * x)\n"
    )
    verdict = reply(script, language=reader.NOTEBOOK)
    assert verdict.accepted
    assert verdict.new_tokens == count_words(script)
    notebook = json.loads(verdict.content)
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown", "code", "code"]
    assert reader.clean_text(verdict.content, reader.NOTEBOOK, []).strip() == script.strip()
    # Nothing in it is random.
    assert reply(script, language=reader.NOTEBOOK) == verdict
    header = "# ---\n# jupyter:\n# ---\n\n# %%\nprint(2, 3, 4, 5)\n"
    assert reply(header, language=reader.NOTEBOOK).reason == "unparsable"


def test_a_new_function_is_accepted_with_its_tokens() -> None:
    text = "\n\n\n" + good_part(1).strip() + "\n"
    expected = Verdict(True, "", HEAD + text, len(HEAD), count_words(text))
    assert complete(text) == expected


def test_a_continuation_is_cut_back_and_its_head_is_not_counted() -> None:
    text = "\n\n\n" + good_part(1).strip() + "\n"
    verdict = complete(text + "\n\ndef unfinished(a,\n    b=(", "length")
    assert verdict == complete(text)
    row = make_row(text, prompt="# é\n" + HEAD, text=SEED)
    assert judge(row, limits("completion"), count_words).head_bytes == len(HEAD) + 5


def test_each_refusal_of_a_continuation_has_its_reason_value_and_threshold() -> None:
    short = complete("\n\nx = 1\n")
    assert (short.reason, short.value, short.threshold) == ("too_short", 3, 32)
    looped = complete("\n" + "total = total + step\n" * 30)
    assert looped.reason == "repetition"
    assert (looped.value or 0) > 0.9 > (looped.threshold or 0)
    copied = complete(good_part(6))
    assert (copied.reason, copied.value, copied.threshold) == ("copy_of_seed", 1.0, 0.7)
    assert copied.content == HEAD + good_part(6)
    assert complete("").reason == "empty"
    assert complete(")]}").reason == "unparsable"
    assert complete("\npass\n").reason == "no_new_statement"
    assert complete("ignored", "error").reason == "error"


def test_the_threshold_of_length_is_met_at_it_and_not_below() -> None:
    text = good_part(1)
    num_tokens = count_words(text)
    assert complete(text, min_new_tokens=num_tokens).accepted
    assert complete(text, min_new_tokens=num_tokens + 1).reason == "too_short"


def test_a_near_copy_is_found_at_the_threshold() -> None:
    words = [f"{verb}_{subject}" for verb in VERBS for subject in SUBJECTS][:104]
    own = shingles(" ".join(words))
    assert len(own) == 100
    for num_shared, share in ((69, 0.69), (70, 0.70)):
        other = shingles(" ".join(words[: num_shared + 4]))
        assert containment(own, other) == share
        # A command of many words.
        shown = " ".join(words[: num_shared + 4])
        verdict = reply(" ".join(words) + "\n", "bash", language="Shell", text=shown)
        assert verdict.accepted is (share < 0.7)


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


CODE = st.lists(
    st.sampled_from(
        ["```", "```python\n", "\n```\n", "# %%\n", "# ---\n", "def f():\n", "    x = 1\n", "<?php",
         "{", "}", "(", "'", '"', "\0", "\r", "\ud800", "é", "SELECT", "fn", "\n", "<!--", "`"]
    )
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(), CODE, CODE.map(lambda code: f"```\n{code}\n```")),
    st.sampled_from([language.name for language in LANGUAGES]),
    st.sampled_from(["stop", "length", "error"]),
    st.sampled_from(["instruct", "completion"]),
)
def test_no_text_makes_the_verdict_raise(
    text: str, language: str, finish: Finish, mode: str
) -> None:
    row = make_row(text, finish=finish, error=text, prompt=HEAD, language=language, text=text)
    verdict = judge(row, limits(mode), lambda x: len(x.encode()))
    assert verdict.accepted == (verdict.reason == "")
    assert verdict.content.encode()[: verdict.head_bytes].decode() in ("", HEAD)
    verdict.detail.encode()
    if verdict.accepted:
        assert verdict.content.endswith("\n")


def test_a_seed_is_only_what_was_shown() -> None:
    shown = Seed("a", "r", "p.py", "Python", good_part(3), 0.0, "", 10, 20)
    request = Request("k", shown, "", "v", Sampling(9, 0.0, 1.0), 0)
    other = Answer("k", f"```python\n{good_part(4)}```", 9, "stop")
    same = Answer("k", f"```python\n{good_part(3)}```", 9, "stop")
    assert judge(Row(request, other), limits(), count_words).accepted
    assert judge(Row(request, same), limits(), count_words).reason == "copy_of_seed"
