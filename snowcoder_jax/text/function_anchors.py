"""Where a text may hold a function of a reference, told by words alone.

Parsing is slow (some 3 MB/s), so only the functions around an anchor are parsed: a window of
words as `blind_words` sees them whose neighbour is the reference's too. A body without a window
of `WINDOW_WORDS` words that tells enough has shorter ones; idioms hold those everywhere, so
there the body has to begin and end where the reference's does. Shapes: W words.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from snowcoder_jax.text import words
from snowcoder_jax.text.words import Hashes, HashSet, Offsets, Words

SHORT_WINDOW_WORDS = 6
WINDOW_WORDS = 2 * SHORT_WINDOW_WORDS
MIN_WINDOW_KEPT = 2
MAX_ANCHORS = 3

BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("_"))

_HEAD_ENDS = (b":", b'"', b"'")
_PAIR = np.uint64(0x9E3779B97F4A7C15)
_KEPT_BITS = 20
_KEPT_SHIFT = np.uint64(64 - _KEPT_BITS)


def _table(names: Iterable[str]) -> words.Bools:
    table = np.zeros(1 << _KEPT_BITS, np.bool_)
    table[words.split_words(" ".join(names).lower().encode()).hashes >> _KEPT_SHIFT] = True
    return table


_IS_KEYWORD, _IS_BUILTIN = _table(keyword.kwlist), _table(BUILTINS)


def blind_words(data: bytes, found: Words) -> tuple[Hashes, Offsets]:
    """What renaming leaves of Python words, and where they start.

    Keywords, numbers, attributes and called builtins keep their hashes, other words get 0; words
    of comments are left out (and those after a `#` in a string).

    Args:
      data: lower-case. found: its words.
    """
    padded = np.frombuffer(b"".join((b"\n", data, b"\n\n")), np.uint8)
    top_W = found.hashes >> _KEPT_SHIFT
    first_W = padded[found.starts + 1]
    kept_W = _IS_KEYWORD[top_W]
    kept_W |= padded[found.starts] == ord(".")
    kept_W |= (first_W >= ord("0")) & (first_W <= ord("9"))
    builtin = np.flatnonzero(_IS_BUILTIN[top_W])
    after = found.ends[builtin] + 1
    opens = np.where(padded[after] == ord(" "), padded[after + 1], padded[after]) == ord("(")
    kept_W[builtin[opens]] = True
    blind_W = np.where(kept_W, found.hashes, np.uint64(0))

    marks = np.flatnonzero(padded == ord("#")) - 1
    if len(marks) == 0:
        return blind_W, found.starts
    breaks = np.flatnonzero(padded[1:] == ord("\n"))
    size = len(found.starts) + 1
    begins = np.searchsorted(found.starts, marks)
    ends = np.searchsorted(found.starts, breaks[np.searchsorted(breaks, marks)])
    depth = np.bincount(begins, minlength=size) - np.bincount(ends, minlength=size)
    is_code = np.cumsum(depth[:-1]) == 0
    return blind_W[is_code], found.starts[is_code]


class _Anchor(NamedTuple):
    """What else a body holds: `offset` words from its window another one, `neighbour`; the
    window stands `place` words after the beginning of its `num_words`."""

    offset: int
    neighbour: int
    place: int
    num_words: int


class AnchorIndex:
    """Windows of the bodies of reference functions."""

    def __init__(self, bodies: Iterable[Hashes]) -> None:
        """Takes the blind words of each body."""
        self._anchors: dict[int, dict[int, set[_Anchor]]] = {
            WINDOW_WORDS: {},
            SHORT_WINDOW_WORDS: {},
        }
        for blind_W in bodies:
            grams_of = _window_hashes(blind_W)
            for size, of_size in self._anchors.items():
                anchors = list(_anchors(blind_W, grams_of[size], size))
                for window, anchor in anchors:
                    of_size.setdefault(window, set()).add(anchor)
                if anchors:
                    break
        self._windows = {
            size: HashSet(np.array(list(of_size), np.uint64))
            for size, of_size in self._anchors.items()
        }

    def positions(self, data: bytes, found: Words) -> list[int]:
        """Where in a text, in order, windows stand that a reference's function has too.

        Args:
          data: lower-case. found: its words.
        """
        blind_W, start_W = blind_words(data, found)
        grams_of = _window_hashes(blind_W)
        hits: set[int] = set()
        for size, windows in self._windows.items():
            grams, anchors = grams_of[size], self._anchors[size]
            for hit in windows.positions(grams).tolist():
                for offset, neighbour, place, num_words in anchors[int(grams[hit])]:
                    other = hit + offset
                    if not 0 <= other < len(grams) or grams[other] != neighbour:
                        continue
                    first = hit - place
                    if size == WINDOW_WORDS or _is_body(data, start_W, first, first + num_words):
                        hits.add(hit)
                        break
        return start_W[sorted(hits)].tolist()


def _is_body(data: bytes, start_W: Offsets, first: int, end: int) -> bool:
    """Whether words `first` to `end` may be all of a function's body, as its lines are indented."""
    if first < 1 or end > len(start_W):
        return False
    line, indent = _line_of(data, int(start_W[first]))
    if start_W[first - 1] >= line:
        # A body on the line of its `def`.
        if not data.startswith((b"def ", b"async "), line + indent):
            return False
        indent += 1
    elif not _follows_head(data, line):
        return False
    return end == len(start_W) or _line_of(data, int(start_W[end]))[1] < indent


