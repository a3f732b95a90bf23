"""Tables that are huge or hostile: paths, memory, files that are none."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_reading import read_all

from snowcoder_jax.recipe_corpus import JsonlSource, ParquetSource, Source
from snowcoder_jax.sources import Limits, parquet_pages
from snowcoder_jax.sources.check import check_source
from snowcoder_jax.sources.documents import LedgerRow, SourceDocument


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_paths_have_the_limits_that_archives_have(tmp_path: Path, kind: str) -> None:
    longest = "d/" * 510 + "a.py"
    good = ["a.py", "/sub//./b.py", "sub\\c.py", longest]
    bad = ["../a.py", "a/../../b.py", "..\\a.py", "c:\\a.py", "a\nb.py", "a\0b.py", "\x1b[2J.py",
           f"d{longest}", "é" * 510 + "/a.py", "./", "x" * 3_000_000]  # fmt: skip
    rows = [{"content": "x = 1\n", "path": path, "repo": "r"} for path in good + bad]
    rows += [{"content": "x = 1\n", "path": "a.py", "repo": repo} for repo in ("q\n", "q" * 1_025)]
    source: Source
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
        source = ParquetSource("s", str(tmp_path))
    else:
        (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = JsonlSource("s", str(tmp_path))
    found = read_all(source, Limits(1_000_000))
    assert len(longest) == 1_024
    assert {(x.repo, x.path) for x in found if isinstance(x, SourceDocument)} == {
        ("r", "a.py"), ("r", "sub/b.py"), ("r", "sub/c.py"), ("r", longest)
    }  # fmt: skip
    refused = [x for x in found if isinstance(x, LedgerRow)]
    assert [x.reason for x in refused] == ["unsafe_path"] * len(bad) + ["unsafe_path"] * 2
    assert all(len(x.repo) <= 1_024 and len(x.path) <= 1_024 for x in refused)


@pytest.mark.timeout(30)
def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    """A pipe that nobody writes to once waited for ever."""
    (tmp_path / "a.jsonl").write_text('{"content": "x = 1", "path": "a.py"}\n')
    os.mkfifo(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").symlink_to("/dev/zero")
    source = JsonlSource("s", str(tmp_path))
    assert [(f.field, f.problem) for f in check_source(source)] == [
        ("sources.s.path", f"`{tmp_path}/b.jsonl` is no regular file"),
        ("sources.s.path", f"`{tmp_path}/c.jsonl` is no regular file"),
    ]
    found = read_all(source)  # as if they had come since
    assert [(type(x), x.path) for x in found if x is not None] == [
        (SourceDocument, "a.py"), (LedgerRow, "b.jsonl"), (LedgerRow, "c.jsonl")
    ]  # fmt: skip
    os.mkfifo(tmp_path / "d.parquet")
    assert len(check_source(ParquetSource("s", str(tmp_path)))) == 1


CHILD = """
import resource, sys
from snowcoder_jax import sources
from snowcoder_jax.recipe_corpus import JsonlSource, ParquetSource
path = sys.argv[1]
source = (ParquetSource if path.endswith(".parquet") else JsonlSource)("s", path)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
parts = [part for piece in sources.parts(source, seed=0) for part in piece]
limits = sources.Limits(1_000_000)
found = [item for part in parts for item in sources.read(source, part, limits)]
for item in found[:3]:
    print(item and item.path, getattr(item, "reason", "document"))
