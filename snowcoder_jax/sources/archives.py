"""Repositories in tar and zip archives, read in place: nothing is extracted, everything bounded.

A member's stated size and path are not trusted: paths that would leave the archive are refused,
sizes are checked while reading, and an archive whose members add up to too much, or to too many
times its own size, is refused whole. Archives inside an archive are not opened. One top folder
around everything, as hosting sites make it, is no part of the paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from snowcoder_jax.errors import MachineError
from snowcoder_jax.sources import licenses, walk
from snowcoder_jax.sources.archive_entries import FAULTS, MAX_MEMBERS, ArchiveError, entries
from snowcoder_jax.sources.documents import Item, LedgerRow, judge, printable, safe_path
from snowcoder_jax.sources.paths import Entry
from snowcoder_jax.sources.walk import Candidate, NamedTree, TreeFile

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_TOTAL_BYTES = 4 * 1024**3
# Source code is seldom compressed to less than a twentieth.
MAX_RATIO = 200
MIN_TOTAL_BYTES = 64 * 1024**2
MAX_CONTROL_BYTES = 16 * 1024**2


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
        for index, name, size, kind, open_member in entries(archive.path):
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
    except FAULTS as e:
        raise ArchiveError("broken_archive") from e
    return members, control


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
        for index, _, _, _, open_member in entries(archive.path):
            if index not in wanted:
                continue
            data: bytes | None = None
            try:
                with open_member() as file:
                    data = _read_up_to(file, num_bytes)
            except MachineError:
                raise
            except FAULTS:
                if not archive.path.lower().endswith(".zip"):
                    return  # a stream cannot go on after its damage
            yield index, data
    except MachineError:
        raise
    except FAULTS:
        return


def _read_up_to(file: IO[bytes], num_bytes: int) -> bytes:
    pieces = []
    while num_bytes > 0 and (piece := file.read(min(num_bytes, 1 << 20))):
        pieces.append(piece)
        num_bytes -= len(piece)
    return b"".join(pieces)
