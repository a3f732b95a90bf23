"""The one way stages read and write: rows in step, batches that fit in memory."""

from __future__ import annotations

import functools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_corpus import KEY

from beam_pipelines import documents
from beam_pipelines.documents import DOCUMENT_SCHEMA, ROW_GROUP_BYTES, ROW_GROUP_ROWS
from beam_pipelines.options import local_options
from snowcoder_jax import parquet

SCHEMA = pa.schema([("id", pa.string()), ("seen", pa.string())])


def write(root: Path, name: str, table: pa.Table) -> str:
    path = str(root / name / "source" / "part-00000.parquet")
    documents.write_batches(path, table.schema, iter([table]), KEY)
    return str(root / name)


def corpus_of(root: Path, contents: list[str]) -> str:
    n = len(contents)
    columns = [[str(i) for i in range(n)], *[[""] * n] * 4, [None] * n, contents]
    table = pa.table(dict(zip(DOCUMENT_SCHEMA.names, columns, strict=True)), DOCUMENT_SCHEMA)
    write(root, "documents", table)
    return str(root)


def look(table: pa.Table, attribute: pa.Table, *, folder: Path) -> pa.Table:
    """What a batch was: its columns, and its number of rows as a file's name."""
    (folder / f"batch-{table['id'][0]}").write_text(str(table.num_rows))
    seen = [
        f"{table.column_names} {attribute.column_names} {v}" for v in attribute["x"].to_pylist()
    ]
    return pa.table([table["id"], seen], schema=SCHEMA)


def test_a_stage_sees_the_columns_it_asked_for_row_for_row(tmp_path: Path) -> None:
    n = 3 * ROW_GROUP_ROWS // 2
    corpus = corpus_of(tmp_path, ["text"] * n)
    attribute = {"id": [str(i) for i in range(n)], "y": [""] * n, "x": list(range(n))}
    folder = write(tmp_path, "stage", pa.table(attribute))
    output = str(tmp_path / "output")
    rows = documents.run_on_shards(
        functools.partial(look, folder=tmp_path),
        SCHEMA,
        corpus=corpus,
        output=output,
        key=KEY,
        options=local_options(),
        columns=("id", "content"),
        attributes=(folder,),
        attribute_columns=("id", "x", "no such column here"),
    )
    assert rows == n
    seen = pq.read_table(f"{output}/source/part-00000.parquet")
    assert seen["id"].to_pylist() == [str(i) for i in range(n)]
    assert seen["seen"].to_pylist() == [f"['id', 'content'] ['id', 'x'] {i}" for i in range(n)]
    sizes = sorted(int(p.read_text()) for p in tmp_path.glob("batch-*"))
    assert sizes == [n - ROW_GROUP_ROWS, ROW_GROUP_ROWS]


def test_attributes_of_other_rows_are_never_taken(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, ["a", "b"])
    folder = write(tmp_path, "stage", pa.table({"id": ["1", "0"], "x": [0, 1]}))
    with pytest.raises(Exception, match="rows out of step"):
        documents.run_on_shards(
            functools.partial(look, folder=tmp_path),
            SCHEMA,
            corpus=corpus,
            output=str(tmp_path / "output"),
            key=KEY,
            options=local_options(),
            attributes=(folder,),
        )


def test_large_documents_come_in_small_batches(tmp_path: Path) -> None:
    quarter = ROW_GROUP_BYTES // 4
    corpus = corpus_of(tmp_path, [chr(97 + i) * quarter for i in range(10)])
    path = f"{corpus}/documents/source/part-00000.parquet"
    assert pq.ParquetFile(path).metadata.row_group(0).num_rows <= 4
    batches = [batch.num_rows for batch in documents.iter_batches(path, ["content"])]
    assert sum(batches) == 10
    assert max(batches) <= 4


@pytest.mark.parametrize(
    ("num_rows", "num_bytes", "expected"),
    [
        (0, 0, 1),
        (10_000, 10_000, ROW_GROUP_ROWS),
        (ROW_GROUP_ROWS, ROW_GROUP_BYTES, ROW_GROUP_ROWS),
        (ROW_GROUP_ROWS, 2 * ROW_GROUP_BYTES, ROW_GROUP_ROWS // 2),
        (3, 99 * ROW_GROUP_BYTES, 1),
    ],
)
def test_a_batch_is_bounded_by_rows_and_by_bytes(
    num_rows: int, num_bytes: int, expected: int
) -> None:
    assert documents.batch_rows(num_rows, num_bytes) == expected


def test_lists_of_ids_come_back_as_they_were(tmp_path: Path) -> None:
    lists = [[1, 2, 70_000], None, [], [-5]]
    table = pa.table({"id": list("abcd"), "ids": pa.array(lists, pa.list_(pa.int32()))})
    write(tmp_path, "tokens", table)
    assert parquet.read_table(f"{tmp_path}/tokens/source/part-00000.parquet").equals(table)
