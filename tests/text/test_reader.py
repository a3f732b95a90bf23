"""The one reader: markers in place of secrets, scripts in place of notebooks."""

from __future__ import annotations

import json
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


def test_secrets_of_a_notebook_are_redacted_first() -> None:
    source = ["mail = 'ada@analytical-engine.org'\n", "print(mail)"]
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "metadata": {},
        "outputs": [],
        "source": source,
    }
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    content = json.dumps(notebook)
    script = clean_text(content, "Jupyter Notebook", secrets.find_spans(content))
    assert "<EMAIL_1>" in script
    assert "analytical" not in script


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
