"""Repositories in tar and zip archives, read in place: nothing is extracted, everything bounded.

A member's stated size and path are not trusted: paths that would leave the archive are refused,
sizes are checked while reading, and an archive whose members add up to too much, or to too many
times its own size, is refused whole. Archives inside an archive are not opened. One top folder
around everything, as hosting sites make it, is no part of the paths.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from snowcoder_jax.errors import MachineError
from snowcoder_jax.sources import licenses, paths, walk
from snowcoder_jax.sources.documents import Item, LedgerRow, judge, printable
from snowcoder_jax.sources.paths import Entry
from snowcoder_jax.sources.walk import Candidate, NamedTree, TreeFile

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_TOTAL_BYTES = 4 * 1024**3
# Source code is seldom compressed to less than a twentieth.
MAX_RATIO = 200
MIN_TOTAL_BYTES = 64 * 1024**2
MAX_MEMBERS = 200_000
MAX_PATH_BYTES = 1_024
MAX_CONTROL_BYTES = 16 * 1024**2
# tarfile reads extended headers whole, zipfile its directory: no honest one comes near these.
MAX_HEADER_BYTES = 16 * 1024**2
MAX_DIRECTORY_BYTES = 64 * 1024**2

_FAULTS = (
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


class ArchiveError(ValueError):
    """An archive cannot be read; the text is the ledger's reason."""


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of an archive that is no folder.

    Attributes:
      index: its place in the archive.
      path: with its empty parts taken out; "" where it would leave the archive.
      name: as the archive has it.
      kind: "file", "symlink" (hard links too) or "other".
    """

    index: int
    path: str
    name: str
    size_bytes: int
    kind: str


# What an archive yields: index, name, stated size, kind, and a function that opens the member.
_Entry = tuple[int, str, int, str, Callable[[], IO[bytes]]]


def is_archive(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def stem(filename: str) -> str:
    """The file's name without the suffix of its kind: the name of the repository inside."""
    suffix = next(
        s for s in sorted(SUFFIXES, key=len, reverse=True) if filename.lower().endswith(s)
    )
    return filename[: -len(suffix)]


def read_repository(
    archive: Entry, repo: str, *, license_id: str, max_file_bytes: int
) -> Iterator[Item]:
    """The documents of an archive in its order, with a row of the ledger for all else."""
    try:
        members, control = scan(archive)
        tree, by_path, refused = _tree(members, control)
    except ArchiveError as e:
        yield LedgerRow(repo, printable(archive.name), str(e), archive.size_bytes)
        return
    yield from (LedgerRow(repo, m.name, "unsafe_path", m.size_bytes) for m in refused)
    wanted: dict[int, Candidate] = {}
    found = walk.walk(repo, tree, license_id=license_id, max_file_bytes=max_file_bytes)
    for item in found:
        if isinstance(item, Candidate):
            wanted[by_path[item.member]] = item
        else:
            yield item
    for index, data in _read(archive, set(wanted), max_file_bytes + 1):
        c = wanted.pop(index)
        yield judge(
            repo, c.path, data, max_file_bytes, license_id=c.license, size_bytes=c.size_bytes
        )
    yield from (LedgerRow(repo, c.path, "unreadable", c.size_bytes) for c in wanted.values())


def scan(
    archive: Entry, max_total_bytes: int | None = None
) -> tuple[list[Member], dict[int, bytes]]:
    """The members of an archive, and what is in those that tell of ignored paths and licences.

    Raises:
      ArchiveError: "broken_archive" or "archive_too_large".
    """
    if max_total_bytes is None:
        limit = max(MIN_TOTAL_BYTES, MAX_RATIO * archive.size_bytes)
        max_total_bytes = min(MAX_TOTAL_BYTES, limit)
    members: list[Member] = []
    control: dict[int, bytes] = {}
    total = control_bytes = 0
    try:
        for index, name, size, kind, open_member in _entries(archive.path):
            total += size
            if total > max_total_bytes:
                raise ArchiveError("archive_too_large")
            path = safe_path(name)
            members.append(Member(index, path, printable(name), size, kind))
            folder, _, filename = path.rpartition("/")
            is_control = kind == "file" and walk.is_control(folder, filename)
            if is_control and control_bytes < MAX_CONTROL_BYTES:
                with open_member() as file:
                    control[index] = file.read(licenses.MAX_BYTES)
                control_bytes += len(control[index])
    except (ArchiveError, MachineError):
        raise
    except _FAULTS as e:
        raise ArchiveError("broken_archive") from e
    return members, control


def safe_path(name: str) -> str:
    """A member's path inside the archive, or "" where it is none."""
    parts = name.replace("\\", "/").split("/")
    is_safe = (
        not name.startswith(("/", "\\"))
        and ".." not in parts
        and ":" not in parts[0]
        and "\0" not in name
        and len(name.encode("utf-8", "surrogateescape")) <= MAX_PATH_BYTES
    )
    return "/".join(p for p in parts if p not in ("", ".")) if is_safe else ""


