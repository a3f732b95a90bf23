"""The store of a teacher's answers: appended as they come, found again by their keys.

A store is a folder that all asks of one teacher share, and all processes that ask it. A line of a
file is a `StoredRow`. Every process writes files of its own, so a kill leaves at most one torn
line, which its checksum gives away:

    answers-WORKER-SESSION-00000.jsonl    what the teacher wrote
    dead-WORKER-SESSION-00000.jsonl       dead letters: requests that cannot be answered
    FILE.index.npz                        where the rows of FILE are, made from it when missing

Dead letters are not asked again; to have them asked, remove their files. The next run then takes
its step that asks for another one, and makes anew what is made of the answers.
"""

from __future__ import annotations

import dataclasses
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from snowcoder_jax import storage
from snowcoder_jax.errors import MachineError
from snowcoder_jax.synthesis.answer_files import (
    COLUMNS,
    INDEX_SUFFIX,
    Entries,
    LocalFiles,
    RemoteFiles,
    can_be_indexed,
    load_entries,
)
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.stored_row import StoredRow, decode_line, encode_line

# Requests to an object store at once.
NUM_READERS = 32

# Keys as numbers: uint64 [n].
Keys = npt.NDArray[np.uint64]


def as_numbers(keys: Iterable[str]) -> Keys:
    return np.array([int(key, 16) for key in keys], np.uint64)


def as_key(number: int) -> str:
    return f"{number:016x}"


@dataclasses.dataclass(frozen=True)
class Spent:
    """What answers cost: tokens read and written, seconds of all machines."""

    num_prompt_tokens: int = 0
    num_tokens: int = 0
    seconds: float = 0.0


class AnswerIndex:
    """What a store holds, by key; 36 bytes a row in memory, texts stay on disk.

    Safe to read from several threads. It does not see what is stored after it was made.

    Attributes:
      keys: uint64 [rows], sorted, each once.
      num_torn_lines: lines that were not whole, in files read for the first time; they count as
        never written.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        # `answers-` sorts before `dead-`: where a key has both, it is answered.
        sizes = {p: n for p, n in sorted(storage.sizes_bytes(folder).items()) if _is_rows(p)}
        self._paths = [storage.join(folder, name) for name in sizes]
        self._is_dead = np.array([name.startswith("dead-") for name in sizes] or [False])
        loaded = list(self._map(load_entries, self._paths, sizes.values()))
        self.num_torn_lines = sum(num_torn for _, num_torn in loaded)
        tables = [table for table, _ in loaded] or [Entries().arrays()]
        columns = {name: np.concatenate([t[name] for t in tables]) for name in COLUMNS}
        files = np.repeat(np.arange(len(tables), dtype=np.uint32), [len(t["keys"]) for t in tables])
        # The first of equal keys in the order of the files.
        self.keys, rows = np.unique(columns.pop("keys"), return_index=True)
        self._columns = {name: column[rows] for name, column in columns.items()}
        self._files = files[rows]

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: str) -> bool:
        number = np.uint64(int(key, 16))
        place = int(self.keys.searchsorted(number))
        return place < len(self.keys) and bool(self.keys[place] == number)

    def places(self, keys: Keys) -> npt.NDArray[np.intp]:
        """Rows of the index [n], in the order of the keys that are stored; of others, none."""
        places = self.keys.searchsorted(keys)
        inside = places < len(self.keys)
        places, keys = places[inside], keys[inside]
        return places[self.keys[places] == keys]

    def spent(self, keys: Keys) -> Spent:
        """What the stored answers to these requests cost."""
        places = self.places(keys)
        num_prompt_tokens, num_tokens, seconds = (
            self._columns[name][places].sum(dtype=np.float64)
            for name in ("num_prompt_tokens", "num_tokens", "seconds")
        )
        return Spent(int(num_prompt_tokens), int(num_tokens), float(seconds))

    def dead(self, keys: Keys) -> Keys:
        """Those of the keys that are dead letters."""
        places = self.places(keys)
        return self.keys[places[self._is_dead[self._files[places]]]]

    def find(self, keys: Sequence[str]) -> dict[str, StoredRow]:
        """The rows of those of the keys that are stored, dead letters included.

        Their texts are held at once (tens of kB a row): give keys by hundreds.

        Raises:
          MachineError: a row is not any more what it was when it was indexed.
        """
        places = self.places(as_numbers(keys))
        places = places[np.argsort(self._files[places], kind="stable")]
        rows = self._map(self._read, places.tolist())
        return {row.request.key: row for row in rows}

    def _read(self, place: int) -> StoredRow:
        path = self._paths[int(self._files[place])]
        start, size = (int(self._columns[name][place]) for name in ("starts", "sizes"))
        row = decode_line(storage.read_range(path, start, size))
        if row is None or int(row.request.key, 16) != int(self.keys[place]):
            raise MachineError(
                f"{path}: the answer at byte {start} has changed since it was stored. Remove the "
                f"file and {os.path.basename(path)}{INDEX_SUFFIX}: what they held is asked again."
            )
        return row

    def _map(self, function: Any, *items: Iterable[Any]) -> Iterator[Any]:
        if storage.is_local(self._folder):
            yield from map(function, *items)
            return
        with ThreadPoolExecutor(NUM_READERS) as pool:
            yield from pool.map(function, *items)


def _is_rows(name: str) -> bool:
    return name.endswith(".jsonl") and name.startswith(("answers-", "dead-"))


class AnswerStore:
    """A store opened for writing by one process: `append` stores one more answer at once.

    Args:
      worker: goes into the names of this process's files.
      index: one that is at hand; None: it is read.

    Attributes:
      index: of what was stored before, by this or other processes.

    Raises:
      InputError, MachineError: the folder cannot be written; the disk is full.
    """

    def __init__(self, folder: str, worker: int = 0, index: AnswerIndex | None = None) -> None:
        self.index = AnswerIndex(folder) if index is None else index
        session = f"{worker:05d}-{uuid.uuid4().hex[:12]}"
        writer = LocalFiles if storage.is_local(folder) else RemoteFiles
        self._answers, self._dead = (
            writer(storage.join(folder, f"{kind}-{session}")) for kind in ("answers", "dead")
        )
        self._last = time.monotonic()

    def __contains__(self, key: str) -> bool:
        return key in self.index

    def append(self, request: Request, answer: Answer, teacher: str) -> StoredRow:
        """Store the answer to a request; one with `finish` "error" as a dead letter."""
        now = time.monotonic()
        row = StoredRow(request, answer, teacher, now - self._last)
        self._last = now
        assert can_be_indexed(row), f"{teacher} counted {answer.num_tokens} tokens"
        files = self._dead if answer.finish == "error" else self._answers
        files.append(row, encode_line(row))
        return row

    def close(self) -> None:
        """Store what is held back for an object store, and the indexes of the open files."""
        self._answers.close()
        self._dead.close()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except KeyboardInterrupt:
            # An upload takes seconds, and a stop may be sent twice: what was paid for is stored.
            self.close()
            raise
