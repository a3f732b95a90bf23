"""Python functions that are the same but for the names in them, layout, comments and docstrings.

A function is compared by the normal form of its body's syntax tree: names become numbers in the
order they first occur, but for builtins that the function does not bind itself; literals,
attributes and keyword arguments stay. Neither its own name nor its signature counts, so a
function made a method, or given annotations or defaults, is still the same.

Only the functions around an anchor are parsed (`text.function_anchors`).
"""

from __future__ import annotations

import ast
import bisect
import functools
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from snowcoder_jax.text import words
from snowcoder_jax.text.function_anchors import BUILTINS, AnchorIndex, blind_words
from snowcoder_jax.text.words import Hashes, Words

# Shorter bodies are idioms. So are longer ones that several installed projects hold, each of its
# own: of 22,080 installed files 32 have a function of this size that a reference has, 12 without
# these. Where 20 nodes and 2 statements are asked for 2 have, but of MBPP only 0.57 are found.
MIN_NODES = 10
_IDIOMS = """
def product(values):
    result = 1
    for value in values:
        result *= value
    return result

def unique(values):
    result = []
    for value in values:
        if value not in result:
            result.append(value)
    return result

def gcd(first, second):
    while second != 0:
        first, second = second, first % second
    return first

def rotate(values, places):
    return values[-places:] + values[:-places]

def is_power_of_two(number):
    return number > 0 and (number & (number - 1)) == 0

def merged(first, second):
    result = first.copy()
    result.update(second)
    return result

def __init__(self, a, b):
    self.a = a
    self.b = b
"""

# A line inside a string may look like the end of its function; then the next one is tried.
_MAX_ENDS = 4

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_DEF = re.compile(rb"def[ \t]")
_BEFORE_DEF = re.compile(rb"([ \t]*)(?:async[ \t]+)?")


class FunctionIndex:
    """The function bodies of reference programs."""

    def __init__(self, programs: Iterable[tuple[int, str]]) -> None:
        """Takes (number, Python source) pairs; sources that do not parse count for nothing."""
        self._owners: dict[str, int] = {}
        bodies: list[Hashes] = []
        for number, source in programs:
            tree = parse(source)
            for function in _functions(tree.body) if tree is not None else ():
                form = normal_form(function)
                if form is not None and form.tells and form.text not in self._owners:
                    self._owners[form.text] = number
                    bodies.append(_body_words(source, function))
        self._anchors = AnchorIndex(bodies)

    def __len__(self) -> int:
        return len(self._owners)

    def find(self, raw: bytes, data: bytes, found: Words) -> tuple[int, int, int] | None:
        """The first function of a Python text that is a reference's.

        Args:
          raw: the text in UTF-8. data: the same in lower case. found: the words of `data`.

        Returns:
          The reference's number and the function's byte span; or None.
        """
        hits = self.anchored(data, found)
        for start, block, tree in _parsed_around(raw, hits) if hits else ():
            for function in _functions(tree.body):
                form = normal_form(function)
                if form is not None and form.text in self._owners:
                    first, end = _span(block, function)
                    return self._owners[form.text], start + first, start + end
        return None

    def anchored(self, data: bytes, found: Words) -> list[int]:
        """Where in a text stand windows that a reference's function has too, in order."""
        return self._anchors.positions(data, found)


