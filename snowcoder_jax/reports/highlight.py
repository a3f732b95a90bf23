"""Code with its syntax marked by classes; their colours, light and dark, are in page.css."""

from __future__ import annotations

from pygments import highlight as pygments_highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

from snowcoder_jax.reports.markup import Html, clean, escape, join, tag

# A page shows the beginning of a file; a line of a megabyte would cost a minute in the lexer.
MAX_LINES = 60
MAX_CHARACTERS = 6_000
MAX_LINE_CHARACTERS = 400

_LEXER_NAMES = {
    "C++": "cpp",
    "C#": "csharp",
    "Jupyter Notebook": "python",
    "Shell": "bash",
}


def _lexer(language: str | None) -> Lexer:
    options = {"stripnl": False, "ensurenl": False, "startinline": True}
    name = _LEXER_NAMES.get(language or "", (language or "text").lower())
    try:
        return get_lexer_by_name(name, **options)
    except ClassNotFound:
        return get_lexer_by_name("text", **options)


def shorten(code: str) -> str:
    """The beginning of a file, as much of it as a page shows; `…` where something is cut."""
    lines = code[: 2 * MAX_CHARACTERS].split("\n")
    cut = len(code) > 2 * MAX_CHARACTERS or len(lines) > MAX_LINES
    lines = [
        line if len(line) <= MAX_LINE_CHARACTERS else line[:MAX_LINE_CHARACTERS] + " …"
        for line in lines[:MAX_LINES]
    ]
    text = "\n".join(lines)
    if len(text) > MAX_CHARACTERS:
        text, cut = text[:MAX_CHARACTERS], True
    return text.rstrip() + ("\n…" if cut else "")


def code_block(
    code: object, language: str | None = None, class_: str = "", marks: str = ""
) -> Html:
    """A `<pre>` of code, shortened, made safe, its syntax marked; None says so.

    Args:
      code: the text.
      language: picks the lexer.
      class_: further classes of the block.
      marks: two characters that stand in `code` for the beginning and the end of what is to be
        marked, and for nothing else; empty where nothing is.
    """
    if code is None:
        return tag("p", "not recorded", class_="none")
    text = shorten(clean(str(code)))
    if not text.strip(marks + " \t\n"):
        return tag("p", "(empty)", class_="none")
    if marks:
        marked = _marked(text, _lexer(language), marks)
    else:
        formatter: HtmlFormatter[str] = HtmlFormatter(nowrap=True)
        marked = Html(pygments_highlight(text, _lexer(language), formatter))
    return tag("pre", tag("code", marked), class_=f"code {class_}".strip(), tabindex="0")


def _marked(text: str, lexer: Lexer, marks: str) -> Html:
    """Syntax and marks together: a mark inside a token parts it, so that elements nest."""
    edges = {"": False, marks[0]: True, marks[1]: False}
    pieces = [("", text)]
    for mark in marks:
        pieces = [
            (opening if i == 0 else mark, part)
            for opening, piece in pieces
            for i, part in enumerate(piece.split(mark))
        ]
    plain = "".join(part for _, part in pieces)
    # (position in `plain`, whether what follows is marked)
    changes = []
    position = 0
    for opening, part in pieces:
        changes.append((position, edges[opening]))
        position += len(part)
    result: list[object] = []
    position, is_marked = 0, False
    for kind, value in lexer.get_tokens(plain):
        start, end = position, position + len(value)
        while position < end:
            while changes and changes[0][0] <= position:
                is_marked = changes.pop(0)[1]
            until = min(end, changes[0][0]) if changes else end
            part = escape(value[position - start : until - start])
            class_ = STANDARD_TYPES.get(kind, "")
            span = tag("span", part, class_=class_) if class_ else part
            result.append(tag("mark", span) if is_marked else span)
            position = until
    return join(result)
