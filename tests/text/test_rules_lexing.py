"""Comments and strings of code without a parse, held against the grammars where those exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax import languages
from snowcoder_jax.text import lexing, parsing, reader

FIXTURES = Path(__file__).parents[1] / "fixtures" / "languages"
ALL = [x.name for x in languages.LANGUAGES]


@pytest.mark.parametrize(
    ("language", "text", "comments", "strings"),
    [
        ("Python", "a = '#'  # b 'c'\n", ["# b 'c'"], ["'#'"]),
        ("Python", 'def f():\n    """d\n\n    e"""\n', ['"""d\n\n    e"""'], []),
        ("Python", 'a = """b"""\n', [], ['"""b"""']),
        ("Python", "a = 'b\\'c' + \"\" # d", ["# d"], ["'b\\'c'", '""']),
        ("Python", "'''a", [], []),
        ("Python", "it's # open\nb = 'c'\n", [], ["'c'"]),
        (
            "C",
            'char a = \'"\'; // b\n/* c\n// */ d("/*");',
            ["// b", "/* c\n// */"],
            ["'\"'", '"/*"'],
        ),
        ("C", "/* a", ["/* a"], []),
        ("C++", 'R"(a " // b)" // c\n1\'000', ["// c"], ['R"(a " // b)"']),
        ("C#", 'a = @"b\\"; // c', ["// c"], ['@"b\\"']),
        ("JavaScript", "a = `b\n// ${c}`; // d", ["// d"], ["`b\n// ${c}`"]),
        ("Go", "a := `b\\`; // c", ["// c"], ["`b\\`"]),
        ("Rust", 'fn a<\'b>(c: &\'b str) { r#"d"e"# } // f', ["// f"], ['r#"d"e"#']),
        ("PHP", "<?php # a\n#[B]\n$c = 'd\n#e';", ["# a"], ["'d\n#e'"]),
        ("SQL", "select 'it''s -- a' -- b\n", ["-- b"], ["'it''s -- a'"]),
        ("Ruby", '=begin\na\n=end\nb = "c#{d}" # e\n', ["=begin\na\n=end", "# e"], ['"c#{d}"']),
        ("Ruby", "a =begin\n", [], []),
        ("Shell", "a=${#b} $# '#' # c\n#d\n", ["# c", "#d"], ["'#'"]),
        ("Kotlin", 'a = """b\n"c" // d""" // e', ["// e"], ['"""b\n"c" // d"""']),
    ],
)
def test_comments_and_strings(
    language: str, text: str, comments: list[str], strings: list[str]
) -> None:
    parts = lexing.take_apart(text.encode(), language)
    assert [c.decode() for c in parts.comments] == comments
    assert [s.decode() for s in parts.strings] == strings
    kept = text
    for comment in comments:
        kept = kept.replace(comment, "", 1)
    assert parts.code.decode() == kept


def test_comments_are_those_of_the_grammars() -> None:
    for path in sorted(p for p in FIXTURES.rglob("*") if p.is_file()):
        text = path.read_text()
        language = languages.detect(path.name, text)
        assert language is not None
        if language == reader.NOTEBOOK:
            text = reader.notebook_to_script(text)
        tree = parsing.parse(text.encode(), language)
        assert tree is not None
        found, nodes = [], [tree.root_node]
        while nodes:
            node = nodes.pop()
            nodes.extend(node.children)
            if "comment" in node.type and node.parent is not None:
                assert node.text is not None
                found.append(node.text.strip())
        parts = lexing.take_apart(text.encode(), language)
        docstrings = [c for c in parts.comments if c[:3] in (b'"""', b"'''")]
        assert sorted(found) == sorted(c for c in parts.comments if c not in docstrings), path


@given(st.text() | st.text("\"'`/*#\\ \nrR(=@-b", max_size=60), st.sampled_from(ALL))
def test_any_text_is_taken_apart_and_nothing_is_lost(text: str, language: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    parts = lexing.take_apart(data, language)
    assert len(parts.code) + sum(map(len, parts.comments)) == len(data)
    assert all(s in data for s in parts.strings)


@pytest.mark.parametrize("language", ALL)
def test_long_broken_texts_take_linear_time(language: str) -> None:
    """Quadratic, each of these would take minutes."""
    for piece in ("'\\", '"\\', "/*", '"""', "`\\", "#", 'r#"', "=begin\n", "'''", "--", '@"'):
        data = piece.encode() * 200_000
        parts = lexing.take_apart(data, language)
        assert len(parts.code) + sum(map(len, parts.comments)) == len(data)
