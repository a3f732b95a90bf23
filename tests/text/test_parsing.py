"""Trees of all languages: what is counted, what faults cost, and that no text does harm."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax import languages
from snowcoder_jax.text import grammars, parse_worker, parsing, reader
from snowcoder_jax.text.parsing import Counts

FIXTURES = Path(__file__).parents[1] / "fixtures" / "languages"
ALL = [x.name for x in languages.LANGUAGES]


def count(text: str, language: str, path: str = "") -> Counts:
    tree = parsing.parse(text.encode(), language, path)
    assert tree is not None
    return parsing.count(tree, language, path)


# functions, classes, imports, variables, simple functions, simple returns, simple variables
CODE = {
    "Python": (
        "import a\nfrom b import c\n@d\nclass E(c):\n    f = 1\n    def g(self): return f\n"
        "async def h(): return g(1)\ni = 2\n",
        (2, 1, 2, 3, 2, 1, 1),
    ),
    "C": (
        "#include <a.h>\nstruct b { int c; char *d; };\nint e(int f);\n"
        "int *g(void);\nstatic int h(void) {\n  int i, j = 2;\n  struct b k;\n  return i;\n}\n",
        (3, 1, 1, 4, 0, 1, 3),
    ),
    "C++": (
        "#include <a>\nclass B {\n  int c;\n  void d();\n  int e() const { return c; }\n};\n"
        "template <class F> F g(F h) { return g(h + 1); }\nint &i();\n",
        (4, 1, 1, 1, 2, 1, 1),
    ),
    "Java": (
        "import a.b;\nclass C {\n  int d;\n  int e = f();\n  C() {}\n"
        "  int f() { return -1; }\n  interface G { void h(); }\n}\n",
        (3, 2, 1, 2, 1, 1, 1),
    ),
    "C#": (
        "using A;\nclass B {\n  int c;\n  int D() { var e = F(1); return e; }\n  B() {}\n}\n",
        (2, 1, 1, 2, 0, 1, 1),
    ),
    "Go": (
        'package a\nimport (\n  "b"\n)\ntype C struct { d int }\nvar e int\nvar f = g(1)\n'
        "func (c C) h() int { i := 1; return c.d + i }\nfunc j() string { return `k` }\n",
        (2, 1, 1, 3, 0, 1, 1),
    ),
    "JavaScript": (
        "import a from 'b';\nconst c = require('d'), e = 1;\nlet f;\nclass G { h() { return; } }\n"
        "function i() { return { j: 1 }; }\nconst k = () => 2;\nmodule.exports.l = i;\n",
        (3, 1, 1, 4, 2, 1, 2),
    ),
    "TypeScript": (
        "import { a } from 'b';\ninterface C { d(): void }\nabstract class E { f = 1; }\n"
        "function g(h: number): number { return h }\nconst i: number = 2;\n",
        (2, 2, 1, 2, 1, 1, 1),
    ),
    "PHP": (
        "<?php\nuse A\\B;\nrequire 'c.php';\nclass D {\n  public $e;\n"
        "  function f() { return $this; }\n}\nfunction g() { $h = 1; }\n",
        (2, 1, 2, 2, 1, 1, 1),
    ),
    "SQL": (
        "CREATE TABLE a (b INT);\nCREATE VIEW c AS SELECT b FROM a;\nSELECT * FROM c;\n",
        (0, 2, 0, 0, 0, 0, 0),
    ),
    "Ruby": (
        "module A\n  class B\n    def c\n      d = 1\n      return d\n    end\n"
        "    def self.e; end\n  end\nend\n",
        (2, 2, 0, 1, 0, 1, 0),
    ),
    "Rust": (
        "use a::b;\nstruct C { d: i32 }\ntrait E { fn f(&self); }\nimpl E for C {\n"
        "    fn f(&self) { let g = 1; let h = i(2); return; }\n}\nconst J: i32 = 1;\n",
        (2, 3, 1, 3, 0, 1, 2),
    ),
    "Scala": (
        "import a.b\nobject C {\n  val d = 1\n  var e = f(2)\n  def f(g: Int): Int = g\n}\n"
        "trait H { def i: Int }\n",
        (2, 2, 1, 2, 0, 0, 1),
    ),
    "Kotlin": (
        "import a.b\nclass C(val d: Int) {\n    val e = 1\n    fun f(): Int { return e }\n}\n"
        "object G\nfun h() = i(2)\n",
        (2, 2, 1, 1, 0, 1, 1),
    ),
    "Shell": ("a=1\nb() {\n  local c=2\n  echo $a\n}\nb\n", (1, 0, 0, 2, 0, 0, 0)),
    "Dart": (
        "import 'a.dart';\nclass B {\n  int c() { return 1; }\n  B();\n}\n"
        "int get d => 2;\nvoid e() { var f = 3; }\n",
        (4, 1, 1, 1, 0, 1, 1),
    ),
    "Swift": (
        "import A\nprotocol B { func c() }\nclass D {\n    var e = 1\n    init() {}\n"
        "    func f() -> Int { return e }\n}\n",
        (3, 2, 1, 1, 0, 1, 1),
    ),
}


@pytest.mark.parametrize("language", sorted(CODE))
def test_what_is_counted(language: str) -> None:
    text, expected = CODE[language]
    found = count(text, language)
    assert (
        found.num_functions,
        found.num_classes,
        found.num_imports,
        found.num_variables,
        found.num_simple_functions,
        found.num_simple_returns,
        found.num_simple_variables,
    ) == expected
    assert found.error_bytes == 0


def test_all_languages_have_a_grammar_and_their_files_parse() -> None:
    assert set(grammars.GRAMMARS) == set(ALL) == {*CODE, reader.NOTEBOOK}
    for path in sorted(p for p in FIXTURES.rglob("*") if p.is_file()):
        text = path.read_text()
        language = languages.detect(path.name, text)
        assert language is not None
        if language == reader.NOTEBOOK:
            text = reader.notebook_to_script(text)
        assert count(text, language, path.name).error_bytes == 0, path


def test_tsx_has_its_own_grammar() -> None:
    text = "const a = <b c={1}>text</b>;\n"
    assert count(text, "TypeScript", "a.tsx").error_bytes == 0
    assert count(text, "TypeScript", "a.ts").error_bytes > 0


@pytest.mark.parametrize(
    ("text", "error_bytes"),
    [
        ("", 0),
        ("a = 1\n", 0),
        ("f(1, , 2)\n", 1),
        ("a = (1\nb = 2\n", 6),
        ("def f(:\n    pass\n", 1),  # a bracket is missing
        ("int a", 1),  # a semicolon is missing
        ("int f() { return 1; } @ int g() { return 2; }", 1),
    ],
)
def test_bytes_in_error(text: str, error_bytes: int) -> None:
    language = "C" if "int" in text else "Python"
    assert count(text, language).error_bytes == error_bytes


def test_depth_is_that_of_the_tree() -> None:
    assert count("", "Python").max_depth == 0
    flat, nested = count("f(1)\n" * 9, "Python"), count("f(" * 9 + "1" + ")" * 9, "Python")
    assert nested.max_depth - flat.max_depth == 2 * 8


def test_deep_trees_are_walked_without_recursion() -> None:
    text = "a = " + "not " * 20_000 + "b\n"
    assert count(text, "Python").max_depth > 20_000
    assert count("if (a) {} else " * 20_000, "C").max_depth > 20_000


@pytest.mark.parametrize("language", ALL)
@pytest.mark.parametrize("opening", ["(", "[", "{"])
def test_a_hundred_thousand_open_brackets_have_no_tree(language: str, opening: str) -> None:
    closing = {"(": ")", "[": "]", "{": "}"}[opening]
    for text in (opening * 100_000, opening * 100_000 + closing * 100_000):
        assert parsing.parse(text.encode(), language) is None


def test_brackets_at_the_limit_have_a_tree() -> None:
    inner, most = "f(1)\n" * 50, parsing.MAX_OPEN_BRACKETS
    assert parsing.parse(f"{'[' * most}1{']' * most}\n{inner}".encode(), "Python") is not None
    assert parsing.parse(f"{'[' * most}(1){']' * most}\n{inner}".encode(), "Python") is None


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("", 0),
        ("()[]{}", 1),
        ("([{", 3),
        (")))(((", 3),
        ("(]((", 3),
        (")(" * 9, 1),
        ("{()}{()}", 2),
    ],
)
def test_open_brackets_are_counted(text: str, most: int) -> None:
    assert parsing.max_open_brackets(text.encode()) == most


@pytest.mark.parametrize("language", ALL)
@pytest.mark.parametrize("piece", ["\0", '"', "'", "`", "a<", "/*", "<<A ", "é", "=begin\n", "#"])
def test_strange_texts_end(language: str, piece: str) -> None:
    """A tree or none, within the worker's bounds; some lexers are quadratic in these."""
    data = piece.encode() * 5_000
    tree = parsing.parse(data, language)
    assert tree is None or parsing.count(tree, language).error_bytes <= len(data)


