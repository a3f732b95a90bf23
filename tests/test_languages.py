"""The language table: the 18, and the files that need a second look."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.languages import (
    _CONTENT_RULES,
    BY_NAME,
    LANGUAGES,
    detect,
    has_known_name,
    may_be_code,
)

FIXTURES = Path(__file__).parent / "fixtures" / "languages"
LINGUIST = (
    Path(os.environ.get("SNOWCODER_BENCHMARKS", Path(__file__).parents[2] / "shared" / "data"))
    / "linguist"
)
needs_linguist = pytest.mark.skipif(
    not LINGUIST.exists(), reason=f"no Linguist data at {LINGUIST}: set SNOWCODER_BENCHMARKS"
)


def test_the_table_has_the_papers_eighteen() -> None:
    assert len(LANGUAGES) == len(BY_NAME) == 18
    assert sum(language.mix_percent for language in LANGUAGES) == pytest.approx(100, abs=3)


@needs_linguist
def test_the_table_is_linguists() -> None:
    theirs: dict[str, Any] = yaml.safe_load((LINGUIST / "languages.yml").read_text())
    for language in LANGUAGES:
        stated = theirs[language.name]
        extensions = {e.lower() for e in stated.get("extensions", [])}
        if language.name == "TypeScript":
            extensions |= set(theirs["TSX"]["extensions"])
        assert set(language.extensions) == extensions, language.name
        assert set(language.filenames) == set(stated.get("filenames", [])), language.name
        assert set(language.interpreters) == set(stated.get("interpreters", [])), language.name


@needs_linguist
def test_an_extension_of_several_languages_has_a_rule_or_one_popular_sense() -> None:
    theirs: dict[str, Any] = yaml.safe_load((LINGUIST / "languages.yml").read_text())
    owners: dict[str, set[str]] = {}
    for name, stated in theirs.items():
        for extension in stated.get("extensions", []):
            owners.setdefault(extension.lower(), set()).add(name)
    # Of these the other owner is a dialect of the same language, or hardly exists.
    popular = {".cake", ".ddl", ".prc", ".sql"}
    for language in LANGUAGES:
        for extension in language.extensions:
            if len(owners[extension]) > 1:
                assert extension in {*_CONTENT_RULES, *popular}, extension


def test_every_fixture_is_told() -> None:
    found = {p.parent.name: detect(p.name, p.read_text()) for p in sorted(FIXTURES.rglob("*.*"))}
    names = {n.lower().replace(" ", "_"): n for n in BY_NAME}
    names |= {"cpp": "C++", "csharp": "C#"}
    assert found == {folder: names[folder] for folder in found}
    assert len(found) == 18


@pytest.mark.parametrize(
    ("path", "head", "language"),
    [
        ("a/b.py", "", "Python"),
        ("a/B.PY", "", "Python"),
        ("x.ipynb", "", "Jupyter Notebook"),
        ("x.test.ts", "export {};\n", "TypeScript"),
        ("x.d.ts", "declare const x: number;\n", "TypeScript"),
        ("x.tsx", "export {};\n", "TypeScript"),
        ("x.ts", "<?xml version='1.0'?>\n<!DOCTYPE TS>\n<TS version='2.1'>\n", None),
        ("config.h.in", "#undef X\n", "C"),
        ("x.h", "int f(void);\n", "C"),
        ("x.h", "#pragma once\nnamespace a {\n", "C++"),
        ("x.h", "template <class T> T f();\n", "C++"),
        ("x.h", "#include <string>\n", "C++"),
        ("x.h", "/* comments may\n   try this class of words */\nint f(void);\n", "C"),
        ("x.h", "#import <Foundation/Foundation.h>\n@interface A : NSObject\n", None),
        ("x.cs", "using System;\nnamespace A {}\n", "C#"),
        ("x.cs", "!Object methodsFor: 'printing'!\n", None),
        ("x.rs", "fn main() {}\n", "Rust"),
        ("x.rs", "#pragma version(1)\nint x;\n", None),
        ("x.rs", "<?xml version='1.0'?>\n", None),
        ("x.php", "<?php\n", "PHP"),
        ("x.php", "<?hh // strict\n", None),
        ("x.inc", "<?php\nfunction f() {}\n", "PHP"),
        ("x.inc", "#ifndef X\n#define X\nstd::string f();\n", "C++"),
        ("x.inc", "CREATE TABLE t (id int);\n", "SQL"),
        ("x.inc", "{$ifdef FPC}\n{$mode objfpc}\n", None),
        ("x.inc", "  mov ax, 1\n", None),
        ("x.inc", "just words\n", None),
        ("x.sql", "DECLARE @x int\nGO\n", "SQL"),
        ("x.sql", "CREATE FUNCTION f() RETURNS int AS $$ BEGIN; END $$ LANGUAGE plpgsql;", "SQL"),
        ("x.tab", "a\tb\t1\n", None),
        ("x.tab", "CREATE TABLE t (id int);\n", "SQL"),
        ("x.sc", "import scala.io\nclass A\n", "Scala"),
        ("x.sc", "~freq = 440;\n^super.new\n", None),
        ("x.cgi", "#!/usr/bin/perl -w\n", None),
        ("x.cgi", "#!/usr/bin/env python\n", "Python"),
        ("x.fcgi", "no shebang\n", None),
        ("x.spec", "Name: package\nVersion: 1\n", None),
        ("x.frag", "void main() { gl_FragColor = vec4(1.0); }\n", None),
        ("x.re", "#include <re2/re2.h>\n", "C++"),
        ("x.re", "open Belt;\nlet x = 1;\n", None),
        ("Rakefile", "", "Ruby"),
        (".bashrc", "", "Shell"),
        ("bin/tool", "#!/usr/bin/env python3\n", "Python"),
        ("bin/tool", "#!/usr/bin/python3.11 -E\n", "Python"),
        ("bin/tool", "#!/usr/bin/env -S X=1 node --flag\n", "JavaScript"),
        ("bin/tool", "#!/bin/bash -eu\n", "Shell"),
        ("bin/tool", "#! /bin/sh\nexec scala \"$0\" \"$@\"\n!#\n", "Scala"),
        ("bin/tool", "#!/usr/bin/perl\n", None),
        ("bin/tool", "#!\n", None),
        ("bin/tool", "no shebang\n", None),
        ("run.sh", "#!/usr/bin/env python\n", "Python"),
        ("run.ts", "#!/usr/bin/env node\n", "TypeScript"),
        ("x.txt", "#!/bin/bash\n", None),
        ("README.md", "", None),
        ("archive.tar", "", None),
    ],
)  # fmt: skip
def test_detection(path: str, head: str, language: str | None) -> None:
    assert detect(path, head) == language


def test_what_may_be_code_by_its_name() -> None:
    assert may_be_code("a/x.inc")
    assert may_be_code("bin/tool")
    assert not may_be_code("a/x.txt")
    assert has_known_name("Gemfile")
    assert not has_known_name("bin/tool")


@given(st.text(), st.text())
def test_any_path_and_head_give_a_language_of_the_table_or_none(path: str, head: str) -> None:
    assert detect(path, head) in {None, *BY_NAME}
    if detect(path, head) is not None:
        assert may_be_code(path)


@pytest.mark.parametrize("extension", sorted(_CONTENT_RULES))
@pytest.mark.parametrize("text", ["\n", " ", "\t\n", "a", "-", "(", "using "])
def test_no_text_makes_a_rule_slow(extension: str, text: str) -> None:
    """The whole head of one character over and over: minutes where a rule is quadratic."""
    detect("x" + extension, text * (60_000 // len(text)))
