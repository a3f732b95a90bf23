"""Functions that differ from a benchmark's in their names alone are found; short ones are not."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text import functions
from snowcoder_jax.text.benchmarks import Reference
from snowcoder_jax.text.contamination import ContaminationIndex, Match

ORIGINAL = '''
import math

def count_lamps(street, list):
    """ How many lamps of a street burn longer than any in the list. """
    total = 0
    longest = max(list, default=0.5)
    for number, lamp in enumerate(street.lamps):
        if lamp.hours > longest and number % 2 == 1:
            total += math.ceil(lamp.hours)  # rounded
    return [total, 'hours']
'''
INDEX = ContaminationIndex([Reference("b", "7", ORIGINAL, "program")], 10)
# Every name another, `list` no longer a builtin's, other comments, layout and docstring.
RENAMED = '''
def q(quay, moored):
    # here
    """ Of boats. """
    found = 0
    # longer
    top = max(
        moored,
        default=0.5,
    )
    for i, boat in enumerate(quay.lamps):  # each
        if (boat.hours > top) and i % 2 == 1:

            found += m.ceil(boat.hours)
    return [found, "hours"]
'''


def find(text: str) -> Match | None:
    match = INDEX.find(text, "Python")
    assert match is None or match.method == "function", match
    return match


def test_renamed_copy_is_found_in_python_alone() -> None:
    match = find(RENAMED)
    assert match is not None
    assert (match.benchmark, match.item, match.text) == ("b", "7", RENAMED.strip())
    assert INDEX.find(RENAMED, "C++") is None
    assert INDEX.find(RENAMED) is None


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n" + textwrap.indent(RENAMED.replace("q(quay", "q(self, quay"), "\t"),
        RENAMED.replace("def q(quay, moored)", "async def q(\n    quay, *, moored=None\n)")
        .replace("async ", "")
        .replace("moored=None", "moored: list[int] = ()"),
        RENAMED.replace("found = 0", "found: int = 0"),
        RENAMED.replace("\n", "\r\n"),
        "def outer():\n" + textwrap.indent(RENAMED, "    ") + "\n    return q\n",
        "print 'Python 2'\n" + RENAMED + "\nexec 'code' in {}\n",
        RENAMED.rstrip() + "\n# the end\nx = 1\n",
        RENAMED.rstrip(),
        'TEXT = """\n' + "def f():\n" * 3 + '"""\n' + RENAMED,
        RENAMED.replace("max(", "max ("),
        RENAMED.replace("top", "range").replace("found", "str"),
        "é = 'ü'\n" * 30 + RENAMED.replace("boat", "été"),
    ],
)
def test_layout_and_place_do_not_hide_it(text: str) -> None:
    match = find(text)
    assert match is not None
    assert match.text in text
    assert match.text.startswith("def q(")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("found = 0", "found = 1"),
        ("lamps", "boats"),
        ("enumerate(quay", "sorted(quay"),
        ("found += ", "found -= "),
        ('"hours"', '"days"'),
        ("boat.hours > top", "top > boat.hours"),
        ("return [found", "return [top"),
        ("            found +=", "            i +="),
        ("default=0.5", "key=0.5"),
    ],
)
def test_another_function_is_none(old: str, new: str) -> None:
    assert old in RENAMED
    assert find(RENAMED.replace(old, new)) is None


def test_what_is_in_a_string_or_comment_is_no_function() -> None:
    assert find("'''" + RENAMED.replace('"""', "") + "'''\n") is None
    assert find("".join(f"# {line}\n" for line in RENAMED.split("\n"))) is None


def is_found(text: str, copy: str) -> bool:
    match = ContaminationIndex([Reference("b", "i", text, "solution")], 10).find(copy, "Python")
    assert match is None or match.method == "function", match
    return match is not None


def num_nodes(text: str) -> int:
    form = functions.normal_form(ast.parse(text).body[0])  # type: ignore[arg-type]
    assert form is not None
    return form.num_nodes


def test_bodies_below_ten_nodes_are_idioms() -> None:
    for element, size in (("row[part]", 9), ("row + 1", 10)):
        text = f"def f(rows, part):\n    return [{element} for row in rows]\n"
        assert num_nodes(text) == size
        copy = text.replace("row", "gate").replace("part", "key")
        assert is_found(text, copy) == (size >= functions.MIN_NODES), text


@pytest.mark.parametrize(
    "text",
    [
        "def gcd(a, b):\n    while b != 0:\n        a, b = b, a % b\n    return a\n",
        "def __init__(self, a, b):\n    self.a = a\n    self.b = b\n",
        "def f(x):\n    y = []\n    for z in x:\n        if z not in y:\n            y.append(z)\n"
        "    return y\n",
    ],
)
def test_what_many_projects_hold_is_an_idiom(text: str) -> None:
    assert not is_found(text, text.replace("b", "b_1").replace("x", "x_1"))
    assert num_nodes(text) >= functions.MIN_NODES


