"""Runs of encoded data in texts: base64, hexadecimal numbers, \\u escapes.

The kinds are StarCoder2's (arXiv 2402.19173, section 2.5). Its patterns also take a run of short
words or of one repeated character for base64; here a piece has 64 characters and 10 different
ones, and pieces with only quotes, commas, line breaks and indentation between them are one run.

Shapes: N texts, B bytes of the texts laid end to end (`signals.Texts`).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Span = tuple[int, int]

# Shorter runs are words, paths and digests, not data.
MIN_RUN_CHARACTERS = 64
_MIN_DISTINCT_BYTES = 10
_MAX_GAP = 32  # between the pieces of a run

_HEX = re.compile(rb"(?:(?:0[xX]|\\x)?[0-9a-fA-F]{2}[,;\s]*){32,}")
# The first escape by itself: a literal beginning makes the search fast.
_ESCAPES = re.compile(rb"\\u[0-9a-fA-F]{4}(?:\\u[0-9a-fA-F]{4}){7,}")
_HEX_BYTES = b"0123456789abcdefABCDEFxX\\,; \t\r\n"
_WORD = re.compile(rb"[0-9A-Za-z\x80-\xff\0]")

_IS_BASE64 = bytes(b < 128 and (chr(b).isalnum() or b in b"+/=") for b in range(256))
_IS_HEX = bytes(b in _HEX_BYTES for b in range(256))
# A run of 64 covers an aligned block of 32 whole, wherever it begins.
_BLOCK = 32
_EIGHT_TRUE = np.uint64(0x0101010101010101)


def measure_runs(data: bytes, array: Bytes, end_N: Ints) -> tuple[Ints, Ints]:
    """The longest encoded run of each text and the sum of all, in characters, each [N].

    A byte is counted in one run only.
    """
    longest_N, total_N = np.zeros(len(end_N), np.int64), np.zeros(len(end_N), np.int64)
    runs = _find_runs(data)
    if runs:
        start, length = np.array(runs, np.int64).T
        of_text = np.searchsorted(end_N, start, side="right")
        np.maximum.at(longest_N, of_text, length)
        np.add.at(total_N, of_text, length)
    return longest_N, total_N


def _find_runs(data: bytes) -> list[Span]:
    """(start, characters) of every run."""
    hex_runs = [
        match.span()
        for start, end in _long_spans(data, _IS_HEX)
        for match in _HEX.finditer(data, start, end)
    ]
    runs = [(start, end - start) for start, end in hex_runs]
    runs += [(m.start(), m.end() - m.start()) for m in _ESCAPES.finditer(data)]
    return runs + _base64_runs(data, hex_runs)


def _base64_runs(data: bytes, hex_runs: list[Span]) -> list[Span]:
    runs: list[Span] = []
    hex_ends = [end for _, end in hex_runs]
    last_end = -1
    for start, end in _long_spans(data, _IS_BASE64):
        # The first hexadecimal run that ends after this one begins, if it begins before its end.
        index = bisect_left(hex_ends, start + 1)
        if index < len(hex_runs) and hex_runs[index][0] < end:
            continue
        # `=====`, `/////` and the like are rulers.
        if len(set(data[start:end])) < _MIN_DISTINCT_BYTES:
            continue
        joins = last_end >= 0 and start - last_end <= _MAX_GAP
        # A NUL, which ends a text, joins nothing.
        if joins and _WORD.search(data, last_end, start) is None:
            runs[-1] = (runs[-1][0], runs[-1][1] + end - start)
        else:
            runs.append((start, end - start))
        last_end = end
    return runs


def _long_spans(data: bytes, table: bytes) -> Iterator[Span]:
    """Half-open spans of at least 64 bytes that the table (of 0 and 1) marks, in order."""
    marks = data.translate(table)
    num_blocks = len(marks) // _BLOCK
    eights = np.frombuffer(marks, np.uint64, num_blocks * (_BLOCK // 8)) == _EIGHT_TRUE
    last_end = -1
    for block in np.flatnonzero(eights.reshape(-1, _BLOCK // 8).all(axis=1)).tolist():
        if block * _BLOCK < last_end:
            continue
        start = marks.rfind(b"\0", 0, block * _BLOCK) + 1
        end = marks.find(b"\0", block * _BLOCK)
        last_end = end = len(marks) if end < 0 else end
        if end - start >= MIN_RUN_CHARACTERS:
            yield start, end
