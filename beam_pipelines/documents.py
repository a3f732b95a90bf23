"""Sharded documents and the attribute files beside them: the one way stages read and write.

A corpus folder holds `documents/<source>/part-00000.parquet`; a stage writes
`<output>/<source>/part-00000.parquet` with the same rows in the same order: `id`, then the
stage's own columns. Every shard has a manifest; a stage folder has `stage.json`, written last.
No text is shuffled here: one shard is one Beam element.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError

DOCUMENT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # 32 hex digits: hash of repository, path, content
        ("repo", pa.string()),
        ("path", pa.string()),  # inside the repository, with forward slashes
        ("language", pa.string()),
        ("license", pa.string()),  # SPDX expression, "" where unknown
        ("stars", pa.int32()),  # null where unknown
        ("content", pa.large_string()),  # raw text; read it through text.reader
    ]
)

# Every stage that judges writes these four. `verdict` is "pass", "drop" or "error"; the rest is
# null on a pass. A missing row or an error is never a pass.
VERDICT_FIELDS = [
    pa.field("verdict", pa.string()),
    pa.field("rule", pa.string()),
    pa.field("value", pa.float64()),
    pa.field("threshold", pa.float64()),
]

ROW_GROUP_ROWS = 512


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard of a corpus: `relative` is the same path below every attribute folder."""

    documents: str
    relative: str

    @property
    def source(self) -> str:
        return self.relative.split("/", 1)[0]


def list_shards(corpus: str) -> list[Shard]:
    """The shards of a corpus in order.

    Raises:
      InputError: the corpus has none.
    """
    root = storage.join(corpus, "documents")
    paths = storage.list_files(root, ".parquet")
    if not paths:
        raise InputError(f"{corpus}: holds no documents. Run the ingest stage first.")
    return [Shard(root, p[len(root) :].lstrip("/")) for p in paths]


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    with storage.open_read(path) as f:
        return pq.read_table(f, columns=list(columns) if columns is not None else None)


def write_batches(
    path: str, schema: pa.Schema, tables: Iterator[pa.Table], key: str, **facts: Any
) -> int:
    """Write one Parquet file whole, then its manifest; returns the number of rows."""
    num_rows = 0
    with storage.atomic_path(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.cast(schema), row_group_size=ROW_GROUP_ROWS)
                num_rows += table.num_rows
    storage.write_manifest(path, key, rows=num_rows, **facts)
    return num_rows


# A stage's work on some rows: the documents, then one table for each attribute folder it reads,
# all with the same rows; it returns its own columns, `id` first.
BatchFunction = Callable[..., pa.Table]


class _ShardFn(beam.DoFn):
    def __init__(
        self,
        function: BatchFunction,
        schema: pa.Schema,
        output: str,
        key: str,
        columns: Sequence[str],
        attributes: Sequence[str],
    ) -> None:
        self._function = function
        self._schema = schema
        self._output = output
        self._key = key
        self._columns = list(columns)
        self._attributes = list(attributes)

    def process(self, shard: Shard) -> Iterator[int]:
        yield write_batches(
            storage.join(self._output, shard.relative),
            self._schema,
            self._tables(shard),
            self._key,
        )

    def _tables(self, shard: Shard) -> Iterator[pa.Table]:
        besides = [read_table(storage.join(a, shard.relative)) for a in self._attributes]
        start = 0
        with storage.open_read(storage.join(shard.documents, shard.relative)) as f:
            for batch in pq.ParquetFile(f).iter_batches(ROW_GROUP_ROWS, columns=self._columns):
                documents = pa.Table.from_batches([batch])
                rows = [table.slice(start, documents.num_rows) for table in besides]
                for table in rows:
                    assert table["id"].equals(documents["id"]), (shard, "rows out of step")
                start += documents.num_rows
                yield self._function(documents, *rows)


def run_on_shards(
    function: BatchFunction,
    schema: pa.Schema,
    *,
    corpus: str,
    output: str,
    key: str,
    options: PipelineOptions,
    columns: Sequence[str] = tuple(DOCUMENT_SCHEMA.names),
    attributes: Sequence[str] = (),
) -> int:
    """Run a stage over every shard that is not done under `key`; returns the rows in all.

    Args:
      function: picklable; documents [and attribute tables] of some rows -> the stage's columns.
        Heavy objects belong in a cached function of its module, not in its closure.
      schema: of the tables it returns; `id` first.
      corpus: the corpus folder; output: the stage's folder.
      key: fingerprint of parameters, inputs and code (`steps/builder.py` makes it).
      columns: the document columns it needs; `id` among them.
      attributes: folders of other stages, given to the function row for row.
    """
    shards = list_shards(corpus)
    todo = [s for s in shards if not storage.is_done(storage.join(output, s.relative), key)]
    if todo:
        with beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | beam.Create(todo, reshuffle=False)
                | beam.Reshuffle()
                | beam.ParDo(_ShardFn(function, schema, output, key, columns, attributes))
            )
    return finish_stage(corpus, output, key)


def finish_stage(corpus: str, output: str, key: str) -> int:
    """Check that every shard is there with as many rows as its documents; write `stage.json`.

    Raises:
      InputError: the stage matched no rows at all.
    """
    num_rows = 0
    for shard in list_shards(corpus):
        path = storage.join(output, shard.relative)
        manifest = storage.read_manifest(path)
        documents = storage.read_manifest(storage.join(shard.documents, shard.relative))
        assert manifest is not None and manifest["key"] == key, f"{path} is not done"
        assert documents is not None and documents["rows"] == manifest["rows"], f"{path} rows"
        num_rows += manifest["rows"]
    if num_rows == 0:
        raise InputError(
            f"{corpus}: holds no rows, so the stage had nothing to do. "
            "Check the sources of the recipe."
        )
    storage.write_json(storage.join(output, "stage.json"), {"key": key, "rows": num_rows})
    return num_rows


def stage_done(output: str, key: str) -> bool:
    path = storage.join(output, "stage.json")
    return storage.exists(path) and storage.read_json(path)["key"] == key


def attribute_path(stage_folder: str, shard: Shard) -> str:
    return storage.join(stage_folder, shard.relative)
