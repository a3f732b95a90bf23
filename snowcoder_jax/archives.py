"""Reading tar and zip archives in place: nothing is extracted, everything is bounded.

A member's stated size and path are not trusted: paths that would leave the archive are refused,
sizes are checked while reading, and an archive whose members add up to too much is refused whole.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_TOTAL_BYTES = 4 * 1024**3
MAX_MEMBERS = 200_000
# tarfile reads extended headers whole: no honest one comes near this.
MAX_HEADER_BYTES = 16 * 1024**2

_FAULTS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,  # a compression method or encryption that zipfile lacks
    RuntimeError,  # an encrypted zip member
    ValueError,
    UnicodeError,
    OverflowError,
)


class ArchiveError(ValueError):
    """An archive cannot be read; the text is the ledger's reason."""


@dataclass(frozen=True)
class Member:
    """A file inside an archive: its path, checked, and its stated size."""

    path: str
    size_bytes: int


def is_archive(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def stem(filename: str) -> str:
    """The file's name without the suffix of its kind: the name of the repository inside."""
    suffix = next(
        s for s in sorted(SUFFIXES, key=len, reverse=True) if filename.lower().endswith(s)
    )
    return filename[: -len(suffix)]


def is_safe(path: str) -> bool:
    """Whether a member's path stays inside the archive."""
    parts = path.replace("\\", "/").split("/")
    return (
        bool(path)
        and not path.startswith(("/", "\\"))
        and ".." not in parts
        and ":" not in parts[0]
    )


def list_members(path: str, max_total_bytes: int = MAX_TOTAL_BYTES) -> list[Member]:
    """The regular files of an archive; links and devices are left out.

    Raises:
      ArchiveError: "broken_archive" or "archive_too_large".
    """
    try:
        return [Member(name, size) for name, size, _ in _entries(path, max_total_bytes)]
    except ArchiveError:
        raise
    except _FAULTS as e:
        raise ArchiveError("broken_archive") from e


def read_members(
    path: str, wanted: set[str], max_file_bytes: int, max_total_bytes: int = MAX_TOTAL_BYTES
) -> Iterator[tuple[str, bytes]]:
    """The wanted members in the archive's order, at most `max_file_bytes + 1` bytes of each.

    Raises:
      ArchiveError: see `list_members`; what came before it was yielded.
    """
    try:
        for name, _, file in _entries(path, max_total_bytes, wanted):
            if file is not None:
                yield name, file.read(max_file_bytes + 1)
    except ArchiveError:
        raise
    except _FAULTS as e:
        raise ArchiveError("broken_archive") from e


def _entries(
    path: str, max_total_bytes: int, wanted: set[str] | None = None
) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    entries = _zip_entries if path.lower().endswith(".zip") else _tar_entries
    total = 0
    for count, entry in enumerate(entries(path, wanted or set())):
        total += entry[1]
        if total > max_total_bytes or count >= MAX_MEMBERS:
            raise ArchiveError("archive_too_large")
        yield entry


def _zip_entries(path: str, wanted: set[str]) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            if info.is_dir() or is_link:
                continue
            if info.filename in wanted:
                with archive.open(info) as file:
                    yield info.filename, info.file_size, file
            else:
                yield info.filename, info.file_size, None


def _tar_entries(path: str, wanted: set[str]) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    with (
        _open_tar_stream(path) as stream,
        tarfile.open(fileobj=_BoundedReads(stream), mode="r:") as archive,  # type: ignore[call-overload]
    ):
        while (info := archive.next()) is not None:
            archive.members = []  # else every header of the archive stays in memory
            if not info.isreg():
                continue
            file = archive.extractfile(info) if info.name in wanted else None
            yield info.name, info.size, file


def _open_tar_stream(path: str) -> IO[bytes]:
    name = path.lower()
    opener: Any = open
    if name.endswith((".gz", ".tgz")):
        opener = gzip.open
    elif name.endswith(".bz2"):
        opener = bz2.open
    elif name.endswith(".xz"):
        opener = lzma.open
    return opener(path, "rb")


class _BoundedReads:
    """A stream that refuses one huge read, which a forged tar header asks for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_HEADER_BYTES:
            raise ArchiveError("broken_archive")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