SHORT = "def keep(rows, sign):\n    return [row for row in rows if row.startswith(sign)]\n"
SHORT_COPY = "def q(a, b):\n    return [c for c in a if c.startswith(b)]\n"


@pytest.mark.parametrize(
    "text",
    [
        SHORT_COPY,
        SHORT_COPY.rstrip(),
        "class A:\n" + textwrap.indent(SHORT_COPY, "\t") + "\n\tx = 1\n",
        SHORT_COPY + "\nx = 1\n",
        SHORT_COPY + "@x\ndef f():\n    return [c for c in a if c.startswith(b)] + 1\n",
        SHORT_COPY.replace("    return", '    """Of boats."""\n\n    # here\n    return'),
        SHORT_COPY.replace("    return", '    """Of\n    boats.\n    """\n    return'),
        SHORT_COPY.replace("(a, b):\n", "(\n    a, b\n) -> int:  # note\n"),
        SHORT_COPY.replace(":\n    return", ": return"),
        "async " + SHORT_COPY.replace(":\n    return", ": return"),
        SHORT_COPY.replace("return [c for", "return [\n    c\n    for").replace("\n", "\r\n"),
        "x = 1\nif x:\n    " + SHORT_COPY.replace("\n    ", "\n        "),
    ],
)
def test_a_short_body_is_found_whole(text: str) -> None:
    assert is_found(SHORT, text)


@pytest.mark.parametrize(
    "text",
    [
        SHORT_COPY.replace("    return", "    a = b\n    return"),
        SHORT_COPY.replace("return", "yield"),
        SHORT_COPY.rstrip() + "[0]\n",
        SHORT_COPY + "    # so\n    print(a)\n",
        SHORT_COPY.replace("startswith", "endswith"),
        SHORT_COPY.replace("for c in a if c", "for c in b if c"),
        SHORT_COPY.replace("def q(a, b)", "if a"),
    ],
)
def test_a_part_of_another_function_is_no_short_body(text: str) -> None:
    assert not is_found(SHORT, text)


def test_a_function_that_ends_inside_a_string_is_cut_at_the_right_end() -> None:
    inside = RENAMED.replace('""" Of boats. """', '"""\nOf boats.\nAnd cars.\n"""')
    match = find(inside + "\nx = 1\n")
    assert match is not None
    assert match.text == inside.strip()


def test_deep_nesting_and_long_numbers_are_no_match() -> None:
    deep = RENAMED.replace("found = 0", "found = " + "(" * 150 + "0" + ")" * 150)
    long = RENAMED.replace("found = 0", "found = 0x" + "f" * 9_000)
    chain = RENAMED.replace("found = 0", "found = 0" + " + 1" * 3_000)
    find(deep)
    assert find(long) is None
    assert find(chain) is None


def test_a_copy_in_front_of_a_chain_of_elifs_is_found() -> None:
    # Each `elif` lies one level below the one before in the tree.
    chain = "def route(x):\n    if x == 0:\n        return 0\n"
    chain += "".join(f"    elif x == {i}:\n        return {i}\n" for i in range(1_500))
    match = find(RENAMED + chain)
    assert match is not None
    assert match.text == RENAMED.strip()
    find(chain + RENAMED)


NAMES = st.lists(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(
        lambda name: (
            name not in {"", "max", "enumerate"} and name.isidentifier() and not _is_keyword(name)
        )
    ),
    min_size=8,
    max_size=8,
    unique=True,
)


def _is_keyword(name: str) -> bool:
    try:
        ast.parse(f"{name} = 1")
    except SyntaxError:
        return True
    return False


@given(NAMES)
def test_no_renaming_hides_it(names: list[str]) -> None:
    old = ("q", "quay", "moored", "found", "top", "i", "boat", "m")
    renaming = dict(zip(old, names, strict=True))

    class Rename(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.Name:
            node.id = renaming.get(node.id, node.id)
            return node

        def visit_arg(self, node: ast.arg) -> ast.arg:
            node.arg = renaming[node.arg]
            return node

    text = ast.unparse(Rename().visit(ast.parse(RENAMED)))
    assert find(text) is not None


@given(st.text(alphabet="def f(x):\n\t #'\"\\[]{}=1.é", max_size=200))
def test_no_python_raises(text: str) -> None:
    INDEX.find(text + RENAMED + text, "Python")
    ContaminationIndex([Reference("b", "i", "def f(): " + text, "solution")], 10)
