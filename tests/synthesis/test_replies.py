"""Fenced blocks are found as CommonMark has them; tags name their languages."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.languages import LANGUAGES
from snowcoder_jax.synthesis.replies import TAGS, Block, code_blocks, names_language


@pytest.mark.parametrize(
    ("reply", "blocks"),
    [
        ("", []),
        ("x = 1\n", []),
        ("`x = 1`", []),
        ("``\nx\n``", []),
        ("```python\nx = 1\n```", [Block("python", "x = 1\n", True)]),
        ("Here it is:\n\n```Python\nx\n\ny\n```\nDone.", [Block("python", "x\n\ny\n", True)]),
        ("```\r\nx\r\n```\r\n", [Block("", "x\n", True)]),
        ("~~~go\nx\n~~~", [Block("go", "x\n", True)]),
        ('```c++ title="a.cc"\nx\n```  ', [Block("c++", "x\n", True)]),
        ("``` c#:a.cs\nx\n```", [Block("c#", "x\n", True)]),
        ("```python\nx", [Block("python", "x\n", False)]),
        ("```python\nx\n``` y\n", [Block("python", "x\n``` y\n\n", False)]),
        # A longer fence holds shorter ones; another mark closes nothing.
        ("````md\n```\nx\n```\n````", [Block("md", "```\nx\n```\n", True)]),
        ("```\n~~~\n```", [Block("", "~~~\n", True)]),
        ("```a\nx\n```\n```b\ny\n```", [Block("a", "x\n", True), Block("b", "y\n", True)]),
        # Four blanks make an indented block, in which a fence is text.
        ("    ```python\n    x\n    ```", []),
        ("```python\nx\n    ```\n```", [Block("python", "x\n    ```\n", True)]),
        ("```a`b\nx\n```", [Block("", "", False)]),
    ],
)
def test_blocks_are_found(reply: str, blocks: list[Block]) -> None:
    assert code_blocks(reply) == blocks


def test_every_language_has_a_tag_that_names_it_alone() -> None:
    assert set(TAGS) == {language.name for language in LANGUAGES}
    for name, tag in TAGS.items():
        assert names_language(tag, name)
        others = [n for n in TAGS if n != name and names_language(tag, n)]
        # A notebook is written as a Python script.
        assert not others or {name, *others} == {"Python", "Jupyter Notebook"}


@pytest.mark.parametrize(
    ("tag", "language", "names"),
    [
        ("py", "Python", True),
        ("", "Rust", True),
        ("cs", "C#", True),
        ("c", "C++", False),
        ("cpp", "C", False),
        ("javascript", "TypeScript", False),
        ("java", "JavaScript", False),
        ("text", "Python", False),
    ],
)
def test_tags_of_other_languages_are_told(tag: str, language: str, names: bool) -> None:
    assert names_language(tag, language) is names


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(["```", "````", "~~~", "python", "x", "\n", " ", "`", "\r", "\ud800"])
        ).map("".join),
    )
)
def test_no_reply_makes_it_raise_and_only_the_last_block_is_open(reply: str) -> None:
    blocks = code_blocks(reply)
    assert all(block.is_closed for block in blocks[:-1])
