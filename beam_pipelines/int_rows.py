"""Rows of 64-bit integers as the values of a shuffle and as scratch files.

A stage that shuffles numbers packs many rows into one value: a few large typed elements in place
of many small ones. Rows have no order and may come more than once; reading sorts and parts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from snowcoder_jax import storage
from snowcoder_jax.text.components import distinct_rows

# A document is numbered `shard << ROW_BITS | row`.
ROW_BITS = 32
ROW_MASK = 2**ROW_BITS - 1

Keyed = tuple[int, bytes]
Rows = npt.NDArray[np.int64]


def pack(*columns: npt.NDArray[Any]) -> bytes:
    """Columns of equal length, each 64 bits wide, as the bytes of one [rows, columns] array."""
    return np.stack([c.view("<i8") for c in columns], 1).tobytes()


def unpack(values: Iterable[bytes], num_columns: int) -> Rows:
    """All rows, sorted, each once."""
    rows = np.frombuffer(b"".join(values), "<i8").reshape(-1, num_columns)
    return distinct_rows(rows)


def split_by(key: npt.NDArray[np.int64], *columns: npt.NDArray[Any]) -> Iterator[Keyed]:
    """Rows packed apart for each key."""
    order = np.argsort(key, kind="stable")
    bounds = np.flatnonzero(np.diff(key[order], prepend=-1, append=-1))
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        chosen = order[start:end]
        yield int(key[chosen[0]]), pack(*(c[chosen] for c in columns))


class Scratch:
    """Rows on storage between two pipelines of a stage: one file for each name and shard."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def _path(self, name: str, index: int) -> str:
        return storage.join(self.folder, name, f"{index:05d}.i8")

    def save(self, name: str, index: int, *columns: npt.NDArray[Any]) -> None:
        storage.write_bytes(self._path(name, index), pack(*columns))

    def load(self, name: str, index: int, num_columns: int) -> Rows:
        data = storage.read_bytes(self._path(name, index))
        return np.frombuffer(data, "<i8").reshape(-1, num_columns)

    def save_facts(self, name: str, facts: list[int]) -> None:
        storage.write_json(storage.join(self.folder, f"{name}.json"), facts)

    def load_facts(self, name: str) -> list[int]:
        facts: list[int] = storage.read_json(storage.join(self.folder, f"{name}.json"))
        return facts
