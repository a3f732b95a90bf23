"""Parsing of untrusted code: Python's own parser, behind functions that never raise."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

_LINE_BREAK = re.compile(rb"\r\n|\r|\n")

# Beyond it the parser's memory is not worth the answer.
MAX_PARSED_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Statement:
    """A top-level statement: half-open, in UTF-8 bytes of the text, decorators included.

    Attributes:
      kind: the class of the `ast` node, such as "FunctionDef".
      name: of a function or class, else "".
    """

    start: int
    end: int
    kind: str
    name: str


def parses(text: str, language: str) -> bool | None:
    """Whether a text is syntactically whole; None where that cannot be told.

    Only Python is parsed. Code too deep or too large for the parser cannot be told.
    """
    if language != "Python":
        return None
    found = _parse(text)
    return None if found is None else isinstance(found, ast.Module)


def top_level_statements(text: str) -> list[Statement]:
    """The top-level statements of Python code in order; none where it does not parse."""
    module = _parse(text)
    if not isinstance(module, ast.Module):
        return []
    data = text.encode("utf-8")
    # Line n (from 1) starts at line_start[n - 1]; a form feed ends no line, as for the parser.
    line_start = [0, *(m.end() for m in _LINE_BREAK.finditer(data))]
    statements = []
    for node in module.body:
        start = line_start[node.lineno - 1] + node.col_offset
        decorators = getattr(node, "decorator_list", [])
        if decorators:
            start = line_start[min(d.lineno for d in decorators) - 1]
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        end = line_start[node.end_lineno - 1] + node.end_col_offset
        statements.append(Statement(start, end, type(node).__name__, getattr(node, "name", "")))
    return statements


def _parse(text: str) -> ast.Module | bool | None:
    """The module; False where it is no Python; None where the parser gives up."""
    if len(text) > MAX_PARSED_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of code that is not ours
            return ast.parse(text)
    except (SyntaxError, ValueError):  # ValueError: NUL bytes, lone surrogates
        return False
    except (RecursionError, MemoryError):
        return None
