"""The one reader: markers in place of secrets, scripts in place of notebooks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text import secrets
from snowcoder_jax.text.reader import clean_text

FIXTURES = Path(__file__).parents[1] / "fixtures" / "languages"


def test_text_without_secrets_is_unchanged() -> None:
    text = "def f():\r\n\treturn 'ü'\n"
    assert clean_text(text, "Python", ()) == text


def test_spans_as_a_table_gives_them() -> None:
    text = "é ada@analytical-engine.org!"
    spans = [{"start": 3, "end": len(text.encode()) - 1, "kind": "email"}]
    assert clean_text(text, "Python", spans) == "é <EMAIL_1>!"


def test_notebook_becomes_a_script_with_comments() -> None:
    script = clean_text(
        (FIXTURES / "jupyter_notebook/tally.ipynb").read_text(), "Jupyter Notebook", ()
    )
    assert "# # Counting words" in script
    assert "from collections import Counter\n" in script
    assert "Counter({'a': 2})" not in script  # outputs
    assert "kernelspec" not in script
    compile(script, "script", "exec")


def notebook(*sources: str, cell_type: str = "code") -> str:
    """A notebook's file; `sources` are the cells' sources as JSON: a string, or a list of them."""
    outputs = ', "execution_count": 1, "outputs": []' if cell_type == "code" else ""
    cells = ",\n".join(
        f'  {{"cell_type": "{cell_type}", "metadata": {{}}{outputs}, "source": {source}}}'
        for source in sources
    )
    return f'{{"cells": [\n{cells}\n ], "metadata": {{}}, "nbformat": 4, "nbformat_minor": 4}}'


def script_of(content: str) -> str:
    return clean_text(content, "Jupyter Notebook", secrets.find_spans(content, "Jupyter Notebook"))


def test_secrets_of_a_notebook_are_redacted_first() -> None:
    source = ["mail = 'ada@analytical-engine.org'\n", "print(mail)"]
    script = script_of(notebook(json.dumps(source)))
    assert "mail = '<EMAIL_1>'\nprint(mail)" in script


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r'"m = \"ada\u0040analytical-engine.org\""', 'm = "<EMAIL_1>"'),
        (r'"ip = 93.184.216\u002e34"', "ip = <IP_ADDRESS_1>"),
        (r'"\u0061da@analytical-engine.or\u0067\u000ax"', "<EMAIL_1>\nx"),
        (
            r'"u = postgresql:\/\/ada:r5Tz!pQ.8wLk@db.engine.net\/main"',
            "u = postgresql://ada:<PASSWORD_1>@db.engine.net/main",
        ),
        (r'["u = ada@analyt", "ical-engine.org\n", "x"]', "u = <EMAIL_1>\nx"),
        ('["ada@analyt"\n   ,\n\t"ical-engine.org"]', "<EMAIL_1>"),
        # What is escaped twice stays a Python string's escape, as in a Python file.
        (r'"x = ada\\u0040analytical-engine.org"', r"x = ada\u0040analytical-engine.org"),
        # One address, however it is written, is one marker.
        (
            r'["a@analytical-engine.org a\u0040analytical-engine.org\n", "a\u0040analyt",'
            r'"ical-engine.org b@analytical-engine.org"]',
            "<EMAIL_1> <EMAIL_1>\n<EMAIL_1> <EMAIL_2>",
        ),
        (r'["x = 1", "# ada@analytical-engine.org"]', "x = 1# <EMAIL_1>"),
        (r'["\ud83d\ude00 ada\u0040analytical-engine.org"]', "\U0001f600 <EMAIL_1>"),
    ],
)
@pytest.mark.parametrize("cell_type", ["code", "markdown"])
def test_secrets_behind_the_escapes_of_json(source: str, text: str, cell_type: str) -> None:
    content = notebook('"y = 2"', source, '"z = 3"', cell_type=cell_type)
    lines = text if cell_type == "code" else "\n".join(f"# {line}" for line in text.split("\n"))
    assert lines in script_of(content)
    json.loads(
        secrets.redact(content, secrets.find_spans(content, "Jupyter Notebook"), "Jupyter Notebook")
    )


SECRETS = (
    ("ada@analytical-engine.org", "EMAIL"),
    ("93.184.216.34", "IP_ADDRESS"),
    ("ghp_" + "a8Zk3LqX0vR7tYb2NcE5" + "sWm1Jd9UfHi4pQx6", "KEY"),
    ("postgresql://ada:r5Tz!pQ.8wLk@db.engine.net", "PASSWORD"),
)
SECRET_LINES = st.lists(
    st.tuples(st.sampled_from(SECRETS), st.sampled_from(("x = '{}'\n", "# {}\n", "\n{}\t\n"))),
    min_size=1,
    max_size=4,
)


@given(SECRET_LINES, st.randoms(use_true_random=False), st.sampled_from(("code", "markdown")))
def test_no_spelling_of_a_notebook_hides_a_secret(
    lines: list[tuple[tuple[str, str], str]], draw: random.Random, cell_type: str
) -> None:
    text = "".join(frame.format(secret) for (secret, _), frame in lines) + "end\n"
    strings = [""]
    for character in text:
        shapes = [json.dumps(character)[1:-1]] * 3 + [f"\\u{ord(character):04x}"]
        shapes += [r"\/"] * (character == "/")
        strings[-1] += draw.choice(shapes)
        if draw.random() < 0.05:
            strings.append("")
    joint = draw.choice((",", ", ", "\n   ,\n   "))
    script = script_of(notebook("[" + joint.join(f'"{s}"' for s in strings) + "]"))
    assert not secrets.find_spans(script), script
    for (secret, kind), _ in lines:
        assert secret not in script
        assert f"<{kind}_1>" in script
        assert f"<{kind}_2>" not in script


def test_redacted_alike_with_and_without_escapes() -> None:
    lines = [f"{frame.format(secret)}" for secret, _ in SECRETS for frame in ("x = '{}'\n", "{} ")]
    plain = script_of(notebook(json.dumps(lines)))
    every = "".join(f"\\u{ord(c):04x}" for c in "".join(lines))
    assert script_of(notebook(f'"{every}"')) == plain


@pytest.mark.parametrize("content", ["", "{}", "null", '{"cells": {}, "nbformat": 4}', "[[[["])
def test_broken_notebook(content: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        clean_text(content, "Jupyter Notebook", ())


def test_half_a_pair_in_a_notebook_is_no_text() -> None:
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "source": "a = '\ud83d'"}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    with pytest.raises(ValueError, match="UnicodeEncodeError"):
        clean_text(json.dumps(notebook), "Jupyter Notebook", ())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ("cell_type", "source", "metadata", "outputs", "cells", "input", "worksheets")
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)
CELLS = st.fixed_dictionaries(
    {"cell_type": st.sampled_from(("code", "markdown", "raw", "x")), "source": VALUES},
    optional={"metadata": VALUES, "outputs": VALUES, "execution_count": VALUES},
)


@given(
    st.fixed_dictionaries(
        {"nbformat": st.sampled_from((2, 3, 4, 5, "4", None))},
        optional={
            "cells": st.one_of(st.lists(CELLS, max_size=3), VALUES),
            "worksheets": VALUES,
            "metadata": VALUES,
            "nbformat_minor": VALUES,
        },
    )
)
def test_any_json_is_text_or_a_value_error(notebook: object) -> None:
    try:
        script = clean_text(json.dumps(notebook), "Jupyter Notebook", ())
    except ValueError:
        return
    script.encode()