def parse(source: str) -> ast.Module | None:
    """The syntax tree, or None where Python cannot parse it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError, SystemError):
        # Also NULs, lone surrogates, nesting beyond the parser's stack.
        return None


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(body: Sequence[ast.AST]) -> Iterator[Function]:
    """All functions below statements, in order, without a look at expressions."""
    # No recursion: each `elif` lies one level deeper than the one before.
    levels = [iter(body)]
    while levels:
        statement = next(levels[-1], None)
        if statement is None:
            levels.pop()
            continue
        if isinstance(statement, Function):
            yield statement
        fields = ("body", "orelse", "handlers", "finalbody", "cases")
        levels.append(itertools.chain(*(getattr(statement, field, ()) for field in fields)))


@dataclass(frozen=True)
class NormalForm:
    """A function's body without its names.

    Attributes:
      num_nodes: names, literals and syntax nodes.
    """

    text: str
    num_nodes: int

    @property
    def tells(self) -> bool:
        return self.num_nodes >= MIN_NODES and self.text not in _idioms()


def normal_form(function: Function) -> NormalForm | None:
    """None where an expression is nested too deeply, or a number is too long to be printed."""
    writer = _Writer()
    try:
        writer.bind_arguments(function.args)
        for statement in function.body:
            writer.write(statement)
    except (RecursionError, ValueError):
        return None
    numbers: dict[str, int] = {}
    for position in writer.names:
        name = writer.out[position]
        if name not in BUILTINS or name in writer.bound:
            writer.out[position] = f"${numbers.setdefault(name, len(numbers))}"
    return NormalForm(" ".join(writer.out), writer.num_nodes)


@functools.cache
def _idioms() -> frozenset[str]:
    forms = map(normal_form, _functions(ast.parse(_IDIOMS).body))
    return frozenset(form.text for form in forms if form is not None)


# Fields that hold a name which the function binds; other strings are names of somebody else's.
_NAME_FIELDS = {"name", "asname", "rest", "names"}
_LEFT_OUT = {"ctx", "returns", "annotation", "type_comment", "type_params", "kind", "simple"}


class _Writer:
    """Writes syntax nodes in order; `names` are positions in `out`, `bound` names it binds."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.names: list[int] = []
        self.bound: set[str] = set()
        self.num_nodes = 0

    def bind_arguments(self, arguments: ast.arguments) -> None:
        named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        starred = (arguments.vararg, arguments.kwarg)
        self.bound.update(a.arg for a in (*named, *starred) if a is not None)

    def write(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            self._write_name(node.id, is_bound=not isinstance(node.ctx, ast.Load))
            return
        if isinstance(node, ast.Constant):
            self._node(repr(node.value))
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring, or a string used as a comment
        if isinstance(node, ast.AnnAssign):
            if node.value is None:
                return
            node = ast.copy_location(ast.Assign([node.target], node.value), node)
        self._node(type(node).__name__)
        for field in node._fields:
            value = getattr(node, field, None)
            if field not in _LEFT_OUT and value is not None:
                self._write_field(node, field, value)

    def _write_field(self, node: ast.AST, field: str, value: object) -> None:
        if isinstance(value, list):
            self.out.append("[")
            for element in value:
                self._write_field(node, field, element)
            self.out.append("]")
        elif isinstance(value, ast.AST):
            self.write(value)
        elif isinstance(node, ast.arg) or (isinstance(value, str) and field in _NAME_FIELDS):
            if isinstance(node, ast.alias) and field == "name":
                self._node(str(value))
                if node.asname is None:
                    self.bound.add(node.name.split(".")[0])
            else:
                self._write_name(str(value), is_bound=True)
        else:
            self._node(str(value))

    def _write_name(self, name: str, is_bound: bool) -> None:
        self.names.append(len(self.out))
        self._node(name)
        if is_bound:
            self.bound.add(name)

    def _node(self, text: str) -> None:
        self.out.append(text)
        self.num_nodes += 1


def _body_words(source: str, function: Function) -> Hashes:
    """The blind words of a function's body, without its docstring."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    lines = _LINE_BREAK.split(source)[body[0].lineno - 1 : function.end_lineno] if body else []
    data = "\n".join(lines).encode("utf-8", "surrogatepass").lower()
    return blind_words(data, words.split_words(data))[0]


def _defs(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where lines start that hold a `def`, and by how many bytes they are indented."""
    start = searched = 0  # no byte is looked at twice, however long a line is
    for found in _DEF.finditer(raw):
        start = max(start, raw.rfind(b"\n", searched, found.start()) + 1)
        searched = found.start()
        before = _BEFORE_DEF.fullmatch(raw, start, found.start())
        if before is not None:
            yield start, len(before.group(1))


def _parsed_around(raw: bytes, positions: Sequence[int]) -> Iterator[tuple[int, bytes, ast.Module]]:
    """Start, text and tree of the outermost functions around positions that can be parsed."""
    defs = list(_defs(raw))
    starts = [start for start, _ in defs]
    outer: list[int] = []  # of each def, the nearest before it that is indented less; or -1
    open_defs: list[int] = []
    for number, (_, indent) in enumerate(defs):
        while open_defs and defs[open_defs[-1]][1] >= indent:
            open_defs.pop()
        outer.append(open_defs[-1] if open_defs else -1)
        open_defs.append(number)
    tried: set[int] = set()
    done = 0
    for position in positions:
        number = bisect.bisect_right(starts, position) - 1
        if position < done:
            continue
        chain = []
        while number >= 0:
            chain.append(number)
            number = outer[number]
        for candidate in reversed(chain):
            if candidate in tried:
                continue
            tried.add(candidate)
            start, indent = defs[candidate]
            parsed = _parse_block(raw, start, indent)
            if parsed is not None and start + len(parsed[0]) > position:
                done = start + len(parsed[0])
                yield start, *parsed
                break


@functools.lru_cache(maxsize=256)
def _end_of_block(indent: int) -> re.Pattern[bytes]:
    """A line that is indented no more, and neither empty, nor a comment, nor a closing bracket."""
    return re.compile(rb"^[ \t]{0,%d}[^\s#)\]}]" % indent, re.MULTILINE)


def _parse_block(raw: bytes, start: int, indent: int) -> tuple[bytes, ast.Module] | None:
    """The function at `start`, whose `def` is indented by `indent` bytes, and its tree."""
    opening = "if 1:\n" if indent else "\n"
    search_from = start + indent + 1
    for _ in range(_MAX_ENDS):
        found = _end_of_block(indent).search(raw, search_from)
        block = raw[start : found.start() if found else len(raw)]
        tree = parse(opening + block.decode("utf-8", "replace"))
        if tree is not None:
            return block, tree
        if found is None:
            return None
        search_from = found.end()
    return None


def _span(block: bytes, function: Function) -> tuple[int, int]:
    """Where a function of a parsed block, one line further down in its tree, starts and ends."""
    assert function.end_lineno is not None and function.end_col_offset is not None
    starts = [0, *(m.end() for m in re.finditer(rb"\r\n|\r|\n", block))]
    first = starts[function.lineno - 2] + function.col_offset
    return first, starts[function.end_lineno - 2] + function.end_col_offset
