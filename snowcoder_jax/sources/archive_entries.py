"""The entries of a tar or zip archive, one after the other, in bounded memory and linear time.

`tarfile` and `zipfile` trust what an archive states in several places: zipfile unpacks BZIP2 and
LZMA without a limit on what comes out, and tarfile reads headers of any size, extended ones in
quadratic time (CVE-2024-6232).
"""

from __future__ import annotations

import bz2
import copy
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from snowcoder_jax.sources import paths

MAX_MEMBERS = 200_000
# All that stands before a member of a tar: extended headers, long names, maps of holes.
MAX_HEADER_BYTES = 64 * 1024
MAX_NUMBER_DIGITS = 20
# Of a zip, which zipfile takes into memory whole.
MAX_DIRECTORY_BYTES = 64 * 1024**2
_WIDE_RECORD_BYTES, _LOCATOR_BYTES = 56, 20
# LZMA keeps this much of what it unpacked; 7-Zip's strongest preset takes 64 MiB.
MAX_DICTIONARY_BYTES = 64 * 1024**2

FAULTS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,  # a compression method or encryption that zipfile lacks
    RuntimeError,  # an encrypted zip member
    ValueError,
    UnicodeError,
    OverflowError,
    MemoryError,  # of a decoder that a forged header asks for too much
)

# What an archive yields: index, name, stated size, kind, and a function that opens the member.
Entry = tuple[int, str, int, str, Callable[[], Any]]


class ArchiveError(ValueError):
    """An archive cannot be read; the text is the ledger's reason."""


def entries(path: str) -> Iterator[Entry]:
    """All but the folders of an archive.

    Raises:
      ArchiveError or one of `FAULTS`: it cannot be read, or not on from there.
    """
    with paths.open_file(path) as file:
        if path.lower().endswith(".zip"):
            yield from _zip_entries(file)
        else:
            yield from _tar_entries(file, path.lower())


def _zip_entries(file: IO[bytes]) -> Iterator[Entry]:
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise ArchiveError("archive_too_large")
        for index, info in enumerate(infos):
            if info.filename.endswith("/"):  # `is_dir` fails where a name is empty
                continue
            kind = "symlink" if (info.external_attr >> 16) & 0o170000 == 0o120000 else "file"

            def open_member(info: zipfile.ZipInfo = info) -> Any:
                return _open_zip_member(archive, info)

            yield index, info.filename, info.file_size, kind, open_member


def _open_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return archive.open(info)
    if info.compress_type not in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        raise NotImplementedError(f"compression method {info.compress_type}")
    packed = copy.copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC  # it is of what comes out
    stream = archive.open(packed)
    if info.compress_type == zipfile.ZIP_BZIP2:
        return _Unpacked(bz2.BZ2File(stream), info)
    _, num_bytes = struct.unpack("<HH", stream.read(4))
    if num_bytes != 5:
        raise zipfile.BadZipFile("LZMA properties")
    settings, dictionary_bytes = struct.unpack("<BI", stream.read(5))
    if dictionary_bytes > MAX_DICTIONARY_BYTES:
        raise NotImplementedError(f"LZMA dictionary of {dictionary_bytes} bytes")
    lzma_filter = {
        "id": lzma.FILTER_LZMA1,
        "dict_size": max(dictionary_bytes, 4096),
        "lc": settings % 9,
        "lp": settings // 9 % 5,
        "pb": settings // 45,
    }
    return _Unpacked(lzma.LZMAFile(stream, format=lzma.FORMAT_RAW, filters=[lzma_filter]), info)


class _Unpacked:
    """What a member unpacks to, up to its stated size, where its checksum must fit."""

    def __init__(self, stream: IO[bytes], info: zipfile.ZipInfo) -> None:
        self._stream = stream
        self._left = info.file_size
        self._checksum, self._stated = 0, info.CRC

    def __enter__(self) -> _Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, num_bytes: int) -> bytes:
        data = self._stream.read(min(num_bytes, self._left))
        self._checksum = zlib.crc32(data, self._checksum)
        self._left -= len(data)
        if (self._left == 0 or not data) and self._checksum != self._stated:
            raise zipfile.BadZipFile("checksum")
        return data


def _check_directory(file: IO[bytes]) -> None:
    """Refuse a zip whose directory, which zipfile takes into memory whole, is huge."""
    file.seek(0, 2)
    # The end record, the longest comment, and the 64-bit form's record and locator before it.
    start = max(0, file.tell() - (22 + 0xFFFF + _WIDE_RECORD_BYTES + _LOCATOR_BYTES))
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise ArchiveError("broken_archive")
    (num_bytes,) = struct.unpack_from("<I", tail, at + 12)
    # Where there is a 64-bit form, zipfile goes by it, whatever the short one says.
    locator = at - _LOCATOR_BYTES
    if locator >= 0 and tail.startswith(b"PK\6\7", locator):
        wide = tail.rfind(b"PK\6\6", 0, locator)
        if wide < 0 or locator < wide + _WIDE_RECORD_BYTES:
            raise ArchiveError("broken_archive")
        num_bytes = max(num_bytes, *struct.unpack_from("<Q", tail, wide + 40))
    if num_bytes > MAX_DIRECTORY_BYTES:
        raise ArchiveError("archive_too_large")
    file.seek(0)


