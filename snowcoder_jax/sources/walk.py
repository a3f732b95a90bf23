"""A repository's files by its own rules and Linguist's: what to read, and what not and why.

The rules are the same for a folder, an archive and a URL: folders of version control are passed
over; ignored, vendored, generated and hidden folders are not entered and have one row in the
ledger; symbolic links are never followed. The licence of a file is that of the nearest folder
above it which states one, by a licence file or else by package metadata, else what the recipe
states; a licence file that is not recognised leaves it unknown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from snowcoder_jax import languages
from snowcoder_jax.sources import attributes, ignores, licenses, path_rules, paths
from snowcoder_jax.sources.attributes import Attributes
from snowcoder_jax.sources.documents import LedgerRow, printable
from snowcoder_jax.sources.ignores import Ignores

GIT_EXCLUDE = ".git/info/exclude"
_PASSED_OVER = frozenset({".git", ".hg", ".svn", ".bzr", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to read.

    Attributes:
      path: in the repository, printable.
      member: what the tree knows it by.
      license: that it inherits; "" where unknown.
    """

    path: str
    member: str
    license: str
    size_bytes: int
    changed: int


@dataclass(frozen=True, slots=True)
class TreeFile:
    name: str
    size_bytes: int
    changed: int = 0
    kind: str = "file"


@dataclass(slots=True)
class Folder:
    """What is directly inside a folder: names, and the number of files that are not of interest."""

    folders: list[str] = field(default_factory=list)
    files: list[TreeFile] = field(default_factory=list)
    num_other: int = 0


class Tree(Protocol):
    """The files of a repository. Paths are relative to its root; the root itself is ""."""

    def list(self, folder: str) -> Folder:
        """Raises OSError where it cannot be read."""

    def read(self, path: str, num_bytes: int) -> bytes:
        """At most that many bytes of a file. Raises OSError."""


def is_of_interest(folder: str, name: str) -> bool:
    return languages.may_be_code(name) or is_control(folder, name)


def is_control(folder: str, name: str) -> bool:
    """Whether a file says something of the others: what to ignore, which licence."""
    return (
        name in (".gitignore", attributes.FILENAME)
        or licenses.is_license_file(name)
        or licenses.is_metadata_file(name)
        or paths.basename(folder) == licenses.REUSE_FOLDER
        or f"{folder}/{name}" == GIT_EXCLUDE
    )