print(len(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def in_child(path: Path) -> tuple[list[str], int, int]:
    """What reading a table in a process of its own found first, how much, and KiB of memory."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    *lines, last = result.stdout.splitlines()
    count, kilobytes = last.split()
    return lines, int(count), int(kilobytes)


def test_a_line_of_300_megabytes(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as f:
        f.write(b'{"path": "a.py", "content": "x = 1"}\n{"path": "b.py", "content": "')
        for _ in range(300):
            f.write(b"x" * 1_000_000)
        f.write(b'"}\n{"path": "c.py", "content": "x = 2"}\n')
    found, count, kilobytes = in_child(tmp_path / "a.jsonl.gz")
    assert found == ["a.py document", "a.jsonl.gz:1 too_large", "c.py document"]
    assert count == 3
    assert kilobytes < 80_000


def test_a_text_that_thousands_of_rows_share(tmp_path: Path) -> None:
    """A dictionary holds it once; unpacked for all rows it would be 1.8 GB."""
    indices = pa.array([0] * 2_000, pa.int32())
    text = pa.DictionaryArray.from_arrays(indices, pa.array(["#" * 900_000]))
    paths = [f"{i}.txt" for i in range(2_000)]
    path = tmp_path / "a.parquet"
    # Without the schema of Arrow it reads as plain text, as from any other writer.
    pq.write_table(
        pa.table({"content": text, "path": paths}), path,
        store_schema=False, dictionary_pagesize_limit=1 << 24,
    )  # fmt: skip
    assert pq.ParquetFile(path).schema_arrow.field("content").type == pa.string()
    _, count, kilobytes = in_child(path)
    assert count == 2_000
    assert kilobytes < 600_000


def test_a_row_group_that_unpacks_to_a_thousand_times_its_size(tmp_path: Path) -> None:
    table = pa.table({"content": ["#" * 300_000_000, "x = 1"], "path": ["a.py", "b.py"]})
    pq.write_table(
        table, tmp_path / "a.parquet",
        row_group_size=1, compression="zstd", use_dictionary=False, write_statistics=False,
    )  # fmt: skip
    found, _, kilobytes = in_child(tmp_path / "a.parquet")
    assert found == ["a.parquet:0 too_large", "b.py document"]
    assert kilobytes < 80_000


CODECS: list[dict[str, Any]] = [
    {"compression": None},
    {"compression": "zstd", "data_page_version": "2.0"},
    {"compression": "gzip", "use_dictionary": False, "write_page_checksum": True},
    {"use_dictionary": False, "column_encoding": {"content": "DELTA_BYTE_ARRAY"}},
]


@pytest.mark.parametrize("settings", CODECS)
def test_pages_are_judged_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Of three groups of rows the middle one has a cell that is too large."""
    path = tmp_path / "a.parquet"
    texts = ["x = 1\n" * 10, "y" * 50_000, "z = 1\n" * 10]
    rows = {"content": texts, "path": ["a.py", "b.py", "c.py"]}
    pq.write_table(pa.table(rows), path, row_group_size=1, **settings)
    source = ParquetSource("s", str(path))
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 49_000)
    found = read_all(source, Limits(100_000))
    assert [(x.path, getattr(x, "reason", "")) for x in found if x is not None] == [
        ("a.py", ""), ("a.parquet:1", "too_large"), ("c.py", "")
    ]  # fmt: skip
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 51_000)
    assert len([x for x in read_all(source, Limits(100_000)) if x is not None]) == 3


@pytest.mark.parametrize("settings", CODECS)
@pytest.mark.parametrize("num_bytes", [13, 100, 1 << 20])
def test_headers_of_pages_are_found_whatever_is_read_at_once(
    tmp_path: Path, settings: dict[str, Any], num_bytes: int
) -> None:
    path = tmp_path / "a.parquet"
    rows = [f"{i} {'x' * (i % 50)}" for i in range(2_000)]
    table = pa.table({"content": [*rows, "y" * 1_200_000, *rows]})
    pq.write_table(table, path, data_page_size=2_000, write_batch_size=50, **settings)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    # The footer of a file that lies would say so.
    lie = SimpleNamespace(
        data_page_offset=column.data_page_offset,
        dictionary_page_offset=column.dictionary_page_offset,
        total_compressed_size=column.total_compressed_size,
        total_uncompressed_size=1,
    )
    is_packed = settings.get("compression", "snappy") is not None
    for stated, is_refused in ((column, False), (lie, is_packed)):
        with open(path, "rb") as file:
            guarded = parquet_pages.GuardedFile(file)
            guarded.watch([stated])
            guarded.seek(column.dictionary_page_offset or column.data_page_offset)
            try:
                while guarded.read(num_bytes):
                    pass
            except parquet_pages.PageTooLargeError:
                assert is_refused
            else:
                assert not is_refused


@given(st.binary(max_size=200))
def test_any_bytes_as_a_pages_header(data: bytes) -> None:
    column = SimpleNamespace(
        data_page_offset=0, dictionary_page_offset=None,
        total_compressed_size=len(data), total_uncompressed_size=len(data),
    )  # fmt: skip
    for head in (data, b"\x15\0\x15\2\x15\2" + data, b"\x19" * 10_000 + data):
        guarded = parquet_pages.GuardedFile(io.BytesIO(head))
        guarded.watch([column])
        with contextlib.suppress(ValueError):
            guarded.read()


def test_a_cell_takes_four_times_its_size_or_nothing(tmp_path: Path) -> None:
    """Of bytes that no codec makes smaller."""
    path = tmp_path / "a.parquet"
    for num_bytes, most_bytes in ((50_000_000, 230_000_000), (140_000_000, 40_000_000)):
        cells = pa.array([os.urandom(num_bytes), b"x = 1"], pa.binary())
        table = pa.table({"content": cells, "path": ["a.py", "b.py"]})
        pq.write_table(table, path, row_group_size=1)
        found, _, kilobytes = in_child(path)
        place = "a.py" if num_bytes < parquet_pages.MAX_PAGE_BYTES else "a.parquet:0"
        assert found == [f"{place} too_large", "b.py document"]
        assert kilobytes * 1024 < most_bytes
