"""Signals of raw text, many texts at a time: lengths, kinds of characters, encoded data.

What StarCoder (arXiv 2305.06161, section 3.1) and StarCoder2 (arXiv 2402.19173, section 2.5) look
at, and the plain character counts of OpenCoder. Texts are UTF-8 bytes, laid end to end so that an
array operation serves many of them; lengths count Unicode characters, a lone surrogate as one.

Shapes: N texts, B bytes of the texts laid end to end, L lines, P places of something.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snowcoder_jax.text import encoded

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]

# What one array operation works on, so that its temporaries stay in the processor's cache.
GROUP_BYTES = 1 << 20

XML_HEAD_CHARACTERS = 100
_XML_DECLARATION = b"<?xml version="
_MAX_UTF8_BYTES = 4  # of a character

_LETTER, _DIGIT, _SPACE = 1, 2, 4
_SEPARATOR = b"\0"  # after each text; of no kind below, so nothing runs from text to text
_REPLACEMENT = "\ufffd".encode()


class Texts(NamedTuple):
    """Texts laid end to end, a NUL after each: text n is `data[starts[n] : ends[n]]`."""

    data: bytes
    array: Bytes  # [B]
    starts: Ints  # [N]
    ends: Ints  # [N]

    def of(self, place_P: Ints) -> Ints:
        """The texts, by number, that the bytes at `place_P` belong to."""
        return np.searchsorted(self.ends, place_P, side="right")

    def num_inside(self, place_P: Ints) -> Ints:
        """How many of the places lie in each text, [N]."""
        return np.bincount(self.of(place_P), minlength=len(self.ends))

    def num_true(self, mask_B: npt.NDArray[np.bool_]) -> Ints:
        """How many bytes of each text are marked, [N]."""
        spans = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return np.array([np.count_nonzero(mask_B[s:e]) for s, e in spans], np.int64)


def lay_out(texts: Sequence[bytes]) -> Texts:
    data = _SEPARATOR.join((*texts, b""))
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    end_N = np.cumsum(sizes + 1) - 1
    return Texts(data, np.frombuffer(data, np.uint8), end_N - sizes, end_N)


def groups(texts: Sequence[bytes]) -> Iterator[slice]:
    """Slices of consecutive texts of about `GROUP_BYTES` each, a longer text alone."""
    start = size = 0
    for index, text in enumerate(texts):
        if size and size + len(text) > GROUP_BYTES:
            yield slice(start, index)
            start, size = index, 0
        size += len(text)
    if start < len(texts):
        yield slice(start, len(texts))


def share(part_N: npt.ArrayLike, whole_N: npt.ArrayLike) -> Floats:
    """`part / whole`, 0 of nothing."""
    return np.asarray(part_N, np.float64) / np.maximum(whole_N, 1)


class Lines(NamedTuple):
    """The lines of texts: text n has `counts[n]`, from number `firsts[n]` on.

    Where a text ends with a line break, an empty line after it is listed, but not counted.
    """

    characters: Ints  # [L], without the line break, "\\n" or "\\r\\n"
    firsts: Ints  # [N]
    counts: Ints  # [N]


def find_lines(texts: Texts, continuation_P: Ints) -> Lines:
    """The lines of texts. `continuation_P`: places of the bytes that continue a character."""
    array = texts.array
    is_end = array == 0x0A
    is_end[texts.ends] = True
    end_L = np.flatnonzero(is_end)
    length_L = np.diff(end_L, prepend=-1) - 1
    is_break = array[end_L] == 0x0A
    length_L -= (array[end_L - 1] == 0x0D) & is_break & (length_L > 0)
    if len(continuation_P):
        of_line = np.searchsorted(end_L, continuation_P)
        length_L -= np.bincount(of_line, minlength=len(end_L))
    last_N = np.searchsorted(end_L, texts.ends) + 1
    first_N = np.concatenate([[0], last_N[:-1]])
    ends_with_break = texts.ends == np.concatenate([[-1], end_L])[last_N - 1] + 1
    return Lines(length_L, first_N, last_N - first_N - ends_with_break)


def measure(texts: Sequence[bytes]) -> Columns:
    """The signals of texts by name, each of shape [N].

    num_bytes, num_characters, num_lines (a last one without a line break included).
    mean_line_characters, max_line_characters: without their line breaks.
    letter_share, alphanumeric_share, whitespace_share, replacement_share (U+FFFD): of all
    characters. visible_letter_share, visible_digit_share: of all but white space.
    xml: an XML declaration stands in the first 100 characters.
    max_encoded_run_characters, encoded_share: `encoded.find_runs`.
    """
    parts = [_measure_group(lay_out(texts[group])) for group in groups(texts)]
    names = parts[0] if parts else _measure_group(lay_out([b""]))
    return {
        name: np.concatenate([part[name] for part in parts]) if parts else np.zeros(0)
        for name in names
    }


def _measure_group(texts: Texts) -> Columns:
    continuation_P = np.flatnonzero(texts.array.view(np.int8) < -64)  # 0b10xxxxxx
    num_bytes = texts.ends - texts.starts
    num_characters = num_bytes - texts.num_inside(continuation_P)
    lines = find_lines(texts, continuation_P)
    letters, digits, spaces = _count_kinds(texts)
    visible = num_characters - spaces
    run_longest, run_total = encoded.measure_runs(texts.data, texts.array, texts.ends)
    replaced_N = np.zeros(len(num_bytes))
    if _REPLACEMENT in texts.data:
        replaced_N = np.array([texts.data.count(_REPLACEMENT, s, e) for s, e in _spans(texts)])
    return {
        "num_bytes": num_bytes.astype(np.float64),
        "num_characters": num_characters.astype(np.float64),
        "num_lines": lines.counts.astype(np.float64),
        "mean_line_characters": share(
            np.add.reduceat(lines.characters, lines.firsts), lines.counts
        ),
        "max_line_characters": np.maximum.reduceat(lines.characters, lines.firsts).astype(
            np.float64
        ),
        "letter_share": share(letters, num_characters),
        "alphanumeric_share": share(letters + digits, num_characters),
        "whitespace_share": share(spaces, num_characters),
        "replacement_share": share(replaced_N, num_characters),
        "visible_letter_share": share(letters, visible),
        "visible_digit_share": share(digits, visible),
        "xml": np.array([_has_xml_declaration(texts.data, s, e) for s, e in _spans(texts)], float),
        "max_encoded_run_characters": run_longest.astype(np.float64),
        "encoded_share": share(run_total, num_characters),
    }


def _spans(texts: Texts) -> Iterator[tuple[int, int]]:
    return zip(texts.starts.tolist(), texts.ends.tolist(), strict=True)


def _has_xml_declaration(data: bytes, start: int, end: int) -> bool:
    head_end = min(end, start + _MAX_UTF8_BYTES * XML_HEAD_CHARACTERS)
    place = data.find(_XML_DECLARATION, start, head_end)
    if place < 0:
        return False
    before = data[start:place].decode("utf-8", "surrogatepass")
    return len(before) + len(_XML_DECLARATION) <= XML_HEAD_CHARACTERS


def _kind(character: str) -> int:
    return (
        (_LETTER if character.isalpha() else 0)
        | (_DIGIT if character.isdigit() else 0)
        | (_SPACE if character.isspace() else 0)
    )


_ASCII_KINDS = bytes(_kind(chr(b)) if b < 128 else 0 for b in range(256))


@cache
def _unicode_kinds() -> Bytes:
    return np.array([_kind(chr(c)) for c in range(0x110000)], np.uint8)


def _count_kinds(texts: Texts) -> tuple[Ints, Ints, Ints]:
    """Letters, digits and white space of each text, as `str` has them, each of shape [N]."""
    kind_B = np.frombuffer(texts.data.translate(_ASCII_KINDS), np.uint8)
    lead_P = np.flatnonzero(texts.array >= 0xC0)
    kind_P = _unicode_kinds()[_code_points(texts.array, lead_P)] if len(lead_P) else None
    counts = []
    for kind in (_LETTER, _DIGIT, _SPACE):
        count_N = texts.num_true((kind_B & kind).view(np.bool_))
        if kind_P is not None:
            count_N = count_N + texts.num_inside(lead_P[kind_P & kind != 0])
        counts.append(count_N)
    return counts[0], counts[1], counts[2]


def _code_points(array: Bytes, lead_P: Ints) -> Ints:
    """The characters that begin at `lead_P`, the first bytes of two to four."""
    lead = array[lead_P].astype(np.int64)
    size_P = 2 + (lead >= 0xE0) + (lead >= 0xF0)
    point_P = lead & np.array([0x1F, 0x0F, 0x07])[size_P - 2]
    last = len(array) - 1
    for step in (1, 2, 3):
        byte = array[np.minimum(lead_P + step, last)].astype(np.int64) & 0x3F
        point_P = np.where(size_P > step, (point_P << 6) | byte, point_P)
    return point_P
