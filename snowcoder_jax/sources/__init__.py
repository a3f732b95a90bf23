"""The recipe's sources: what there is to read, and reading it.

`parts` cuts a source into pieces that can be read alone, in any order; `read` gives what one of
them holds: documents, and a row of the ledger for each file that cannot become one, never an
exception. `fingerprint` says cheaply whether any of it has changed. A path that is not valid UTF-8
appears with its bytes escaped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_corpus import FolderSource, InstalledSource, ParquetSource, Source
from snowcoder_jax.sources import archives, installed, licenses, paths, tables, walk
from snowcoder_jax.sources.documents import Item, LedgerRow, judge, printable
from snowcoder_jax.sources.paths import Entry
from snowcoder_jax.sources.walk import Candidate, NamedTree, Tree

# A piece of a table: so many bytes of its files, as they unpack (Parquet) or lie there (JSON). Few
# in a small source, so that several workers have something to read; every shard asks every piece.
_PIECES_OF_TABLES = 16
_MIN_PIECE_BYTES = 16 * 1024**2
_MAX_PIECE_BYTES = 256 * 1024**2
# Repositories that make a piece: few, so that there are pieces enough for many workers.
_PIECES_OF_FOLDER = 512
_MAX_REPOSITORIES = 256


@dataclass(frozen=True)
class Part:
    """A piece of a source that is read in one go.

    Attributes:
      kind: a folder that is a repository, an archive of one, a folder whose own files (without
        those of its folders) make one, an installed distribution, or rows of a table.
      path: of the folder or file; "" for a distribution.
      repo: name of the repository; for a table of the rows that name none.
      license: what holds where neither the repository nor a file says another.
      first_group, num_groups: row groups of a Parquet file.
    """

    kind: Literal["repository", "archive", "loose", "installed", "parquet", "jsonl"]
    path: str
    repo: str
    license: str = ""
    first_group: int = 0
    num_groups: int = 0


@dataclass(frozen=True)
class Limits:
    """What holds for every source: the largest file, and repositories (in lower case) that want
    no part in it."""

    max_file_bytes: int
    opted_out: frozenset[str] = frozenset()


def load_opt_out(path: str | None) -> frozenset[str]:
    """The repositories of an opt-out list in lower case: one a line, `#` starts a comment."""
    if path is None:
        return frozenset()
    text = storage.read_bytes(path).decode("utf-8-sig", "replace")
    lines = (re.sub(r"(?:^|\s)#.*", "", line).strip() for line in text.splitlines())
    return frozenset(line.casefold() for line in lines if line)


def repositories(source: InstalledSource, seed: int) -> list[str]:
    """The distributions of a source by name, after its sample and what it excludes."""
    excluded = {installed.normalise(n) for n in (installed.OWN_DISTRIBUTION, *source.exclude)}
    return [
        repo
        for repo in sorted({installed.STANDARD_LIBRARY, *installed.distributions()})
        if repo not in excluded and storage.seeded_share(seed, "sample", repo) < source.sample_share
    ]


def parts(source: Source, *, seed: int) -> list[tuple[Part, ...]]:
    """The parts of a source, put together into pieces of a fair size, in one order.

    Raises:
      OSError: what holds the source cannot be read.
      InputError: two repositories cannot be told apart by name.
    """
    if isinstance(source, InstalledSource):
        return [(Part("installed", "", repo),) for repo in repositories(source, seed)]
    if isinstance(source, FolderSource):
        places = paths.expand(source.path)
        found = _with_own_names([part for place in places for part in _folder(source, place)])
        size = min(-(-len(found) // _PIECES_OF_FOLDER), _MAX_REPOSITORIES)
        return [tuple(found[i : i + size]) for i in range(0, len(found), size or 1)]
    pieces: list[tuple[Part, ...]] = []
    piece: list[Part] = []
    num_bytes = 0
    smallest = list(_table_parts(source))
    even_bytes = sum(size for _, size in smallest) // _PIECES_OF_TABLES
    most_bytes = min(max(even_bytes, _MIN_PIECE_BYTES), _MAX_PIECE_BYTES)
    for part, size in smallest:
        if piece and num_bytes + size > most_bytes:
            pieces.append(tuple(piece))
            piece, num_bytes = [], 0
        if piece and piece[-1].path == part.path:
            before = piece.pop()
            part = replace(before, num_groups=before.num_groups + 1)
        piece.append(part)
        num_bytes += size
    return [*pieces, tuple(piece)] if piece else pieces


def _folder(source: FolderSource, place: str) -> Iterator[Part]:
    """The repositories at one place: a folder of them, one of them, or an archive."""
    own_name = printable(paths.basename(_whole_path(place)))
    at, stated = paths.entry(place), source.license or ""
    if at.kind != "folder":
        if archives.is_archive(place):
            yield Part("archive", place, archives.stem(own_name), stated)
        return
    if source.layout == "repository":
        yield Part("repository", place, own_name, stated)
        return
    inside = paths.children(place)
    names = [e.name for e in inside if e.kind != "folder" and licenses.is_license_file(e.name)]
    above = [_head(f"{place}/{name}") for name in names]
    license_id = licenses.from_files(above) if above else stated
    # Files beside the repositories make one of their own, named after the folder.
    yield Part("loose", place, own_name, license_id)
    for entry in inside:
        name = printable(entry.name)
        if entry.kind == "folder" and not _is_no_repository(entry.name):
            yield Part("repository", entry.path, name, license_id)
        elif entry.kind == "file" and archives.is_archive(entry.name):
            yield Part("archive", entry.path, archives.stem(name), license_id)


def _whole_path(place: str) -> str:
    return os.path.abspath(place) if storage.is_local(place) else place.rstrip("/")


def _with_own_names(found: list[Part]) -> list[Part]:
    """The parts, each once. Of those that share a name each gets the end of its path, as long as
    it takes to tell them apart."""
    found = list({(part.kind, part.path): part for part in found}.values())
    names = [part.repo for part in found]
    num_parts = [0] * len(found)
    while len(counts := Counter(names)) < len(names):
        for i in (i for i, name in enumerate(names) if counts[name] > 1):
            path = _whole_path(found[i].path).split("/")
            num_parts[i] += 1
            if num_parts[i] > len(path):
                raise InputError(
                    f"{found[i].path}: another repository has the name `{names[i]}`, too. "
                    "Rename one of them, or make each a source of its own."
                )
            end = "/".join(path[-num_parts[i] :])
            names[i] = printable(end + (".files" if found[i].kind == "loose" else ""))
    return [replace(part, repo=name) for part, name in zip(found, names, strict=True)]


def _is_opted_out(part: Part, limits: Limits) -> bool:
    """By its name, or the end of its path: `owner/name`, whatever other repositories there are."""
    names = [part.repo, part.repo.rpartition("/")[2]]
    pieces = _whole_path(part.path).split("/")
    names += [printable("/".join(pieces[i:])) for i in range(len(pieces) - 1)]
    names += [archives.stem(name) for name in names if archives.is_archive(name)]
    return any(name.casefold() in limits.opted_out for name in names)


def _is_no_repository(folder: str) -> bool:
    return folder.startswith(".") or folder in ("node_modules", "__pycache__")


def _head(path: str) -> str:
    try:
        with paths.open_file(path) as f:
            return f.read(licenses.MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def table_files(source: Source) -> list[Entry]:
    is_parquet = isinstance(source, ParquetSource)
    suffixes = tables.PARQUET_SUFFIXES if is_parquet else tables.JSONL_SUFFIXES
    return paths.tables(source.path, suffixes)  # type: ignore[union-attr]


def _table_parts(source: Source) -> Iterator[tuple[Part, int]]:
    """The smallest parts of tables, files or row groups, and their bytes."""
    for file in table_files(source):
        if not isinstance(source, ParquetSource):
            yield Part("jsonl", file.path, source.name), file.size_bytes
            continue
        groups = tables.row_groups(file.path)
        for i, size in enumerate(groups):
            yield Part("parquet", file.path, source.name, first_group=i, num_groups=1), size
        if not groups:  # broken, or empty: reading says which
            yield Part("parquet", file.path, source.name), 0


def read(source: Source, part: Part, limits: Limits) -> Iterator[Item]:
    """What a part holds: a document, a row of the ledger, or None for a file in none of the 18
    languages. One text is in memory at a time, and no more than a repository's list of files."""
    if part.kind in ("parquet", "jsonl"):
        yield from _read_table(source, part, limits)
    elif _is_opted_out(part, limits):
        yield LedgerRow(part.repo, "", "opted_out")
    elif part.kind == "archive":
        yield from archives.read_repository(
            paths.entry(part.path),
            part.repo,
            license_id=part.license,
            max_file_bytes=limits.max_file_bytes,
        )
    else:
        for tree, items in _walks(part, limits.max_file_bytes):
            for item in items:
                if isinstance(item, Candidate):
                    yield _read_file(part.repo, tree, item, limits.max_file_bytes)
                else:
                    yield item