class LocalTree:
    """A folder of this machine. Names keep bytes that are not UTF-8 as surrogates."""

    def __init__(self, root: str) -> None:
        self._root = root

    def list(self, folder: str) -> Folder:
        found = Folder()
        with os.scandir(os.path.join(self._root, folder)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.folders.append(entry.name)
                elif is_of_interest(folder, entry.name):
                    found.files.append(self._file(entry))
                else:
                    found.num_other += 1
        return found

    def _file(self, entry: os.DirEntry[str]) -> TreeFile:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return TreeFile(entry.name, 0, kind="other")
        kind = paths.kind_of(status.st_mode)
        return TreeFile(entry.name, status.st_size, status.st_mtime_ns, kind)

    def read(self, path: str, num_bytes: int) -> bytes:
        return reader(self._root)(path, num_bytes)


class NamedTree:
    """A tree made of files that are named one by one; it is read by a function of the path."""

    def __init__(self, read: Callable[[str, int], bytes]) -> None:
        self.read = read
        self._folders: dict[str, Folder] = {"": Folder()}

    def add(self, folder: str, file: TreeFile) -> None:
        inside = self._folder(folder)
        if is_of_interest(folder, file.name):
            inside.files.append(file)
        else:
            inside.num_other += 1

    @property
    def num_folders(self) -> int:
        return len(self._folders)

    def _folder(self, folder: str) -> Folder:
        missing, path = [], folder
        while path not in self._folders:
            missing.append(path)
            path = path.rpartition("/")[0]
        for path in reversed(missing):
            above, _, name = path.rpartition("/")
            self._folders[path] = Folder()
            self._folders[above].folders.append(name)
        return self._folders[folder]

    def list(self, folder: str) -> Folder:
        return self._folders[folder]


def reader(root: str) -> Callable[[str, int], bytes]:
    """Reads files below a folder, local or at a URL."""

    def read(path: str, num_bytes: int) -> bytes:
        with paths.open_file(f"{root}/{path}") as f:
            return f.read(num_bytes)

    return read


def remote_tree(root: str) -> NamedTree:
    """The files below a folder at a URL."""
    root = root.rstrip("/")
    tree = NamedTree(reader(root))
    for entry in paths.below(root):
        folder = entry.path[len(root) + 1 :].rpartition("/")[0]
        tree.add(folder, TreeFile(entry.name, entry.size_bytes, entry.changed))
    return tree


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder to enter, and what holds there."""

    folder: str  # "" or with a slash at its end
    license: str
    ignores: Ignores
    attributes: Attributes


def walk(
    repo: str,
    tree: Tree,
    *,
    license_id: str,
    max_file_bytes: int,
    prefix: str = "",
    passed_over: frozenset[str] = frozenset(),
) -> Iterator[Candidate | LedgerRow | None]:
    """Candidates, rows of the ledger, and None for each file in none of the 18 languages.

    Args:
      license_id: what holds where no file of the repository says another, or may say one.
      prefix: goes before every path, as the part of the repository that the tree is.
      passed_over: names of more folders that are none of the repository's.
    """
    passed_over = _PASSED_OVER | passed_over
    stack = [_Place("", license_id, Ignores(), Attributes())]
    while stack:
        place = stack.pop()
        try:
            inside = tree.list(place.folder.rstrip("/"))
        except OSError:
            yield LedgerRow(repo, printable(prefix + place.folder), "unreadable")
            continue
        yield from (None for _ in range(inside.num_other))
        here = _Place(
            place.folder,
            _license(tree, place, inside),
            _with_own_ignores(tree, place, inside),
            _with_own_attributes(tree, place, inside),
        )
        for name in sorted(inside.folders, reverse=True):
            folder = f"{place.folder}{name}/"
            if name in passed_over:
                continue
            reason = _refused(folder, prefix, here)
            if reason and reason != "ignored" and here.attributes.may_take_back(reason, folder):
                reason = None
            if reason is None and name.startswith("."):
                reason = "hidden"
            if reason is None:
                stack.append(_Place(folder, here.license, here.ignores, here.attributes))
            else:
                yield LedgerRow(repo, printable(prefix + folder), reason)
        for file in sorted(inside.files, key=lambda f: f.name):
            yield _judge_file(repo, file, here, prefix, max_file_bytes)


def _judge_file(
    repo: str, file: TreeFile, place: _Place, prefix: str, max_file_bytes: int
) -> Candidate | LedgerRow | None:
    if not languages.may_be_code(file.name):
        return None
    member = place.folder + file.name
    path = printable(prefix + member)
    reason = _refused(member, prefix, place)
    if reason is None and file.kind != "file":
        reason = "symlink" if file.kind == "symlink" else "not_a_file"
    if reason is None and file.size_bytes > max_file_bytes:
        reason = "too_large"
    if reason is None:
        return Candidate(path, member, place.license, file.size_bytes, file.changed)
    if file.kind == "file" and not languages.has_known_name(file.name):
        return None  # no code by its name, and not to be read
    return LedgerRow(repo, path, reason, file.size_bytes)


def _refused(path: str, prefix: str, place: _Place) -> str | None:
    if place.ignores.cover(path):
        return "ignored"
    said = {} if path.endswith("/") else place.attributes.of(path)
    return path_rules.refused(prefix + path, said)


def _with_own_ignores(tree: Tree, place: _Place, inside: Folder) -> Ignores:
    names = []
    if not place.folder and ".git" in inside.folders:
        names.append(GIT_EXCLUDE)  # gives way to the files in the tree
    if any(f.name == ".gitignore" and f.kind == "file" for f in inside.files):
        names.append(".gitignore")
    rules = place.ignores
    for name in names:
        text = _text(tree, place.folder + name, ignores.MAX_BYTES)
        rules = rules if text is None else rules.with_file(place.folder, text)
    return rules


def _with_own_attributes(tree: Tree, place: _Place, inside: Folder) -> Attributes:
    if not any(f.name == attributes.FILENAME and f.kind == "file" for f in inside.files):
        return place.attributes
    text = _text(tree, place.folder + attributes.FILENAME, attributes.MAX_BYTES)
    return place.attributes if text is None else place.attributes.with_file(place.folder, text)


def _license(tree: Tree, place: _Place, inside: Folder) -> str:
    names = [f.name for f in inside.files if f.kind == "file" and licenses.is_license_file(f.name)]
    if licenses.REUSE_FOLDER in inside.folders:
        try:
            folder = tree.list(place.folder + licenses.REUSE_FOLDER)
        except OSError:
            folder = Folder()
        names += [f"{licenses.REUSE_FOLDER}/{f.name}" for f in folder.files if f.kind == "file"]
    texts = [_text(tree, place.folder + name, licenses.MAX_BYTES) for name in sorted(names)]
    if texts and (found := licenses.from_files(t or "" for t in texts)):
        return found
    metadata = {
        f.name: _text(tree, place.folder + f.name, licenses.MAX_BYTES) or ""
        for f in inside.files
        if f.kind == "file" and licenses.is_metadata_file(f.name)
    }
    # Terms that cannot be told are a reason against, whatever is stated further up.
    return licenses.from_metadata(metadata) or ("" if texts else place.license)


def _text(tree: Tree, path: str, num_bytes: int) -> str | None:
    try:
        return tree.read(path, num_bytes).decode("utf-8", "replace")
    except OSError:
        return None