def _follows_head(data: bytes, end: int) -> bool:
    """Whether the last line before a byte that is neither empty nor a comment ends as the head of
    a function does, or a docstring."""
    while end > 0:
        start = data.rfind(b"\n", 0, end - 1) + 1
        line = data[start:end].strip()
        if line and not line.startswith(b"#"):
            return any(part.rstrip().endswith(_HEAD_ENDS) for part in (line, line.split(b"#")[0]))
        end = start
    return False


def _line_of(data: bytes, place: int) -> tuple[int, int]:
    """Where the line of a byte starts, and by how many bytes it is indented."""
    start = data.rfind(b"\n", 0, place) + 1
    head = data[start:place]
    return start, len(head) - len(head.lstrip(b" \t"))


def _window_hashes(blind_W: Hashes) -> dict[int, Hashes]:
    """Of each size of windows, the hashes of all in order; a long one is two short ones."""
    short = words.ngram_hashes(blind_W, SHORT_WINDOW_WORDS)
    pairs = short[:-SHORT_WINDOW_WORDS] * _PAIR + short[SHORT_WINDOW_WORDS:]
    return {WINDOW_WORDS: words.mix(pairs), SHORT_WINDOW_WORDS: short}


def _anchors(blind_W: Hashes, grams: Hashes, size: int) -> Iterator[tuple[int, _Anchor]]:
    """Hashes of the windows of a body that others are least likely to have, spread over it.

    The neighbour of each is the next window where there is room.
    """
    for position in _rarest(blind_W, size) if len(grams) else ():
        offset = min(size, len(grams) - 1 - position)
        if offset < size // 2:
            offset = -min(size, position)
        neighbour = int(grams[position + offset])
        yield int(grams[position]), _Anchor(offset, neighbour, position, len(blind_W))


def _rarest(blind_W: Hashes, size: int) -> list[int]:
    """Where windows with most kept words start."""
    windows = np.lib.stride_tricks.sliding_window_view(blind_W, size)
    num_kept = words.distinct_in_rows(windows)
    taken: list[int] = []
    for position in np.argsort(-num_kept, kind="stable").tolist():
        if num_kept[position] < MIN_WINDOW_KEPT or len(taken) == MAX_ANCHORS:
            break
        if all(abs(position - other) >= size // 2 for other in taken):
            taken.append(position)
    return taken
