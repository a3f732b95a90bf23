"""The files of a store of answers: how lines get there, and where in them the rows are."""

from __future__ import annotations

import array
import contextlib
import io
import os
import threading
import time
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from snowcoder_jax import storage
from snowcoder_jax.errors import MachineError
from snowcoder_jax.synthesis.stored_row import StoredRow, decode_line

# A full file is closed and its index written, so that a restart reads rows of few files.
MAX_FILE_BYTES = 64 << 20
# An object store cannot append: there, this much, or this long, makes one file.
REMOTE_BATCH_BYTES = 4 << 20
REMOTE_BATCH_SECONDS = 60.0
# What a killed process wrote stays with the system; against the machine's own death it is synced.
SYNC_SECONDS = 5.0

INDEX_SUFFIX = ".index.npz"
# Columns of an index: key; place and size of the row without its line break; what the meter adds.
COLUMNS = {
    "keys": "Q",
    "starts": "Q",
    "sizes": "I",
    "num_tokens": "I",
    "num_prompt_tokens": "I",
    "seconds": "f",
}
_MAX_TOKENS = 2**32 - 1


def can_be_indexed(row: StoredRow) -> bool:
    """Whether the row's counts of tokens fit into an index."""
    counts = (row.answer.num_tokens, row.answer.num_prompt_tokens)
    return all(0 <= count <= _MAX_TOKENS for count in counts)


class Entries:
    """The index of one file: a column an attribute of a row."""

    def __init__(self) -> None:
        self.columns: dict[str, array.array[Any]] = {n: array.array(c) for n, c in COLUMNS.items()}
        self.num_bytes = 0  # of the file, torn lines included

    def add(self, row: StoredRow, line: bytes) -> None:
        """Add the row of the file's next line; `line` has its line break."""
        values = (
            int(row.request.key, 16),
            self.num_bytes,
            len(line) - 1,
            row.answer.num_tokens,
            row.answer.num_prompt_tokens,
            row.seconds,
        )
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
        self.num_bytes += len(line)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: np.array(c, dtype=c.typecode) for name, c in self.columns.items()}

    def save(self, path: str) -> None:
        data = io.BytesIO()
        columns: dict[str, Any] = {"num_bytes": self.num_bytes, **self.arrays()}
        np.savez(data, **columns)
        storage.write_bytes(path + INDEX_SUFFIX, data.getvalue())


def load_entries(path: str, num_bytes: int) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """The index of a file of that size, and how many of its lines are torn.

    Where it has none, or had other bytes when that was made, its rows are read and it is saved. A
    row that cannot be indexed counts as torn: it is asked again.
    """
    with contextlib.suppress(FileNotFoundError, zipfile.BadZipFile, EOFError, ValueError, KeyError):
        saved = np.load(io.BytesIO(storage.read_bytes(path + INDEX_SUFFIX)), allow_pickle=False)
        if int(saved["num_bytes"]) == num_bytes:
            return {name: saved[name] for name in COLUMNS}, 0
    entries, num_torn = Entries(), 0
    with storage.open_read(path) as f:
        for line in f:
            row = decode_line(line.rstrip(b"\n"))
            if row is not None and can_be_indexed(row):
                entries.add(row, line if line.endswith(b"\n") else line + b"\n")
            else:
                num_torn += 1
                entries.num_bytes += len(line)
    # Of a file that another process is filling, this is out of date at once: its size tells.
    entries.num_bytes = min(entries.num_bytes, num_bytes)
    entries.save(path)
    return entries.arrays(), num_torn


class LocalFiles:
    """Files that grow by a line at a time, `STEM-00000.jsonl` and so on; none before a line."""

    def __init__(self, stem: str) -> None:
        self._stem = stem
        self._number = 0
        self._path = ""
        self._file: int | None = None
        self._entries = Entries()
        self._synced = time.monotonic()

    def append(self, row: StoredRow, line: bytes) -> None:
        if self._file is None:
            self._path = f"{self._stem}-{self._number:05d}.jsonl"
            self._file = self._open()
        with storage.machine_faults(self._path):
            # One write a line: what a killed process has written stays with the system.
            if os.write(self._file, line) != len(line):
                raise MachineError(
                    f"{self._path}: a line could not be written whole. Free some space and start "
                    "the same command again; what was finished is kept."
                )
            self._entries.add(row, line)
            now = time.monotonic()
            if now - self._synced >= SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = now
        if self._entries.num_bytes >= MAX_FILE_BYTES:
            self.close()

    def close(self) -> None:
        if self._file is None:
            return
        with storage.machine_faults(self._path):
            os.fsync(self._file)
            # An interrupt between these leaves it open and not closed twice.
            file, self._file = self._file, None
            os.close(file)
        self._entries.save(self._path)
        self._entries = Entries()
        self._number += 1

    def _open(self) -> int:
        with storage.machine_faults(self._path):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            return os.open(self._path, flags, 0o644)


class RemoteFiles:
    """On an object store: a file is a batch of lines; a kill costs the one being filled.

    A batch that has become old is written by a thread of its own, whether more lines come or not.
    """

    def __init__(self, stem: str) -> None:
        self._stem = stem
        self._number = 0
        self._lines: list[bytes] = []
        self._entries = Entries()
        self._since = 0.0
        self._lock = threading.RLock()
        self._timer = threading.Timer(0.0, self._close_old)

    def append(self, row: StoredRow, line: bytes) -> None:
        with self._lock:
            if not self._lines:
                self._since = time.monotonic()
                self._timer = threading.Timer(REMOTE_BATCH_SECONDS, self._close_old)
                self._timer.daemon = True
                self._timer.start()
            self._lines.append(line)
            self._entries.add(row, line)
            is_old = time.monotonic() - self._since >= REMOTE_BATCH_SECONDS
            if is_old or self._entries.num_bytes >= REMOTE_BATCH_BYTES:
                self.close()

    def close(self) -> None:
        """Write the batch. Where that is interrupted or fails, the next call writes it again."""
        with self._lock:
            self._timer.cancel()
            if not self._lines:
                return
            path = f"{self._stem}-{self._number:05d}.jsonl"
            storage.write_bytes(path, b"".join(self._lines))
            self._entries.save(path)
            self._number += 1
            self._lines, self._entries = [], Entries()

    def _close_old(self) -> None:
        # What fails here is tried again, and told, by the next answer or at the end.
        with contextlib.suppress(Exception):
            self.close()
