"""A run's folders, read without Apache Beam: its import takes longer than most answers.

`folders.json` of a run names every stage's folder, those too that are not there yet; a stage is
done where a file that is written last is there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.parquet import open_parquet, read_table
from snowcoder_jax.recipe import Recipe, load_recipe

# The corpora of a run, each with the prefix of its stages' names.
CORPORA = {"ingest": "", "synthesize": "synthetic "}
# A stage alone writes the first or the second, a step of a run the last.
_LAST_FILES = ("stage.json", "packed.json", "step.json")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run has made so far.

    Attributes:
      folder: `runs/NAME`.
      folders: step -> the folder it fills, whether it is there or not.
    """

    folder: str
    folders: dict[str, str]

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The recipe as the run last took it."""
        return load_recipe(storage.join(self.folder, "recipe.yaml"))

    def is_done(self, step: str) -> bool:
        folder = self.folders.get(step)
        return folder is not None and any(
            storage.exists(storage.join(folder, name)) for name in _LAST_FILES
        )

    def shards(self, corpus: str = "ingest") -> list[str]:
        """Paths of a corpus's shards, the same below every stage's folder, in order."""
        root = storage.join(self.folders[corpus], "documents")
        return [p[len(root) :].lstrip("/") for p in storage.list_files(root, ".parquet")]

    def path(self, step: str, relative: str) -> str:
        """One shard of a stage; for a corpus, of its documents."""
        inside = ("documents",) if step in CORPORA else ()
        return storage.join(self.folders[step], *inside, relative)

    def column_names(self, step: str, relative: str) -> list[str]:
        with open_parquet(self.path(step, relative)) as file:
            return list(file.schema_arrow.names)

    def table(self, step: str, relative: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One shard of a stage; a column that the stage does not write is left out."""
        names = None
        if columns is not None:
            written = self.column_names(step, relative)
            names = [name for name in columns if name in written]
        return read_table(self.path(step, relative), names)

    def rows(
        self, step: str, relative: str, mask: pa.ChunkedArray, columns: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """The chosen rows of one shard of a stage; other row groups are not read."""
        found: list[dict[str, Any]] = []
        with open_parquet(self.path(step, relative)) as file:
            start = 0
            for i in range(file.num_row_groups):
                num_rows = file.metadata.row_group(i).num_rows
                chosen = mask.slice(start, num_rows)
                if pc.any(chosen).as_py():
                    group = file.read_row_group(
                        i, list(columns) if columns else None, use_threads=False
                    )
                    found += group.filter(chosen).to_pylist()
                start += num_rows
        return found

    def ledger_batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """(source, rows) of the files that never became documents."""
        root = storage.join(self.folders["ingest"], "ledger")
        for path in storage.list_files(root, ".parquet"):
            with open_parquet(path) as file:
                for batch in file.iter_batches(use_threads=False):
                    yield path[len(root) :].strip("/").removesuffix(".parquet"), batch


def open_run(folder: str) -> Run:
    """The run in a folder.

    Raises:
      InputError: it is no run, or nothing was ingested yet.
    """
    path = storage.join(folder, "folders.json")
    if not storage.exists(path):
        raise InputError(f"{folder}: is no run. Name a folder such as runs/local.")
    seen_from_run: dict[str, str] = storage.read_json(path)
    run = Run(folder, {n: storage.resolve(f, folder) for n, f in seen_from_run.items()})
    if not run.is_done("ingest"):
        raise InputError(f"{folder}: has no documents yet. Run `snowcoder prepare` first.")
    return run
