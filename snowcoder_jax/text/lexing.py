"""Comments and strings of code in the 18 languages, by one regular expression each.

No parse: what a scan from the left finds, a marker inside a string or a comment being none. It
errs where only a grammar can tell (nested comments, here-documents, regular expression literals,
HTML around PHP), by a line at most. Linear in the text.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from snowcoder_jax.text import reader

# Every alternative begins with a letter or mark of its own, so that the search skips to the next of
# these; what must stand before it is looked at afterwards.
_C_COMMENTS = (r"//[^\n]*", r"/\*[\s\S]*?(?:\*/|\Z)")
_HASH = r"#[^\n]*"
# `()` marks the end of a whole string: without its closing quote the rest of the line is passed
# over, but is no string.
_DOUBLE = r'"[^"\\\n]*+(?:\\[\s\S][^"\\\n]*+)*+(?:"())?'
_SINGLE = r"'[^'\\\n]*+(?:\\[\s\S][^'\\\n]*+)*+(?:'())?"
_LONG_DOUBLE = r'"[^"\\]*+(?:\\[\s\S][^"\\]*+)*+(?:"())?'  # over lines
_LONG_SINGLE = r"'[^'\\]*+(?:\\[\s\S][^'\\]*+)*+(?:'())?"
_BACKTICK = r"`[^`\\]*+(?:\\[\s\S][^`\\]*+)*+(?:`())?"
_TRIPLE = r'"""[\s\S]*?(?:"""()|\Z)'
_TRIPLE_SINGLE = r"'''[\s\S]*?(?:'''()|\Z)"
_CHARACTER = r"'(?:\\[^\n]|[^\\'\n])'()"  # a lone quote is a lifetime, a symbol, a digit mark

# Comments, and strings.
_Syntax = tuple[tuple[str, ...], tuple[str, ...]]
_PYTHON: _Syntax = ((_HASH,), (_TRIPLE, _TRIPLE_SINGLE, _DOUBLE, _SINGLE))
_SCALA: _Syntax = (_C_COMMENTS, (_TRIPLE, _DOUBLE, _CHARACTER))
_JAVASCRIPT: _Syntax = (_C_COMMENTS, (_DOUBLE, _SINGLE, _BACKTICK))
_SYNTAX: dict[str, _Syntax] = {
    "Python": _PYTHON,
    reader.NOTEBOOK: _PYTHON,  # by the script that it becomes
    "Java": _SCALA,
    "C": (_C_COMMENTS, (_DOUBLE, _CHARACTER)),
    "C++": (_C_COMMENTS, (r'R"\([\s\S]*?(?:\)"()|\Z)', _DOUBLE, _CHARACTER)),
    "C#": (_C_COMMENTS, (r'@"[^"]*+(?:""[^"]*+)*+(?:"())?', *_SCALA[1])),
    "JavaScript": _JAVASCRIPT,
    "TypeScript": _JAVASCRIPT,
    "PHP": ((*_C_COMMENTS, r"#(?!\[)[^\n]*"), (_LONG_DOUBLE, _LONG_SINGLE)),
    "Go": (_C_COMMENTS, (_DOUBLE, _CHARACTER, r"`[^`]*+(?:`())?")),
    "SQL": (
        (r"--[^\n]*", _C_COMMENTS[1]),
        (r"'[^']*+(?:''[^']*+)*+(?:'())?", _DOUBLE),
    ),
    "Ruby": (
        (r"#(?!\{)[^\n]*", r"=begin(?<![^\n]=begin)[\s\S]*?(?:\n=end|\Z)"),
        (_LONG_DOUBLE, _LONG_SINGLE),
    ),
    "Rust": (
        _C_COMMENTS,
        (r'r(#+)"[\s\S]*?(?:"\1()|\Z)', _LONG_DOUBLE, _CHARACTER),
    ),
    "Scala": _SCALA,
    "Kotlin": _SCALA,
    "Swift": (_C_COMMENTS, (_TRIPLE, _DOUBLE)),
    "Shell": ((r"#(?<![^\s;|&(]#)[^\n]*",), (_LONG_DOUBLE, r"'[^']*+(?:'())?")),
    "Dart": (_C_COMMENTS, (_TRIPLE, _TRIPLE_SINGLE, _DOUBLE, _SINGLE)),
}


class Parts(NamedTuple):
    """A text taken apart.

    Attributes:
      code: what is left without the comments.
      comments: the comments, each with its markers.
      strings: the strings of the code, with their quotes.
    """

    code: bytes
    comments: list[bytes]
    strings: list[bytes]


# What may stand before a documentation string on its line.
_BEFORE_DOCSTRING = b" \trRuU"
_MAX_INDENTATION = 200


@cache
def _pattern(language: str) -> tuple[re.Pattern[bytes], int]:
    """The pattern of a language; its group of that number or above marks a whole comment."""
    comments, strings = _SYNTAX[language]
    num_string_groups = re.compile("|".join(strings)).groups
    alternatives = [*strings, *(f"{comment}()" for comment in comments)]
    return re.compile("|".join(alternatives).encode()), num_string_groups + 1


def take_apart(text: bytes, language: str) -> Parts:
    """Comments, strings and code of a text (UTF-8). Documentation strings are comments."""
    pattern, first_comment = _pattern(language)
    is_python = _SYNTAX[language] is _PYTHON
    code, comments, strings = [], [], []
    last_end = 0
    for match in pattern.finditer(text):
        kind = match.lastindex
        if kind is None:
            continue
        start, end = match.span()
        if kind >= first_comment or (is_python and _is_docstring(text, start, end)):
            comments.append(text[start:end])
            code.append(text[last_end:start])
            last_end = end
        else:
            strings.append(text[start:end])
    code.append(text[last_end:])
    return Parts(b"".join(code), comments, strings)


def _is_docstring(text: bytes, start: int, end: int) -> bool:
    """Whether a string is in three quotes and the first of its line."""
    if end - start < 6 or text[start : start + 3] not in (b'"""', b"'''"):
        return False
    before = text[max(0, start - _MAX_INDENTATION) : start]
    is_near = b"\n" in before or start <= _MAX_INDENTATION
    return is_near and not before[before.rfind(b"\n") + 1 :].strip(_BEFORE_DOCSTRING)
