"""Completions by a base model: the head of a Python file it goes on from, and what of it is whole.

Both sides of a completion look at top-level statements, which only Python's own parser tells us
for certain; so base teachers write Python only. Pure functions; nothing here raises on any text.
"""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from snowcoder_jax.tokenizer import Tokenizer

# Languages whose completions can be cut and checked.
LANGUAGES = ("Python",)

# A shorter head says too little of what the file is about.
MIN_HEAD_TOKENS = 16

# No head of ordinary code has so many for each of its tokens: a longer one is not even counted.
MAX_CHARACTERS_PER_TOKEN = 32

# A failed parse names the line that broke it and the next try cuts before it, so few are needed.
MAX_PARSES = 32
# More than code of 8,192 tokens has (some 40,000); bounds the parser's memory and time.
MAX_CHARACTERS = 200_000

_BLANK_LINES = re.compile(r"(?:[ \t\f]*\n)*")
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
# A line at column 0 that starts a statement of its own: no comment, no closing bracket, no
# keyword that belongs to the statement before.
_STATEMENT_LINE = re.compile(
    r"(?:^|(?<=[\r\n]))(?![\s#)\]}])(?!(?:else|elif|except|finally)\b)", re.MULTILINE
)

CutReason = Literal["", "empty", "unparsable", "no_new_statement"]


def head_of(text: str, tokenizer: Tokenizer, max_tokens: int) -> tuple[str, str]:
    """The head of a Python file and "", or "" and the reason why there is none.

    It begins at the first statement (a licence in comments would fill it and say nothing) and is
    the longest run of whole top-level statements that fits and leaves at least one out. Where
    that is under `MIN_HEAD_TOKENS`, it begins after a module docstring too long to fit; failing
    that, it is the longest run of lines that fits, inside the first big statement. The blank
    lines that follow in the file belong to it, so that the model goes on where a new line begins:
    asked at the end of a line, a small model most often lengthens the last word.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    tree, _ = compile_python(text, only_parse=True)
    if tree is None:
        return "", "unparsable"
    if not tree.body:
        return "", "short"
    starts = line_starts(text)
    code = tree.body[1:] if ast.get_docstring(tree) is not None and tree.body[1:] else tree.body
    file_begin, code_begin = (starts[_first_line(body[0]) - 1] for body in (tree.body, code))
    for begin, ends in (
        (file_begin, _statement_ends(tree.body, starts)),
        (code_begin, _statement_ends(code, starts)),
        (code_begin, [end for end in starts if end > code_begin]),
    ):
        head = _longest_head(text, begin, ends, tokenizer, max_tokens)
        if len(tokenizer.encode(head)) >= MIN_HEAD_TOKENS and text[begin + len(head) :].strip():
            return head, ""
    return "", "short"


def _after_blank_lines(text: str, end: int) -> int:
    found = _BLANK_LINES.match(text, end)
    assert found is not None, "the pattern matches the empty text"
    return found.end()


def _statement_ends(body: Sequence[ast.stmt], starts: Sequence[int]) -> list[int]:
    """Character offsets after the last line of each top-level statement but the last one."""
    ends = []
    for statement, following in itertools.pairwise(body):
        # `a = 1; b = 2` has no line boundary between the two.
        if following.lineno > _last_line(statement):
            ends.append(starts[_last_line(statement)])
    return ends


def _longest_head(
    text: str, begin: int, ends: Sequence[int], tokenizer: Tokenizer, max_tokens: int
) -> str:
    """The longest text from `begin` to one of the ascending `ends`, and the blank lines after it,
    within `max_tokens`; or "".

    Only what is tested is cut out: all of them together are the square of the file.
    """
    low, high, longest = 0, len(ends), ""
    while low < high:
        middle = (low + high) // 2
        head = text[begin : _after_blank_lines(text, ends[middle])]
        is_short = len(head) <= max_tokens * MAX_CHARACTERS_PER_TOKEN
        if is_short and len(tokenizer.encode(head)) <= max_tokens:
            low, longest = middle + 1, head
        else:
            high = middle
    return longest


def cut_to_statements(head: str, continuation: str, *, ended: bool) -> tuple[str, CutReason]:
    """Cut a continuation of Python code back to its last whole top-level statement.

    Args:
      ended: whether the model ended the text itself. If not, a last statement counts as whole
        only where another one began after it.

    Returns:
      The kept part and "", or "" and the reason. `head` and the kept
      part together compile. A statement is new where its first line begins after the head;
      `pass` and an expression that is a mere name or constant are none.
    """
    if not continuation.strip():
        return "", "empty"
    text = head + continuation
    if len(text) > MAX_CHARACTERS:
        return "", "unparsable"
    cuts = [m.start() for m in _STATEMENT_LINE.finditer(text) if m.start() > len(head)]
    starts = line_starts(text)
    end, whole = len(text), ended
    for _ in range(MAX_PARSES):
        tree, fault_line = compile_python(text[:end])
        if tree is not None:
            return _keep_new(text[:end], tree, starts, head, whole)
        # No prefix that reaches past the line of the fault can parse: cut before it.
        limit = starts[min(fault_line, len(starts)) - 1] if fault_line else end
        index = min(bisect_right(cuts, limit), bisect_right(cuts, end - 1)) - 1
        if index < 0:
            break
        end, whole = cuts[index], True
        if not text[len(head) : end].strip():
            break
    return "", "unparsable"


def _keep_new(
    text: str, tree: ast.Module, starts: list[int], head: str, last_is_whole: bool
) -> tuple[str, CutReason]:
    body = tree.body
    if not last_is_whole and body:
        dropped_line = _first_line(body[-1])
        body = [s for s in body[:-1] if _last_line(s) < dropped_line]
    if not any(starts[_first_line(s) - 1] >= len(head) and not _is_idle(s) for s in body):
        return "", "no_new_statement"
    end_line = _last_line(body[-1])
    end = starts[end_line] if end_line < len(starts) else len(text)
    return text[len(head) : end].rstrip() + "\n", ""


def _first_line(statement: ast.stmt) -> int:
    """The line a statement begins at, its decorators included; the first line is 1."""
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(d.lineno for d in decorators)])


def _last_line(statement: ast.stmt) -> int:
    assert statement.end_lineno is not None, "trees from source have it"
    return statement.end_lineno


def _is_idle(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, (ast.Constant, ast.Name))
    return isinstance(statement, ast.Pass)


def line_starts(text: str) -> list[int]:
    """Offsets at which the lines of `text` begin, as Python's parser counts lines."""
    return [0, *(m.end() for m in _LINE_BREAK.finditer(text))]


def compile_python(text: str, only_parse: bool = False) -> tuple[ast.Module | None, int]:
    """The tree and 0, or None and the line of the fault (0 where there is none to name).

    Compiled to the end, since `return` outside a function parses but does not compile. By the
    grammar of the running Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
            if not only_parse:
                compile(tree, "<generated>", "exec", dont_inherit=True)
    except SyntaxError as e:
        return None, e.lineno or 0
    except (ValueError, RecursionError, MemoryError, OverflowError, SystemError):
        # Null bytes, lone surrogates, huge number literals; nesting beyond the parser's stack.
        return None, 0
    return tree, 0
