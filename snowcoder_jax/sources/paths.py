"""Folders and files of a source, local or at a URL: finding them, without reading them."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from dataclasses import dataclass
from typing import IO, Any

from snowcoder_jax import storage
from snowcoder_jax.errors import MachineError

_GLOB = "*?["


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder.

    Attributes:
      path: to open it with.
      kind: "file", "folder", "symlink", or "other" (a pipe, a device, a file that is gone).
      size_bytes: 0 for a folder.
      changed: a number that is another one once the file was written to.
    """

    path: str
    kind: str
    size_bytes: int
    changed: int

    @property
    def name(self) -> str:
        return basename(self.path)


def basename(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def expand(path: str) -> list[str]:
    """The paths that a path or glob stands for, in order: itself where it exists as it is written.

    Raises:
      InputError: the package that reaches this kind of storage is not installed.
    """
    if storage.exists(path):
        return [path.rstrip("/")]
    if not any(c in path for c in _GLOB):
        return []
    if storage.is_local(path):
        return storage.matches(path)
    fs, inner = storage._file_system(path)
    return sorted(str(fs.unstrip_protocol(found)) for found in fs.glob(inner))


def entry(path: str) -> Entry:
    """What is at a path that exists; a symbolic link named by the user is followed."""
    if storage.is_local(path):
        return _local(path, follow=True)
    fs, inner = storage._file_system(path)
    return _remote(fs, fs.info(inner))


def children(folder: str) -> list[Entry]:
    """What is directly inside a folder, by name.

    Raises:
      OSError: it cannot be read.
    """
    if storage.is_local(folder):
        return [_local(os.path.join(folder, name)) for name in sorted(os.listdir(folder))]
    fs, inner = storage._file_system(folder)
    found = [_remote(fs, info) for info in fs.ls(inner, detail=True)]
    # An object store may list the folder's own empty marker among what is inside.
    own = str(fs.unstrip_protocol(inner)).rstrip("/")
    return sorted((e for e in found if e.path.rstrip("/") != own), key=lambda e: e.path)


def below(folder: str) -> list[Entry]:
    """Every file below a folder at a URL, by path."""
    fs, inner = storage._file_system(folder)
    found = [_remote(fs, info) for info in fs.find(inner, detail=True).values()]
    return sorted((e for e in found if e.kind == "file"), key=lambda e: e.path)


def tables(path: str, suffixes: tuple[str, ...]) -> list[Entry]:
    """The files with one of the suffixes that a file, a folder or a glob of such holds, by path."""
    found = []
    for place in expand(path):
        at = entry(place)
        inside = storage.list_files(place) if at.kind == "folder" else [place]
        found += [p for p in inside if p.lower().endswith(suffixes)]
    return [entry(p) for p in sorted(set(found))]


def lstat(path: str) -> Entry:
    """A file or folder of this machine; "other" where it is gone."""
    return _local(path)


def open_file(path: str) -> IO[bytes]:
    """Open a file of a source to read.

    Raises:
      OSError: the file is not there, may not be read, or is a pipe or a device, of which there
        may be no end: a fault of this one file.
      MachineError: while opening or reading, the storage behind a URL fails. What is there must
        not be taken for missing.
    """
    if storage.is_local(path):
        if _local(path, follow=True).kind == "other" and os.path.exists(path):
            raise OSError(errno.EINVAL, "no regular file", path)
        return open(path, "rb")
    try:
        return io.BufferedReader(_RemoteFile(storage.open_read(path), path))
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except OSError as e:
        raise MachineError(f"{path}: cannot be read ({e}). Start the same command again.") from e


class _RemoteFile(io.RawIOBase):
    def __init__(self, file: IO[bytes], path: str) -> None:
        self._file = file
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except OSError as e:
            message = f"{self._path}: cannot be read ({e}). Start the same command again."
            raise MachineError(message) from e
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def close(self) -> None:
        self._file.close()
        super().close()


def _local(path: str, follow: bool = False) -> Entry:
    try:
        status = os.stat(path) if follow else os.lstat(path)
    except OSError:
        return Entry(path, "other", 0, 0)
    return Entry(path, kind_of(status.st_mode), status.st_size, status.st_mtime_ns)


def kind_of(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def _remote(fs: Any, info: dict[str, Any]) -> Entry:
    kind = {"file": "file", "directory": "folder"}.get(info["type"], "other")
    known = ("etag", "md5Hash", "generation", "mtime", "updated", "LastModified", "created")
    version = repr([info.get(name) for name in known]).encode()
    changed = int.from_bytes(hashlib.sha256(version).digest()[:8], "big")
    size = int(info.get("size") or 0) if kind == "file" else 0
    return Entry(str(fs.unstrip_protocol(info["name"])).rstrip("/"), kind, size, changed)