def _read_table(source: Source, part: Part, limits: Limits) -> Iterator[Item]:
    assert not isinstance(source, (InstalledSource, FolderSource)), source
    names = tables.columns(source.layout, source.columns)
    if part.kind == "jsonl":
        yield from tables.read_jsonl(
            part.repo, part.path, names,
            opted_out=limits.opted_out, max_file_bytes=limits.max_file_bytes,
        )  # fmt: skip
        return
    yield from tables.read_parquet(
        part.repo, part.path, names, first_group=part.first_group, num_groups=part.num_groups,
        opted_out=limits.opted_out, max_file_bytes=limits.max_file_bytes,
    )  # fmt: skip


def _read_file(repo: str, tree: Tree, found: Candidate, max_file_bytes: int) -> Item:
    data: bytes | None = None
    with contextlib.suppress(OSError):
        data = tree.read(found.member, max_file_bytes + 1)
    return judge(
        repo,
        found.path,
        data,
        max_file_bytes,
        license_id=found.license,
        size_bytes=found.size_bytes,
    )


def _walks(
    part: Part, max_file_bytes: int
) -> Iterator[tuple[Tree, Iterator[Candidate | LedgerRow | None]]]:
    if part.kind == "installed":
        yield from installed.trees(part.repo, max_file_bytes)
        return
    tree: Tree
    if part.kind == "loose":
        tree = _loose_files(part.path)
    elif storage.is_local(part.path):
        tree = walk.LocalTree(part.path)
    else:
        tree = walk.remote_tree(part.path)
    yield tree, walk.walk(part.repo, tree, license_id=part.license, max_file_bytes=max_file_bytes)


