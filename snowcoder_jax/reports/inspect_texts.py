"""Texts of chosen documents for people to look at: redacted, cut to a window, parts marked.

Raw content does not leave this module: whatever is shown went through `text.reader.clean_text`.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from snowcoder_jax.reports.inspect_run import CORPORA, Run
from snowcoder_jax.text import duplicates
from snowcoder_jax.text.reader import clean_text

NUM_LINES = 40
_NUM_LINES_OF_A_SECRET = 14
# Lines shown above what a window is about.
_LINES_BEFORE = 6
# `difflib` compares the beginning of two files; its time grows with the square of it.
_MAX_COMPARED_LINES = 400
_MAX_LINE_CHARACTERS = 240
_WHITE_SPACE = b" \t\r\n\v\f"
_PRIVATE_USE = range(0xE000, 0xF8FF)

_NAMES = ("id", "repo", "path", "language", "license", "content")


@dataclasses.dataclass(frozen=True)
class Marked:
    """A part of a text. `marks` holds the two characters that stand around what is marked (see
    `highlight.code_block`); `first_line` counts from 1."""

    text: str
    marks: str = ""
    first_line: int = 1

    def marked_parts(self) -> list[str]:
        if not self.marks:
            return []
        return [piece.split(self.marks[1])[0] for piece in self.text.split(self.marks[0])[1:]]


@dataclasses.dataclass(frozen=True)
class Document:
    """A document with its text; every method gives clean text, or None for a notebook that
    cannot be read."""

    id: str
    repo: str
    path: str
    language: str
    license: str
    _content: str = dataclasses.field(repr=False)
    _spans: list[dict[str, Any]] = dataclasses.field(repr=False)

    def text(self) -> str | None:
        return _clean(self._content, self.language, self._spans)

    def head(self) -> Marked | None:
        """The first lines."""
        text = self.text()
        return None if text is None else _window(text, "", 0)

    def parted(self, num_bytes: int) -> tuple[str, str] | None:
        """The first bytes of the raw content, and the rest; a secret that the cut parts belongs
        to the rest."""
        cut = min(
            [num_bytes, *(s["start"] for s in self._spans if s["start"] < num_bytes < s["end"])]
        )
        data, mark = _bytes(self._content), _free_marks(self._content)[0]
        marked = (data[:cut] + _bytes(mark) + data[cut:]).decode("utf-8", "surrogatepass")
        spans = [_moved(span, cut, len(data) + 1, len(_bytes(mark))) for span in self._spans]
        text = _clean(marked, self.language, spans)
        if text is None:
            return None
        head, _, rest = text.partition(mark)
        return head, rest

    def longest_line(self) -> Marked | None:
        """The lines around the longest one, which is marked."""
        text = self.text()
        if text is None:
            return None
        lines = text.split("\n")
        longest = max(range(len(lines)), key=lambda i: len(lines[i]))
        marks = _free_marks(text)
        lines[longest] = marks[0] + lines[longest] + marks[1]
        return _window("\n".join(lines), marks, longest)

    def around(self, part: str) -> Marked | None:
        """The lines around `part` of the raw content (white space and ASCII case may differ),
        which is marked; a secret that it shares a byte with is marked whole, as its marker. The
        first lines where the part is not found."""
        data = _bytes(self._content)
        place = _find(data, _bytes(part))
        if place is None:
            return self.head()
        start, end = place
        for span in self._spans:
            if span["start"] < start < span["end"]:
                start = span["start"]
            if span["start"] < end < span["end"]:
                end = span["end"]
        marks = _free_marks(self._content)
        opening, closing = map(_bytes, marks)
        content = data[:start] + opening + data[start:end] + closing + data[end:]
        spans = [_moved(span, start, end, len(opening)) for span in self._spans]
        text = _clean(content.decode("utf-8", "surrogatepass"), self.language, spans)
        # In a notebook a mark may stand between two cells, where JSON has no place for it.
        return self.head() if text is None else _window(text, marks)

    def secrets(self, kind: str) -> Marked | None:
        """The lines around the first secret of a kind; the markers of all kinds are marked."""
        text = self.text()
        if text is None:
            return None
        marks = _free_marks(text)
        kinds = "|".join(sorted({re.escape(s["kind"].upper()) for s in self._spans}))
        first = text.find(f"<{kind.upper()}_1>")
        line = text.count("\n", 0, max(0, first))
        text = re.sub(f"<(?:{kinds})_[0-9]+>", lambda m: marks[0] + m.group() + marks[1], text)
        return _window(text, marks, line, _NUM_LINES_OF_A_SECRET)

    def beside(self, other: Document, ngram_words: int) -> Pair | None:
        """This document and another, each from a little above where they first differ, with the
        lines that the other does not have marked."""
        first, second = self.text(), other.text()
        if first is None or second is None:
            return None
        similarity = 1.0  # of exact copies, those without a word too
        if duplicates.exact_key(self._content) != duplicates.exact_key(other._content):
            similarity = duplicates.jaccard(
                duplicates.shingles(self._content, ngram_words),
                duplicates.shingles(other._content, ngram_words),
            )
        return Pair(*_differences(first, second), similarity)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two documents side by side; `similarity` is the Jaccard similarity of their shingles."""

    first: Marked
    second: Marked
    similarity: float


