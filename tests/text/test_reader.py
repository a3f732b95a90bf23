"""The one reader: markers in place of secrets, scripts in place of notebooks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