def _loose_files(folder: str) -> Tree:
    """The files of a folder of repositories that stand beside them, without archives."""
    tree = NamedTree(walk.reader(folder))
    for entry in paths.children(folder):
        if entry.kind == "folder" and _is_no_repository(entry.name):
            tree.list("").folders.append(entry.name)  # the walk says why it is not entered
        elif entry.kind != "folder" and not archives.is_archive(entry.name):
            tree.add("", walk.TreeFile(entry.name, entry.size_bytes, entry.changed, entry.kind))
    return tree


def fingerprint(source: Source, limits: Limits, *, seed: int) -> str:
    """16 hex digits that change when a file comes, goes, or is written to.

    Folders are walked and files are not opened, but those that say what to ignore and which
    licence holds; archives and tables are known by their size and time of change.
    """
    digest = hashlib.sha256()

    def add(*facts: object) -> None:
        digest.update(repr(facts).encode())

    for part in (part for piece in _cheap_parts(source, seed) for part in piece):
        add(part)
        if part.kind in ("archive", "parquet", "jsonl"):
            entry = paths.entry(part.path)
            add(entry.size_bytes, entry.changed)
        elif not _is_opted_out(part, limits):
            for _, items in _walks(part, limits.max_file_bytes):
                for item in items:
                    if item is not None:
                        add(*dataclasses.astuple(item))
    return digest.hexdigest()[:16]


def _cheap_parts(source: Source, seed: int) -> Sequence[Sequence[Part]]:
    if isinstance(source, (InstalledSource, FolderSource)):
        return parts(source, seed=seed)
    return [[Part("jsonl", file.path, source.name) for file in table_files(source)]]
