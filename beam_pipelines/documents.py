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

from beam_pipelines import workers
from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.parquet import open_parquet, read_table

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

# A row group, and a batch of a stage: whichever bound is met first. Files have 10 kB in the mean,
# but hundreds of the largest may stand in a row.
ROW_GROUP_ROWS = 512
ROW_GROUP_BYTES = 32 * 1024 * 1024


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


def sizes_bytes(shards: Sequence[Shard]) -> list[int]:
    """Of the document files, which tell how much work a shard is."""
    sizes = {folder: storage.sizes_bytes(folder) for folder in {s.documents for s in shards}}
    return [sizes[shard.documents][shard.relative] for shard in shards]


def iter_batches(path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a Parquet file, in order, without ever holding all of it."""
    with open_parquet(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        size = batch_rows(file.metadata.num_rows, sum(g.total_byte_size for g in groups))
        yield from file.iter_batches(size, columns=list(columns), use_threads=False)


def batch_rows(num_rows: int, num_bytes: int) -> int:
    """How many of `num_rows` rows make a batch, where all of them have `num_bytes` bytes."""
    return max(1, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES * num_rows // max(1, num_bytes)))


def write_batches(
    path: str, schema: pa.Schema, tables: Iterator[pa.Table], key: str, **facts: Any
) -> int:
    """Write one Parquet file whole, then its manifest; returns the number of rows."""
    num_rows = 0
    # A dictionary pays for names and verdicts. Lists of token ids are a quarter smaller without
    # one, split by byte, and read back in less than half the time.
    strings = [field.name for field in schema if pa.types.is_string(field.type)]
    id_lists = [field.name for field in schema if field.type == pa.list_(pa.int32())]
    split = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in id_lists}
    with storage.atomic_path(path) as temporary:
        with pq.ParquetWriter(
            temporary, schema, compression="zstd", use_dictionary=strings, column_encoding=split
        ) as writer:
            for table in tables:
                size = batch_rows(table.num_rows, table.nbytes)
                writer.write_table(table.cast(schema), row_group_size=size)
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
        attribute_columns: Sequence[str] | None,
    ) -> None:
        self._function = function
        self._schema = schema
        self._output = output
        self._key = key
        self._columns = list(columns)
        self._attributes = list(attributes)
        self._attribute_columns = attribute_columns

    def process(self, shard: Shard) -> Iterator[int]:
        yield write_batches(
            storage.join(self._output, shard.relative),
            self._schema,
            self._tables(shard),
            self._key,
        )

    def _tables(self, shard: Shard) -> Iterator[pa.Table]:
        besides = [self._read_attributes(a, shard) for a in self._attributes]
        start = 0
        for batch in iter_batches(storage.join(shard.documents, shard.relative), self._columns):
            documents = pa.Table.from_batches([batch])
            rows = [table.slice(start, documents.num_rows) for table in besides]
            for table in rows:
                assert table["id"].equals(documents["id"]), (shard, "rows out of step")
            start += documents.num_rows
            yield self._function(documents, *rows)

    def _read_attributes(self, folder: str, shard: Shard) -> pa.Table:
        path = storage.join(folder, shard.relative)
        if self._attribute_columns is None:
            return read_table(path)
        with open_parquet(path) as file:
            names = [n for n in file.schema_arrow.names if n in self._attribute_columns]
        return read_table(path, names)


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
    attribute_columns: Sequence[str] | None = None,
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
      attribute_columns: the columns it needs of them, `id` among them; None: all.
    """
    shards = list_shards(corpus)
    manifests = _manifests(output, shards)
    todo = [s for s, m in zip(shards, manifests, strict=True) if m is None or m["key"] != key]
    if todo:
        with workers.pipeline(options) as pipeline:
            _ = workers.spread(pipeline, todo, sizes_bytes(todo), options) | beam.ParDo(
                _ShardFn(function, schema, output, key, columns, attributes, attribute_columns)
            )
    return finish_stage(corpus, output, key)


def finish_stage(corpus: str, output: str, key: str) -> int:
    """Check that every shard is there with as many rows as its documents; write `stage.json`.

    Raises:
      InputError: the stage matched no rows at all.
    """
    num_rows = 0
    shards = list_shards(corpus)
    of_documents = _manifests(storage.join(corpus, "documents"), shards)
    for shard, manifest, documents in zip(
        shards, _manifests(output, shards), of_documents, strict=True
    ):
        path = storage.join(output, shard.relative)
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


def _manifests(folder: str, shards: Sequence[Shard]) -> list[dict[str, Any] | None]:
    return storage.read_manifests(folder, [storage.join(folder, s.relative) for s in shards])


def stage_done(output: str, key: str) -> bool:
    path = storage.join(output, "stage.json")
    return storage.exists(path) and storage.read_json(path)["key"] == key


def attribute_path(stage_folder: str, shard: Shard) -> str:
    return storage.join(stage_folder, shard.relative)
