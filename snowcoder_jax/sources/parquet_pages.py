"""Bounds on the pages of a Parquet file, looked at before Arrow takes them into memory.

Arrow reads and unpacks a page whole, and a cell is never larger than its page. The sizes stand in
the page's own header, in Thrift's compact encoding; they are read from the bytes on their way to
Arrow, so that nothing is read twice and the file's footer need not be true.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

MAX_PAGE_BYTES = 128 * 1024**2
# A page may be as large as its whole column is said to be, or so large.
MIN_PAGE_BYTES = 1024**2
_MAX_HEADER_BYTES = 1024**2
_MAX_DEPTH = 8
_UNPACKED, _PACKED = 2, 3  # fields of a page's header

# Types of Thrift's compact encoding.
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY = (1, 2), 3, (4, 5, 6), 7, 8
_LISTS, _STRUCT = (9, 10), 12


class PageTooLargeError(ValueError):
    """A page unpacks to more than what is taken into memory."""


@dataclass(slots=True)
class _Chunk:
    """A column of a row group: its bytes, where the next page's header starts, and what of that
    header was read so far."""

    start: int
    end: int
    max_page_bytes: int
    header_at: int
    head: bytes = b""


class GuardedFile:
    """A Parquet file that Arrow reads through; it refuses pages that are too large."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._chunks: list[_Chunk] = []

    def watch(self, columns: Iterable[Any]) -> None:
        """Look at the pages of these columns of a row group, which are about to be read."""
        self._chunks = []
        for column in columns:
            start = column.data_page_offset
            if column.dictionary_page_offset:
                start = min(start, column.dictionary_page_offset)
            stated = max(column.total_uncompressed_size, column.total_compressed_size)
            most = min(MAX_PAGE_BYTES, max(MIN_PAGE_BYTES, stated))
            end = start + column.total_compressed_size
            self._chunks.append(_Chunk(start, end, most, header_at=start))

    def read(self, size: int = -1) -> bytes:
        """
        Raises:
          PageTooLargeError: in what is read a page starts that is too large.
          ValueError: a page's header cannot be read.
        """
        at = self._file.tell()
        data = self._file.read(size)
        for chunk in self._chunks:
            if chunk.start <= at < chunk.end:
                _look(chunk, at, data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    @property
    def closed(self) -> bool:
        return self._file.closed


def _look(chunk: _Chunk, at: int, data: bytes) -> None:
    """Judge the pages whose headers end in these bytes of the file."""
    end = min(at + len(data), chunk.end)
    while chunk.header_at < end:
        known_to = chunk.header_at + len(chunk.head)
        if known_to < at:
            raise ValueError("pages are not read in their order")
        head = chunk.head + data[known_to - at : known_to - at + _MAX_HEADER_BYTES]
        try:
            unpacked, packed, num_bytes = _sizes(head)
        except IndexError:
            if len(head) >= _MAX_HEADER_BYTES:
                raise ValueError("a page's header has no end") from None
            chunk.head = head
            return
        if min(unpacked, packed) < 0:
            raise ValueError("a page of negative size")
        if max(unpacked, packed) > chunk.max_page_bytes:
            raise PageTooLargeError(f"a page of {unpacked} bytes")
        chunk.header_at += num_bytes + packed
        chunk.head = b""


def _sizes(head: bytes) -> tuple[int, int, int]:
    """The bytes of a page unpacked and as it lies there, and of its header.

    Raises:
      IndexError: the header goes on after `head`.
      ValueError: it is none.
    """
    found = {_UNPACKED: -1, _PACKED: -1}
    end = _struct(head, 0, found, 0)
    return found[_UNPACKED], found[_PACKED], end


def _struct(data: bytes, at: int, found: dict[int, int], depth: int) -> int:
    """Where a struct ends that starts at `at`; integers of its fields go to `found`."""
    field = 0
    while kind := data[at] & 15:
        step = data[at] >> 4
        at += 1
        if step:
            field += step
        else:
            field, at = _integer(data, at)
        if kind in _INTEGERS and field in found:
            found[field], at = _integer(data, at)
        elif kind not in _BOOLEANS:
            at = _skip(data, at, kind, depth)
    return at + 1


def _skip(data: bytes, at: int, kind: int, depth: int) -> int:
    if depth > _MAX_DEPTH:
        raise ValueError("a page's header is nested too deeply")
    if kind == _BYTE or kind in _BOOLEANS:  # booleans take a byte in lists only
        return at + 1
    if kind in _INTEGERS:
        return _integer(data, at)[1]
    if kind == _DOUBLE:
        return at + 8
    if kind == _BINARY:
        num_bytes, at = _varint(data, at)
        return at + num_bytes
    if kind == _STRUCT:
        return _struct(data, at, {}, depth + 1)
    if kind not in _LISTS:
        raise ValueError("no header of a page")
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _varint(data, at)
    for _ in range(count):
        at = _skip(data, at, kind, depth + 1)
        data[at - 1]  # a list without end ends with the data
    return at


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without end")