def test_a_text_that_needs_gigabytes_has_no_counts_and_harms_no_other() -> None:
    good = b"a = 1\n"
    bomb = b"*\n^\n" * 10_000  # recovery at its end takes many gigabytes
    counted = parse_worker.count_trees([good, bomb, good], ["Python"] * 3, [""] * 3)
    assert counted[1] is None
    assert counted[0] == counted[2] == count(good.decode(), "Python")


def test_the_worker_counts_as_the_library_does() -> None:
    texts = [text.encode() for text, _ in CODE.values()]
    direct = [count(text, language) for language, (text, _) in CODE.items()]
    assert parse_worker.count_trees(texts, list(CODE), [""] * len(CODE)) == direct
    tsx = b"const a = <b/>;\n"
    (counts,) = parse_worker.count_trees([tsx], ["TypeScript"], ["é.tsx"])
    assert counts is not None and counts.error_bytes == 0


def test_a_killed_worker_is_replaced() -> None:
    child = parse_worker._HERE.child()
    os.kill(child._process.pid, signal.SIGKILL)
    child._process.wait()
    (counts,) = parse_worker.count_trees([b"a = 1\n"], ["Python"], [""])
    assert counts == count("a = 1\n", "Python")


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text("()[]{}<>\"'`/*#\\ \n\t\0aé0=_;:", max_size=120), st.sampled_from(ALL))
def test_any_text_has_counts(text: str, language: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    tree = parsing.parse(data, language)
    assert tree is not None
    counts = parsing.count(tree, language)
    assert counts == parsing.count(tree, language)
    assert min(vars(counts).values()) >= 0
