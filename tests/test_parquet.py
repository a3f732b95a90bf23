"""Reading Parquet: what is asked for, and nothing of Python in Arrow's threads."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from snowcoder_jax import parquet, storage

TABLE = pa.table({"id": ["a", "b", "c"], "score": [1.0, None, 3.0], "text": ["x", "y", "z"]})


@pytest.fixture(params=["local", "remote"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = str(tmp_path / "t.parquet")
    pq.write_table(TABLE, path, row_group_size=2)
    if request.param == "remote":
        remote = "memory://test-parquet/t.parquet"
        storage.write_bytes(remote, Path(path).read_bytes())
        return remote
    return path


def test_a_table_is_read_whole_or_the_named_columns_in_their_order(path: str) -> None:
    assert parquet.read_table(path).equals(TABLE)
    assert parquet.read_table(path, ["text", "id"]).equals(TABLE.select(["text", "id"]))


def test_a_column_that_is_not_there_is_an_error_and_not_left_out(path: str) -> None:
    with pytest.raises(KeyError, match="scores"):
        parquet.read_table(path, ["id", "scores"])


def test_a_file_is_open_for_the_block_only(path: str) -> None:
    with parquet.open_parquet(path) as file:
        assert file.num_row_groups == 2
    with pytest.raises(ValueError, match="closed"):
        file.read_row_group(0)


def test_arrow_reads_local_files_by_itself(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with parquet.open_file(str(tmp_path / "x")) as f:
        assert isinstance(f, pa.OSFile)
        assert f.read() == b"abc"