def _tar_entries(file: IO[bytes], path: str) -> Iterator[Entry]:
    opener: Any = None
    if path.endswith((".gz", ".tgz")):
        opener = gzip.open
    elif path.endswith(".bz2"):
        opener = bz2.open
    elif path.endswith(".xz"):
        opener = lzma.open
    stream = opener(file, "rb") if opener else file
    reads = _BoundedReads(stream)
    with tarfile.open(fileobj=reads, mode="r:", tarinfo=_TarHeader) as archive:  # type: ignore[call-overload]
        index = -1
        while (info := archive.next()) is not None:
            reads.left = None
            archive.members = []  # else every header of the archive stays in memory
            index += 1
            if index >= MAX_MEMBERS:
                raise ArchiveError("archive_too_large")
            if info.size < 0:
                raise ArchiveError("broken_archive")
            if info.isdir():
                reads.left = MAX_HEADER_BYTES
                continue
            kind = "symlink" if info.issym() or info.islnk() else "other"
            kind = "file" if info.isreg() else kind

            def open_member(info: tarfile.TarInfo = info) -> IO[bytes]:
                found = archive.extractfile(info)
                assert found is not None, info.name
                return found

            yield index, info.name, info.size, kind, open_member
            reads.left = MAX_HEADER_BYTES
    # tarfile takes a damaged header for the end, which is a block of zeros or nothing at all.
    if reads.last.strip(b"\0") or len(reads.last) not in (0, tarfile.BLOCKSIZE):
        raise ArchiveError("broken_archive")


class _TarHeader(tarfile.TarInfo):
    """A member whose extended header is read in linear time, and of it what is of use.

    Global headers, in which git states a commit, are passed over; a file with holes in PAX's way
    is no regular file here.
    """

    def _proc_member(self, archive: Any) -> tarfile.TarInfo:  # tarfile's place to step in
        if self.type not in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
            header: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
            return header
        num_blocks = -(-self.size // tarfile.BLOCKSIZE)
        records = _pax_records(archive.fileobj.read(num_blocks * tarfile.BLOCKSIZE)[: self.size])
        try:
            member = self.fromtarfile(archive)
        except tarfile.HeaderError as e:
            raise tarfile.ReadError(str(e)) from None
        if self.type == tarfile.XGLTYPE:
            return member
        if "path" in records:
            member.name = records["path"].rstrip("/")
        if "linkpath" in records:
            member.linkname = records["linkpath"].rstrip("/")
        if "size" in records:
            if not records["size"].isdecimal() or len(records["size"]) > MAX_NUMBER_DIGITS:
                raise ArchiveError("broken_archive")
            member.size = int(records["size"])
            num_blocks = -(-member.size // tarfile.BLOCKSIZE) if _has_data(member) else 0
            archive.offset = member.offset_data + num_blocks * tarfile.BLOCKSIZE
        if any(keyword.startswith("GNU.sparse.") for keyword in records):
            member.name = records.get("GNU.sparse.name", member.name)
            member.type = _SPARSE_IN_PAX
        return member


_SPARSE_IN_PAX = b"?"


def _has_data(member: tarfile.TarInfo) -> bool:
    return member.isreg() or member.type not in tarfile.SUPPORTED_TYPES


def _pax_records(data: bytes) -> dict[str, str]:
    """Keyword -> value, of records of the form "LENGTH KEYWORD=VALUE", each with a new line."""
    records = {}
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + MAX_NUMBER_DIGITS)
        length = data[at:space] if space > at else b""
        end = at + int(length) if length.isdigit() else 0
        equals = data.find(b"=", space, end)
        if end > len(data) or equals < 0 or data[end - 1 : end] != b"\n":
            raise ArchiveError("broken_archive")
        keyword, value = data[space + 1 : equals], data[equals + 1 : end - 1]
        records[keyword.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        at = end
    return records


class _BoundedReads:
    """A stream that gives so much and no more where headers are read, which may be forged.

    Attributes:
      left: bytes that may still be read; None where what reads has bounds of its own.
      last: what the last read gave.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.left: int | None = MAX_HEADER_BYTES
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if self.left is not None:
            if not 0 <= size <= self.left:
                raise ArchiveError("broken_archive")
            self.left -= size
        self.last = self._stream.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