def _tree(
    members: list[Member], control: dict[int, bytes]
) -> tuple[NamedTree, dict[str, int], list[Member]]:
    """A tree of the members, their indices by path in it, and those that have no safe path."""
    safe = [m for m in members if m.path]
    tops = {m.path.partition("/")[0] for m in safe}
    top = f"{tops.pop()}/" if len(tops) == 1 and all("/" in m.path for m in safe) else ""
    by_path: dict[str, int] = {}

    def read(path: str, num_bytes: int) -> bytes:
        data = control.get(by_path.get(path, -1))
        if data is None:
            raise FileNotFoundError(path)
        return data[:num_bytes]

    tree = NamedTree(read)
    for member in safe:
        path = member.path[len(top) :]
        # Of two members with one name the first counts.
        if path not in by_path:
            by_path[path] = member.index
            folder, _, name = path.rpartition("/")
            tree.add(folder, TreeFile(name, member.size_bytes, kind=member.kind))
            if tree.num_folders > MAX_MEMBERS:
                raise ArchiveError("archive_too_large")
    return tree, by_path, [m for m in members if not m.path]


def _read(archive: Entry, wanted: set[int], num_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """At most so many bytes of each wanted member, None for one that is damaged, in the
    archive's order; what comes after the place where the archive breaks off is missing."""
    try:
        for index, _, _, _, open_member in _entries(archive.path):
            if index not in wanted:
                continue
            data: bytes | None = None
            try:
                with open_member() as file:
                    data = _read_up_to(file, num_bytes)
            except MachineError:
                raise
            except _FAULTS:
                if not archive.path.lower().endswith(".zip"):
                    return  # a stream cannot go on after its damage
            yield index, data
    except MachineError:
        raise
    except _FAULTS:
        return


def _read_up_to(file: IO[bytes], num_bytes: int) -> bytes:
    pieces = []
    while num_bytes > 0 and (piece := file.read(min(num_bytes, 1 << 20))):
        pieces.append(piece)
        num_bytes -= len(piece)
    return b"".join(pieces)


def _entries(path: str) -> Iterator[_Entry]:
    with paths.open_file(path) as file:
        if path.lower().endswith(".zip"):
            yield from _zip_entries(file)
        else:
            yield from _tar_entries(file, path.lower())


def _zip_entries(file: IO[bytes]) -> Iterator[_Entry]:
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise ArchiveError("archive_too_large")
        for index, info in enumerate(infos):
            if info.filename.endswith("/"):  # `is_dir` fails where a name is empty
                continue
            kind = "symlink" if (info.external_attr >> 16) & 0o170000 == 0o120000 else "file"

            def open_member(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return archive.open(info)

            yield index, info.filename, info.file_size, kind, open_member


def _check_directory(file: IO[bytes]) -> None:
    """Refuse a zip whose directory, which zipfile takes into memory whole, is huge."""
    file.seek(0, 2)
    start = max(0, file.tell() - 65_557)  # the end record and the longest comment
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise ArchiveError("broken_archive")
    (num_bytes,) = struct.unpack_from("<I", tail, at + 12)
    # The 64-bit form says all ones here, and the size in a record of its own before this one.
    if num_bytes == 0xFFFFFFFF and (wide := tail.rfind(b"PK\6\6", 0, at)) >= 0:
        (num_bytes,) = struct.unpack_from("<Q", tail, wide + 40)
    if num_bytes > MAX_DIRECTORY_BYTES:
        raise ArchiveError("archive_too_large")
    file.seek(0)


def _tar_entries(file: IO[bytes], path: str) -> Iterator[_Entry]:
    opener: Any = None
    if path.endswith((".gz", ".tgz")):
        opener = gzip.open
    elif path.endswith(".bz2"):
        opener = bz2.open
    elif path.endswith(".xz"):
        opener = lzma.open
    stream = opener(file, "rb") if opener else file
    reads = _BoundedReads(stream)
    with tarfile.open(fileobj=reads, mode="r:") as archive:  # type: ignore[call-overload]
        index = -1
        while (info := archive.next()) is not None:
            archive.members = []  # else every header of the archive stays in memory
            index += 1
            if index >= MAX_MEMBERS:
                raise ArchiveError("archive_too_large")
            if info.size < 0:
                raise ArchiveError("broken_archive")
            if info.isdir():
                continue
            kind = "symlink" if info.issym() or info.islnk() else "other"
            kind = "file" if info.isreg() else kind

            def open_member(info: tarfile.TarInfo = info) -> IO[bytes]:
                found = archive.extractfile(info)
                assert found is not None, info.name
                return found

            yield index, info.name, info.size, kind, open_member
    # tarfile takes a damaged header for the end, which is a block of zeros or nothing at all.
    if reads.last.strip(b"\0") or len(reads.last) not in (0, tarfile.BLOCKSIZE):
        raise ArchiveError("broken_archive")


class _BoundedReads:
    """A stream that refuses one huge read, which a forged tar header asks for.

    Attributes:
      last: what the last read gave.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_HEADER_BYTES:
            raise ArchiveError("broken_archive")
        self.last = self._stream.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
