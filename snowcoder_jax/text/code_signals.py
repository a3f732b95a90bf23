"""Signals of code that need its comments and strings told apart: OpenCoder's, by line and share.

After OpenCoder (arXiv 2411.04905, appendix; the quality signals of its repository
OpenCoder-llm/opc_data_filtering). Where that looks for a word anywhere in a line ("pass" is in
"password" too), this looks for the statement. Shares are of bytes. A line of code is one that is
not empty once comments are taken out.
"""

from __future__ import annotations

import re
from collections import Counter

from snowcoder_jax.text import lexing

LONG_STRING_WORDS = 20  # more than this many words or runs of punctuation in a line of a string
LONG_WORD_BYTES = 20

NAMES = (
    "num_code_lines",
    "comment_share",
    "todo_line_share",
    "duplicate_line_share",
    "string_share",
    "long_string_line_share",
    "long_word_share",
    "hex_word_share",
    "assert_line_share",
    "print_line_share",
    "pass_line_share",
    "import_line_share",
    "preprocessor_line_share",
    "num_mains",
)

_BLANKS = b" \t\r\f\v"
# Lines that say nothing by being repeated; so do those of one character.
_TRIVIAL_LINE = b"},"
_TODO = re.compile(rb"(?:your code here|fixme|todo)[^\n]*")
_WORD = re.compile(rb"[\w\x80-\xff]+|[^\w\s\x80-\xff]+")
_URL = re.compile(rb"https?://\S")
_HEX_WORD = re.compile(rb"0[xX][0-9a-fA-F]+\b")
_ASSERT = re.compile(rb"assert[^\n]*")
_MAIN = re.compile(rb"main(?<!\wmain)\s*\([^)]*\)\s*\{")
# Each takes the rest of its line along, so that a line is found once.
_PRINT = {
    "Python": re.compile(rb"print(?<!\wprint)\b[^\n]*"),
    "Java": re.compile(rb"System\.out\.print[^\n]*"),
    "C": re.compile(rb"printf[^\n]*"),
    "C++": re.compile(rb"printf[^\n]*|cout[^\n]*"),
    "C#": re.compile(rb"Console\.WriteLine[^\n]*"),
    "Go": re.compile(rb"fmt\.Print[^\n]*"),
    "JavaScript": re.compile(rb"console\.log[^\n]*"),
}
# Of code with a line break before it.
_PASS = re.compile(rb"\n[ \t]*pass\b")
_IMPORT = re.compile(rb"\n[ \t]*(?:import|from)\b")
_DIRECTIVE = re.compile(
    rb"\n[ \t]*(?:#[ \t]*(?:include|define|if|else|elif|endif|error|pragma|warning|undef|line)"
    rb"|struct\b|using\b)"
)
_HEADER = re.compile(r"\.(?:h|hh|hpp|hxx|h\+\+|inl|cuh)$", re.IGNORECASE)


def measure(text: bytes, language: str, path: str) -> tuple[float, ...]:
    """The signals of one text, in the order of `NAMES`.

    num_code_lines; comment_share (of the text; documentation strings are comments);
    todo_line_share: lines of comments with "todo", "fixme" or "your code here", of all lines;
    duplicate_line_share: lines of code that occur more than once, blanks aside, of all such;
    string_share, long_word_share (words of strings, URLs aside), hex_word_share: of the code;
    long_string_line_share, assert_, print_, pass_ and import_line_share (Python),
    preprocessor_line_share (C and C++, 0 for a header): of the lines of code;
    num_mains: definitions of `main` (C and C++). What a language does not have is 0.
    """
    parts = lexing.take_apart(text, language)
    code = b"\n" + parts.code
    lines = [x for x in code.translate(None, _BLANKS).split(b"\n") if x]
    of_code, of_lines = max(len(parts.code), 1), max(len(lines), 1)
    comments = b"\n".join(parts.comments)
    contents = [s.strip(b"\"'`") for s in parts.strings]
    words = [w for s in contents if len(s) > LONG_WORD_BYTES for w in s.split()]
    long_words = [w for w in words if len(w) > LONG_WORD_BYTES and not _URL.search(w)]
    num_prints = len(_PRINT[language].findall(code)) if language in _PRINT else 0
    is_python, is_c = language == "Python", language in ("C", "C++")
    num_lines = text.count(b"\n") + (not text.endswith((b"\n", b"")))
    has_directives = is_c and not _HEADER.search(path)
    return (
        len(lines),
        sum(map(len, parts.comments)) / max(len(text), 1),
        len(_TODO.findall(comments.lower())) / max(num_lines, 1),
        _num_duplicates(lines) / of_lines,
        sum(map(len, contents)) / of_code,
        sum(map(_num_long_lines, contents)) / of_lines,
        sum(map(len, long_words)) / of_code,
        sum(map(len, _HEX_WORD.findall(code))) / of_code,
        len(_ASSERT.findall(code.lower())) / of_lines,
        num_prints / of_lines,
        len(_PASS.findall(code)) / of_lines if is_python else 0.0,
        len(_IMPORT.findall(code)) / of_lines if is_python else 0.0,
        len(_DIRECTIVE.findall(code)) / of_lines if has_directives else 0.0,
        len(_MAIN.findall(code)) if is_c else 0,
    )


def _num_duplicates(lines: list[bytes]) -> int:
    counts = Counter(lines)
    return sum(n for x, n in counts.items() if n > 1 and len(x) > 1 and x != _TRIVIAL_LINE)


def _num_long_lines(string: bytes) -> int:
    if len(string) <= LONG_STRING_WORDS:
        return 0
    return sum(
        len(line) > LONG_STRING_WORDS and len(_WORD.findall(line)) > LONG_STRING_WORDS
        for line in string.split(b"\n")
    )
