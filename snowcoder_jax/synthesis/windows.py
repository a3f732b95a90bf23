"""A part of a long file that a teacher can be shown: whole lines, cut by bytes.

By bytes and not by a teacher's tokens, so that every process cuts the same without it. What begins
a block is told by blank lines, indentation and the words of definitions, alike in all 18 languages:
the processes that ask have no parsers. An error costs a window that begins less well.
"""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np

_CLOSING = ")]}>"
_LINE_HEAD = 200  # characters of a line that are looked at
_MAX_COMMENT_LINES = 100
# How lines of comments, decorators and attributes begin.
_NO_CODE = ("#", "//", "/*", "*", "--", "@", '"""')
_DEFINITION = re.compile(
    r"(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|unsafe"
    r"|extern|inline|constexpr|open|sealed|case|data|partial|pub(?:\([^)]*\))?)\s+)*"
    r"(?:def|class|fn|func|function|fun|struct|impl|trait|interface|enum|type|template|namespace"
    r"|module|object|record|union|typedef|extension|protocol|mixin|const|let|var|val"
    r"|(?i:create|select|with|insert))\b"
    # A result, a name and arguments; a shell function.
    r"|[A-Za-z_][\w \t*&:<>,]*[ \t*&][\w:~]+\s*\([^;]*[{),]$"
    r"|[\w-]+\s*\(\)\s*\{?$"
)


@dataclasses.dataclass(frozen=True)
class Window:
    """Lines `first_line` to `last_line` of a text, counted from 1; 0 and 0: all of it."""

    text: str
    first_line: int = 0
    last_line: int = 0


def window_of(text: str, max_bytes: int, draw: int) -> Window | None:
    """The whole text where it fits into `max_bytes` of UTF-8, else a window of whole lines.

    A window begins at a block: a line after a blank one, where at least half of what could be
    shown follows; a definition with what stands directly above it, where there is one, and of the
    smallest indentation. `draw` says which of these. It ends before another block as far out,
    where that leaves half of it, else at the last line that fits.

    Args:
      draw: any number of at least 0. Line breaks of other systems become plain ones.

    Returns:
      None where no line fits.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _num_bytes(text) <= max_bytes:
        return Window(text)
    lines = text.split("\n")
    lines = [line + "\n" for line in lines[:-1]] + lines[-1:]
    # Line i takes the bytes from offset[i] to offset[i + 1]; a window from it ends before end[i].
    offset = np.array([0, *itertools.accumulate(map(_num_bytes, lines))], np.int64)
    end = np.searchsorted(offset, offset[:-1] + max_bytes, side="right") - 1
    size = offset[end] - offset[:-1]
    largest = int(size.max())
    if largest == 0:
        return None
    blocks = _blocks(lines)
    usable = [i for i in np.flatnonzero(2 * size >= largest).tolist() if lines[i].strip()]
    starts = [i for i in usable if i in blocks]
    starts = [i for i in starts if _defines(lines, i)] or starts
    if starts:
        outermost = min(blocks[i] for i in starts)
        starts = [i for i in starts if blocks[i] == outermost]
    starts = starts or usable
    if not starts:
        return None
    first = starts[draw % len(starts)]
    last = int(end[first])
    indentation = blocks.get(first, 0)
    blocks[len(lines)] = 0  # the end of the text is as good
    for boundary in range(last, first, -1):
        if 2 * (offset[boundary] - offset[first]) < size[first]:
            break
        if blocks.get(boundary, indentation + 1) <= indentation:
            last = boundary
            break
    while not lines[last - 1].strip():
        last -= 1
    return Window("".join(lines[first:last]), first + 1, last)


def _blocks(lines: list[str]) -> dict[int, int]:
    """The lines that begin a block, each with its indentation in characters."""
    blocks = {}
    for i, line in enumerate(lines):
        bare = line.strip()
        if bare and bare[0] not in _CLOSING and (i == 0 or not lines[i - 1].strip()):
            blocks[i] = len(line) - len(line.lstrip())
    return blocks


def _defines(lines: list[str], block: int) -> bool:
    """Whether the first line of code of a block begins a definition."""
    for line in lines[block : block + _MAX_COMMENT_LINES]:
        bare = line[:_LINE_HEAD].strip()
        if not bare:
            return False
        if not bare.startswith(_NO_CODE):
            return _DEFINITION.match(bare) is not None
    return False


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