def read_documents(run: Run, ids: Collection[str], corpus: str = "ingest") -> dict[str, Document]:
    """The documents of these ids, by id; memory grows with their number and size only.

    Args:
      corpus: one of `inspect_run.CORPORA`, whose secrets have been looked for.
    """
    wanted = pa.array(sorted(ids), pa.string())
    found: dict[str, Document] = {}
    secrets = f"{CORPORA[corpus]}secrets"
    for relative in run.shards(corpus):
        mask = pc.is_in(run.table(corpus, relative, ["id"])["id"], value_set=wanted)
        if not pc.any(mask).as_py():
            continue
        rows = run.rows(corpus, relative, mask, _NAMES)
        spans = run.table(secrets, relative, ["spans"])["spans"].filter(mask).to_pylist()
        for row, row_spans in zip(rows, spans, strict=True):
            document = Document(
                id=row["id"],
                repo=row["repo"],
                path=row["path"],
                language=row["language"],
                license=row["license"],
                _content=row["content"],
                _spans=row_spans,
            )
            found.setdefault(document.id, document)
    return found


def _clean(content: str, language: str, spans: list[dict[str, Any]]) -> str | None:
    try:
        return clean_text(content, language, spans)
    except ValueError:
        return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _free_marks(text: str) -> str:
    """Two characters of the private use area that a text does not hold."""
    used = set(text)
    return "".join(itertools.islice((c for c in map(chr, _PRIVATE_USE) if c not in used), 2))


def _find(data: bytes, part: bytes) -> tuple[int, int] | None:
    """Where `part` stands in `data`, white space and ASCII case folded: half-open, in bytes."""
    array = np.frombuffer(data, np.uint8)
    positions = np.flatnonzero(~np.isin(array, np.frombuffer(_WHITE_SPACE, np.uint8)))
    folded = part.lower().translate(None, _WHITE_SPACE)
    start = array[positions].tobytes().lower().find(folded)
    if start < 0 or not folded:
        return None
    return int(positions[start]), int(positions[start + len(folded) - 1]) + 1


def _moved(span: dict[str, Any], start: int, end: int, size: int) -> dict[str, Any]:
    """A span after a mark of `size` bytes was put before `start` and one before `end`."""
    moved = dict(span)
    for name in ("start", "end"):
        position = span[name] - (name == "end")  # the end of a span belongs to its last byte
        moved[name] += size * ((position >= start) + (position >= end))
    return moved


def _window(text: str, marks: str, line: int | None = None, num_lines: int = NUM_LINES) -> Marked:
    """Some lines of a text around `line`, or around the first mark."""
    if line is None:
        line = text.count("\n", 0, max(0, text.find(marks[0])))
    lines = text.split("\n")
    first = max(0, line - _LINES_BEFORE) if line >= num_lines - _LINES_BEFORE else 0
    shown = [_cut(line, marks) for line in lines[first : first + num_lines]]
    return Marked("\n".join(shown), marks, first + 1)


def _cut(line: str, marks: str) -> str:
    """A long line as its beginning, or as what is around its first mark; every mark is kept."""
    if len(line) <= _MAX_LINE_CHARACTERS:
        return line
    mark = line.find(marks[0]) if marks else -1
    start = max(0, mark - _MAX_LINE_CHARACTERS // 4)
    end = start + _MAX_LINE_CHARACTERS
    before, after = ("".join(c for c in part if c in marks) for part in (line[:start], line[end:]))
    opening = "… " if start else ""
    return f"{opening}{before}{line[start:end]}{after} … ({len(line):,} characters)"


def _differences(first: str, second: str) -> tuple[Marked, Marked]:
    marks = _free_marks(first + second)
    a, b = (text.split("\n") for text in (first, second))
    matcher = difflib.SequenceMatcher(
        None, a[:_MAX_COMPARED_LINES], b[:_MAX_COMPARED_LINES], autojunk=False
    )
    starts: tuple[int, int] | None = None
    for kind, a_start, a_end, b_start, b_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        starts = starts or (a_start, b_start)
        for lines, start, end in ((a, a_start, a_end), (b, b_start, b_end)):
            for i in range(start, end):
                lines[i] = marks[0] + lines[i] + marks[1]
    line_a, line_b = starts or (0, 0)
    return _window("\n".join(a), marks, line_a), _window("\n".join(b), marks, line_b)
