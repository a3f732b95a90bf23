"""Syntax trees of the 18 languages and what rules want to know of them, by tree-sitter.

The trees are error-tolerant: code that does not parse has a tree with error nodes. One walk over a
tree counts everything. Work is bounded in steps of the parser, not in seconds, so that a verdict
does not depend on the machine; what goes past the bound has no tree.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import tree_sitter

from snowcoder_jax.text import grammars
from snowcoder_jax.text.grammars import Grammar

# Bounds on the work for one text. Lexers of some grammars read far on (that of Shell is quadratic
# in NULs), so the text is handed over in pieces and the pieces are counted. Real code needs a
# third of either bound at most.
_PIECE_BYTES = 4096
_FREE_PIECES, _BYTES_PER_PIECE = 200, 20
_FREE_STEPS, _BYTES_PER_STEP = 200, 20  # a step is a hundred operations of the parser
# Recovery from an error inside very many open brackets takes time and memory that grow with the
# square of their number. Of 4,300 files of installed packages one has more than 39.
MAX_OPEN_BRACKETS = 250

_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"()[]{}")))

# Names, numbers, strings and the like: what a "simple" return or initialiser consists of.
_PLAIN = re.compile(r"string|literal$|^(?:encapsed|heredoc|nowdoc|template)")


@dataclass
class Counts:
    """What the tree of a text holds.

    Attributes:
      error_bytes: bytes inside error nodes; a missing token counts one.
      max_depth: nodes above the deepest one; the root is at 0.
      num_functions, num_classes, num_imports, num_variables: as `grammars.Grammar` has them.
      num_simple_functions: functions that only return.
      num_simple_returns: returns of nothing, a name or a literal.
      num_simple_variables: `grammars.Grammar.bare`; for Python assignments in class bodies.
    """

    error_bytes: int = 0
    max_depth: int = 0
    num_functions: int = 0
    num_classes: int = 0
    num_imports: int = 0
    num_variables: int = 0
    num_simple_functions: int = 0
    num_simple_returns: int = 0
    num_simple_variables: int = 0


def parse(data: bytes, language: str, path: str = "") -> tree_sitter.Tree | None:
    """The tree of a text, or None where that would take too many steps.

    Args:
      data: UTF-8. language: one of the 18. path: `.tsx` files have a grammar of their own.
    """
    if max_open_brackets(data) > MAX_OPEN_BRACKETS:
        return None
    pieces_left = _FREE_PIECES + len(data) // _BYTES_PER_PIECE
    steps_left = _FREE_STEPS + len(data) // _BYTES_PER_STEP

    def read(start: int, _: object) -> bytes:
        nonlocal pieces_left
        pieces_left -= 1
        return data[start : start + _PIECE_BYTES] if pieces_left >= 0 else b""

    def is_over(_: int, __: bool) -> bool:
        nonlocal steps_left
        steps_left -= 1
        return steps_left < 0 or pieces_left < 0

    # A parser for each text: cheap, and nothing of one text can reach the next.
    parser = tree_sitter.Parser(_compiled(_grammar(language, path)).language)
    try:
        tree = parser.parse(read, progress_callback=is_over)
    except ValueError:  # stopped by `is_over`
        return None
    return tree if pieces_left >= 0 else None


def max_open_brackets(data: bytes) -> int:
    """The most brackets open at one place, those in comments and strings counted too.

    A closing bracket without its opening one counts for nothing.
    """
    bracket_P = np.frombuffer(data.translate(None, _NO_BRACKETS), np.uint8)
    open_P = np.zeros(len(bracket_P), np.int64)
    for opening, closing in zip(b"([{", b")]}", strict=True):
        step_P = (bracket_P == opening).astype(np.int64) - (bracket_P == closing)
        level_P = np.cumsum(step_P)
        open_P += level_P - np.minimum(np.minimum.accumulate(level_P), 0)
    return int(open_P.max(initial=0))


def count(tree: tree_sitter.Tree, language: str, path: str = "") -> Counts:
    """Count the nodes of a tree in one walk, whatever its depth."""
    actions = _compiled(_grammar(language, path)).actions
    counts = Counts()
    cursor = tree.walk()
    to_child, to_sibling, to_parent = (
        cursor.goto_first_child,
        cursor.goto_next_sibling,
        cursor.goto_parent,
    )
    depth = max_depth = 0
    while depth >= 0:
        node = cursor.node
        action = actions.get(node.kind_id)  # type: ignore[union-attr]
        if action is not None:
            action(counts, node)  # type: ignore[arg-type]
        if to_child():
            depth += 1
            if depth > max_depth:
                max_depth = depth
            continue
        while not to_sibling():
            depth -= 1
            if not to_parent():
                break
    counts.max_depth = max_depth
    if tree.root_node.has_error:
        counts.error_bytes = _error_bytes(tree)
    return counts


def _error_bytes(tree: tree_sitter.Tree) -> int:
    """Bytes inside error nodes, one in another counted once; only faulty parts are walked."""
    cursor = tree.walk()
    total = 0
    while True:
        node = cursor.node
        assert node is not None
        if node.is_error:
            total += max(1, node.end_byte - node.start_byte)
        elif node.is_missing:
            total += 1
        elif node.has_error and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return total


Action = Callable[[Counts, tree_sitter.Node], None]


@dataclass(frozen=True)
class _Compiled:
    language: tree_sitter.Language
    actions: dict[int, Action]  # by kind id


def _grammar(language: str, path: str) -> Grammar:
    is_tsx = language == "TypeScript" and path.endswith(".tsx")
    return grammars.TSX if is_tsx else grammars.GRAMMARS[language]


@cache
def _compiled(grammar: Grammar) -> _Compiled:
    module = importlib.import_module(grammar.package)
    language = tree_sitter.Language(getattr(module, grammar.entry)())
    by_kind: dict[str, Action] = {}
    by_kind |= dict.fromkeys(grammar.functions.split(), _on_function)
    by_kind |= dict.fromkeys(grammar.classes.split(), _on_class)
    by_kind |= dict.fromkeys(grammar.imports.split(), _on_import)
    by_kind |= dict.fromkeys(grammar.returns.split(), _on_return)
    by_kind |= dict.fromkeys(grammar.variables.split(), _on_variable)
    by_kind |= dict.fromkeys(grammar.bare.split(), _on_bare_variable)
    if grammar in (grammars.C, grammars.CPP):
        by_kind |= dict.fromkeys(grammar.bare.split(), _on_c_declaration)
    if grammar is grammars.PYTHON:
        by_kind["class_definition"] = _on_python_class
    actions: dict[int, Action] = {}
    for kind_id in range(language.node_kind_count):
        kind = language.node_kind_for_id(kind_id)
        if kind in by_kind and language.node_kind_is_named(kind_id):
            actions[kind_id] = by_kind[kind]
    found = {language.node_kind_for_id(kind_id) for kind_id in actions}
    assert found == set(by_kind), (grammar.package, set(by_kind) - found)
    return _Compiled(language, actions)


def _on_function(counts: Counts, node: tree_sitter.Node) -> None:
    counts.num_functions += 1
    body = node.child_by_field_name("body")
    if body is not None and body.named_child_count == 1:
        counts.num_simple_functions += body.named_child(0).type.startswith("return")


def _on_class(counts: Counts, node: tree_sitter.Node) -> None:
    counts.num_classes += 1


def _on_python_class(counts: Counts, node: tree_sitter.Node) -> None:
    counts.num_classes += 1
    body = node.child_by_field_name("body")
    for statement in body.named_children if body is not None else ():
        if statement.type == "expression_statement" and statement.named_child_count == 1:
            counts.num_simple_variables += statement.named_child(0).type == "assignment"


def _on_import(counts: Counts, node: tree_sitter.Node) -> None:
    counts.num_imports += 1


def _on_return(counts: Counts, node: tree_sitter.Node) -> None:
    counts.num_simple_returns += _is_plain(node)


def _on_variable(counts: Counts, node: tree_sitter.Node) -> None:
    counts.num_variables += node.named_child_count > 0


def _on_bare_variable(counts: Counts, node: tree_sitter.Node) -> None:
    last = node.named_child(node.named_child_count - 1) if node.named_child_count else node
    if "function" in last.type:  # `const f = function () {...}` and `= () => ...`
        counts.num_functions += 1
        return
    counts.num_variables += 1
    counts.num_simple_variables += _is_plain(last)


def _on_c_declaration(counts: Counts, node: tree_sitter.Node) -> None:
    inner = node.child_by_field_name("declarator")
    while inner is not None and inner.type in ("pointer_declarator", "reference_declarator"):
        inner = inner.named_child(inner.named_child_count - 1) if inner.named_child_count else None
    if inner is not None and inner.type == "function_declarator":
        counts.num_functions += 1
        return
    counts.num_variables += 1
    declarators = node.children_by_field_name("declarator")
    counts.num_simple_variables += all(d.type != "init_declarator" for d in declarators)


def _is_plain(node: tree_sitter.Node) -> bool:
    """Whether a node is one name or literal, or wraps one."""
    while node.named_child_count == 1 and not _PLAIN.search(node.type):
        node = node.named_child(0)
    return node.named_child_count == 0 or _PLAIN.search(node.type) is not None
