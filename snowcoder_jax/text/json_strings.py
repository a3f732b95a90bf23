"""What the strings of a JSON text say: without escapes, and those of a list run together.

Of a notebook this is what becomes its script: a cell's source is one string, or a list of them.
"""

from __future__ import annotations

import bisect
import re

# One that is never closed goes on to the end, so that no text is looked through twice.
_STRING = re.compile(
    rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"([ \t\r\n]*+:)?)?', re.DOTALL
)  # what it holds, and the colon after a key
_JOINT = re.compile(rb'"[ \t\r\n]*+,[ \t\r\n]*+"')
_ESCAPE = re.compile(rb"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_JOINT_OR_ESCAPE = re.compile(rb"%b|%b" % (_JOINT.pattern, _ESCAPE.pattern), re.DOTALL)
_CHARACTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def unescape(part: bytes) -> bytes:
    """The same for a part of a text that begins and ends inside strings."""
    return _JOINT_OR_ESCAPE.sub(_plain, part)


class PlainText:
    """The text as it reads, and where it came from.

    What stands between strings is kept, but for the joints between the strings of a list. No
    text is refused: what is no JSON is kept as far as it is none.

    Attributes:
      data: the text in UTF-8; half of a surrogate pair as three bytes.
    """

    def __init__(self, raw: bytes) -> None:
        # Stretches that stand in the raw text as they are, or, escapes, as a whole.
        self._plain_starts: list[int] = []
        self._raw_spans: list[tuple[int, int]] = []
        self._pieces: list[bytes] = []
        self._size = 0
        position = 0
        for string in _STRING.finditer(raw):
            start, end = string.span(1)
            if string.group(2) is not None or not _JOINT.fullmatch(raw, position, start):
                self._add(raw[position:start], position, start)
            for escape in _ESCAPE.finditer(raw, start, end):
                self._add(raw[start : escape.start()], start, escape.start())
                self._add(_plain(escape), *escape.span())
                start = escape.end()
            self._add(raw[start:end], start, end)
            position = end
        self._add(raw[position:], position, len(raw))
        self.data = b"".join(self._pieces)

    def _add(self, piece: bytes, raw_start: int, raw_end: int) -> None:
        if piece:
            self._plain_starts.append(self._size)
            self._raw_spans.append((raw_start, raw_end))
            self._pieces.append(piece)
            self._size += len(piece)

    def raw_span(self, start: int, end: int) -> tuple[int, int]:
        """Where bytes `start` to `end` of `data` stand in the raw text, with whole escapes."""
        return self._raw_byte(start)[0], self._raw_byte(end - 1)[1]

    def _raw_byte(self, place: int) -> tuple[int, int]:
        """Where one byte of `data` stands."""
        number = bisect.bisect_right(self._plain_starts, place) - 1
        start, end = self._raw_spans[number]
        if len(self._pieces[number]) != end - start:  # an escape is longer than what it says
            return start, end
        start += place - self._plain_starts[number]
        return start, start + 1


def _plain(found: re.Match[bytes]) -> bytes:
    """What stands for an escape (nothing, for a joint)."""
    digits, character = found.groups()
    if digits is not None:
        return chr(int(digits, 16)).encode("utf-8", "surrogatepass")
    return b"" if character is None else _CHARACTERS.get(character, character)
