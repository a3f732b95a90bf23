"""Reads the seeds of a synthesis, part by part, in processes that have no Beam."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from snowcoder_jax import parquet, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.synthesis.requests import Seed

# Rows whose texts are held at once.
BATCH_ROWS = 64
# A sample is taken of so many parts, however many there are.
SAMPLE_PARTS = 8
_COLUMNS = ["id", "repo", "path", "language", "text", "score", "license"]


def part_paths(folder: str) -> list[str]:
    """The parts of a folder of seeds, in order.

    Raises:
      InputError: there are none.
    """
    paths = storage.list_files(folder, ".parquet")
    if not paths:
        raise InputError(f"{folder}: has no seeds. `snowcoder synthesize RECIPE` draws them.")
    return paths


def count_seeds(folder: str, limit: int | None = None) -> int:
    """How many seeds `read_seeds` reads.

    Raises:
      InputError: the folder has none.
    """
    num_seeds = 0
    for path in part_paths(folder):
        with parquet.open_parquet(path) as file:
            num_seeds += file.metadata.num_rows
    return num_seeds if limit is None else min(limit, num_seeds)


def read_seeds(folder: str, limit: int | None = None) -> Iterator[Seed]:
    """The seeds of all parts, some at a time; with `limit`, the so many that were drawn first.

    Raises:
      InputError: the folder has none.
    """
    paths = part_paths(folder)
    last_draw = None if limit is None else _last_of(_draws(paths), limit)
    for path in paths:
        yield from read_part(path, last_draw)


def sample_seeds(folder: str, num_seeds: int) -> list[Seed]:
    """Of some parts, the seeds that were drawn first: rows lie by repository, draws at random.

    Raises:
      InputError: the folder has none.
    """
    paths = part_paths(folder)
    numbers = np.linspace(0, len(paths) - 1, min(len(paths), SAMPLE_PARTS)).round().astype(int)
    some = [paths[number] for number in numbers]
    draws = _draws(some)
    if len(draws) < num_seeds:
        some, draws = paths, _draws(paths)
    last_draw = _last_of(draws, num_seeds)
    return [seed for path in some for seed in read_part(path, last_draw)]


def read_part(path: str, last_draw: int | None = None) -> Iterator[Seed]:
    """The seeds of one part, some at a time; with `last_draw`, none that was drawn after it."""
    with parquet.open_parquet(path) as file:
        groups, columns = list(range(file.num_row_groups)), _COLUMNS
        if last_draw is not None:
            groups = [n for n in groups if _first_of(file, n) <= last_draw]
            columns = [*_COLUMNS, "draw"]
        for batch in file.iter_batches(
            BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False
        ):
            for row in batch.to_pylist():
                if last_draw is None or row.pop("draw") <= last_draw:
                    yield Seed(**row)


def _first_of(file: pq.ParquetFile, group: int) -> int:
    """The smallest draw of a row group; beyond all where it has no rows."""
    draws = file.read_row_group(group, ["draw"], use_threads=False)["draw"].to_numpy()
    return int(draws.min()) if len(draws) else 2**64


def _draws(paths: list[str]) -> npt.NDArray[np.uint64]:
    """Of all seeds, sorted."""
    draws = [
        parquet.read_table(path, ["draw"])["draw"].to_numpy().astype(np.uint64) for path in paths
    ]
    return np.sort(np.concatenate(draws))


def _last_of(draws: npt.NDArray[np.uint64], limit: int) -> int:
    """The draw of the last of the first `limit` seeds; -1 where that is none."""
    return int(draws[min(limit, len(draws)) - 1]) if limit and len(draws) else -1
