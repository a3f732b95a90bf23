"""Python programs under other names, as somebody who hides where they are from would write them."""

from __future__ import annotations

import ast

_WORDS = ("quill", "heron", "basalt", "ferry", "tarn", "wicket", "lantern", "plover", "gorse")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def rename(source: str, *, keep_functions: bool = False) -> str:
    """The program with every name that it binds renamed, but for imports, laid out anew.

    Comments and docstrings go, and with `keep_functions` functions and classes keep their names.

    Raises:
      SyntaxError: it is no Python.
    """
    tree = ast.parse(source)
    found: dict[str, None] = {}  # in order
    kept: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found[node.id] = None
        elif isinstance(node, ast.arg):
            found[node.arg] = None
        elif isinstance(node, _Definition):
            found[node.name] = None
            kept |= {node.name} if keep_functions else set()
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found[node.name] = None
        elif isinstance(node, ast.alias):
            kept.add((node.asname or node.name).split(".")[0])
    names = [name for name in found if name not in kept and not name.startswith("__")]
    renamed = {name: f"{_WORDS[i % len(_WORDS)]}_{i}" for i, name in enumerate(names)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = renamed.get(node.id, node.id)
        elif isinstance(node, ast.arg):
            node.arg = renamed.get(node.arg, node.arg)
        elif isinstance(node, _Definition):
            node.name = renamed.get(node.name, node.name)
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.ExceptHandler) and node.name:
            node.name = renamed.get(node.name, node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            node.names = [renamed.get(name, name) for name in node.names]
    return ast.unparse(tree)
