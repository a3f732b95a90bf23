"""Reading Arrow and Parquet files, local or remote, without Python objects in Arrow's threads.

Arrow reads ahead in threads of its own. Where what it reads from is a Python file, those threads
hold Python buffers, and one that is let go of after the interpreter has begun to end aborts the
process ("terminate called without an active exception"), with all work done. So local files are
Arrow's own here, and remote ones are read in the calling thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax import storage


def open_file(path: str) -> pa.NativeFile:
    """A file for Arrow to read from."""
    if storage.is_local(path):
        return pa.OSFile(path)
    return pa.PythonFile(storage.open_read(path), mode="r")


@contextlib.contextmanager
def open_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file, read when asked: read ahead, all of it would be in memory, compressed."""
    with open_file(path) as f:
        yield pq.ParquetFile(f, pre_buffer=False)


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole Parquet file, or the named columns of it in that order."""
    with open_parquet(path) as file:
        names = None if columns is None else list(columns)
        table = file.read(names, use_threads=storage.is_local(path))
    return table if names is None else table.select(names)
