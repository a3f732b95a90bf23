"""The language table: the 18, and the files that need a second look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.languages import BY_NAME, LANGUAGES, detect


def test_the_table_has_the_papers_eighteen_and_no_extension_twice() -> None:
    assert len(LANGUAGES) == len(BY_NAME) == 18
    extensions = [e for language in LANGUAGES for e in language.extensions]
    assert len(extensions) == len(set(extensions))
    assert sum(language.mix_percent for language in LANGUAGES) == pytest.approx(100, abs=3)


@pytest.mark.parametrize(
    ("path", "head", "language"),
    [
        ("a/b.py", "", "Python"),
        ("a/B.PY", "", "Python"),
        ("x.ipynb", "", "Jupyter Notebook"),
        ("x.h", "int f(void);\n", "C"),
        ("x.h", "#pragma once\nnamespace a {\n", "C++"),
        ("x.h", "template <class T> T f();\n", "C++"),
        ("Rakefile", "", "Ruby"),
        ("bin/tool", "#!/usr/bin/env python3\n", "Python"),
        ("bin/tool", "#!/usr/bin/python3.11 -E\n", "Python"),
        ("bin/tool", "#!/bin/bash -eu\n", "Shell"),
        ("bin/tool", "no shebang\n", None),
        ("x.txt", "#!/bin/bash\n", None),
        ("README.md", "", None),
    ],
)
def test_detection(path: str, head: str, language: str | None) -> None:
    assert detect(path, head) == language


@given(st.text(), st.text())
def test_any_path_and_head_give_a_language_of_the_table_or_none(path: str, head: str) -> None:
    assert detect(path, head) in {None, *BY_NAME}
