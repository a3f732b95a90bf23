"""Parquet and JSON lines: layouts, mapped columns, and what is broken, huge or hostile in them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax import sources, storage
from snowcoder_jax.recipe_corpus import JsonlSource, ParquetSource, Source
from snowcoder_jax.sources import Limits
from snowcoder_jax.sources.check import check_source
from snowcoder_jax.sources.documents import Item, LedgerRow, SourceDocument

LIMIT = 10_000
REASONS = {
    "broken_parquet", "broken_jsonl", "broken_row", "missing_column", "no_path", "too_large",
    "unreadable", "binary", "undecodable", "vendored", "generated", "unsafe_path",
}  # fmt: skip


def read_all(source: Source, limits: Limits | None = None) -> list[Item]:
    limits = limits or Limits(LIMIT)
    parts = [part for piece in sources.parts(source, seed=0) for part in piece]
    return [item for part in parts for item in sources.read(source, part, limits)]


def documents(items: list[Item]) -> dict[tuple[str, str], SourceDocument]:
    return {(x.repo, x.path): x for x in items if isinstance(x, SourceDocument)}


def ledger(items: list[Item]) -> dict[tuple[str, str], str]:
    return {(x.repo, x.path): x.reason for x in items if isinstance(x, LedgerRow)}


ROWS: list[dict[str, Any]] = [
    {"text": "x = 1\n", "file": "a.py", "repo": "r", "license": ["MIT"], "stars": 3.0},
    {"text": "int a;\n", "file": "/b.c", "repo": "r", "license": ["MIT", "ISC"], "stars": None},
    {"text": None, "file": "c.py", "repo": "q", "license": [], "stars": 1.0},
    {"text": "y" * (LIMIT + 1), "file": "d.py", "repo": "q", "license": None, "stars": 2.0},
    {"text": "z = 1\n", "file": "e.unknown", "repo": "q", "license": [], "stars": 1.0},
    {"text": "z = 1\n", "file": None, "repo": "q", "license": [], "stars": 1.0},
    {"text": "z = 1\n", "file": "dist/e.py", "repo": "q", "license": [], "stars": 1.0},
    {"text": "x = 1\0", "file": "f.py", "repo": None, "license": [], "stars": 1.0},
    {"text": "# SPDX-License-Identifier: 0BSD\n", "file": "g.py", "repo": None,
     "license": ["MIT"], "stars": 1e300},
]  # fmt: skip
COLUMNS = {"content": "text", "path": "file"}


def expect_rows(items: list[Item], filename: str) -> None:
    assert {
        k: (d.language, d.license, d.stars, d.content.decode()) for k, d in documents(items).items()
    } == {
        ("r", "a.py"): ("Python", "MIT", 3, "x = 1\n"),
        ("r", "b.c"): ("C", "MIT AND ISC", None, "int a;\n"),
        ("s", "g.py"): ("Python", "0BSD", None, "# SPDX-License-Identifier: 0BSD\n"),
    }
    assert ledger(items) == {
        ("q", "c.py"): "unreadable",
        ("q", "d.py"): "too_large",
        ("s", filename): "no_path",
        ("q", "dist/e.py"): "vendored",
        ("s", "f.py"): "binary",
    }
    assert (
        next(x for x in items if isinstance(x, LedgerRow) and x.path == "d.py").size_bytes > LIMIT
    )
    assert items.count(None) == 1


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "dictionary"])
def test_parquet_columns(tmp_path: Path, kind: str) -> None:
    table = pa.Table.from_pylist(ROWS)
    text = table["text"].combine_chunks()
    kinds = {"string": pa.string(), "large_string": pa.large_string(), "binary": pa.binary()}
    text = text.dictionary_encode() if kind == "dictionary" else text.cast(kinds[kind])
    table = table.set_column(table.schema.get_field_index("text"), "text", text)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    source = ParquetSource("s", str(tmp_path), columns=COLUMNS)
    assert check_source(source) == []
    expect_rows(read_all(source), "a.parquet:1:1")


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_jsonl_columns(tmp_path: Path, suffix: str) -> None:
    data = "\n\n".join(map(json.dumps, ROWS)).encode()
    if suffix.endswith("gz"):
        half = len(data) // 2  # of several streams one after the other, as `cat` makes them
        data = gzip.compress(data[:half]) + gzip.compress(data[half:])
    elif suffix.endswith("zst"):
        data = pa.compress(data, "zstd", asbytes=True)
    (tmp_path / f"a.{suffix}").write_bytes(data)
    source = JsonlSource("s", f"{tmp_path}/*.{suffix}", columns=COLUMNS)
    assert check_source(source) == []
    expect_rows(read_all(source), f"a.{suffix}:10")
    storage.write_bytes(f"memory://tables/a.{suffix}", data)
    expect_rows(read_all(JsonlSource("s", "memory://tables", columns=COLUMNS)), f"a.{suffix}:10")
    storage.remove("memory://tables")


STACK_V1 = {
    "hexsha": "0", "size": 6, "ext": "py", "lang": "Python", "content": "x = 1\n",
    "max_stars_repo_path": "src/a.py", "max_stars_repo_name": "owner/name",
    "max_stars_repo_head_hexsha": "0", "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
    "max_stars_count": 7, "avg_line_length": 6.0, "max_line_length": 6,
}  # fmt: skip
STACK_V2 = {
    "blob_id": "0", "path": "/src/a.py", "detected_licenses": ["MIT"], "license_type": "permissive",
    "repo_name": "owner/name", "star_events_count": 7, "src_encoding": "UTF-8",
    "is_vendor": False, "is_generated": False, "length_bytes": 6, "content": "x = 1\n",
}  # fmt: skip


def test_the_stacks_layouts(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([STACK_V1]), tmp_path / "v1.parquet")
    source = ParquetSource("s", str(tmp_path / "v1.parquet"), layout="stack_v1")
    (found,) = read_all(source)
    expected = SourceDocument(
        "owner/name", "src/a.py", "Python", "MIT AND Apache-2.0", 7, b"x = 1\n"
    )
    assert found == expected

    rows = [
        STACK_V2,
        {**STACK_V2, "path": "/b.py", "is_vendor": True},
        {**STACK_V2, "path": "/c.py", "is_generated": True},
        {**STACK_V2, "path": "/d.py", "repo_name": "Owner/Other"},
    ]
    with open(tmp_path / "v2.jsonl", "w") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "v2.parquet")
    for v2 in (
        ParquetSource("s", str(tmp_path / "v2.parquet"), layout="stack_v2_dedup"),
        JsonlSource("s", str(tmp_path / "v2.jsonl"), layout="stack_v2_dedup"),
    ):
        assert check_source(v2) == []
        items = read_all(v2, Limits(LIMIT, frozenset({"owner/other"})))
        assert items[0] == SourceDocument("owner/name", "src/a.py", "Python", "MIT", 7, b"x = 1\n")
        assert ledger(items) == {
            ("owner/name", "b.py"): "vendored",
            ("owner/name", "c.py"): "generated",
            ("Owner/Other", "d.py"): "opted_out",
        }


def test_content_in_the_encoding_that_the_table_states(tmp_path: Path) -> None:
    row = {**STACK_V2, "content": "# Пр\n".encode("koi8-r"), "src_encoding": "KOI8-R"}
    rows = [row, {**row, "path": "b.py", "src_encoding": "punycode"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    items = read_all(ParquetSource("s", str(tmp_path), layout="stack_v2_dedup"))
    assert [d.content.decode() for d in documents(items).values()] == ["# Пр\n"]
    assert ledger(items) == {("owner/name", "b.py"): "undecodable"}


def test_missing_columns_are_named_before_any_work(tmp_path: Path) -> None:
    without = {k: v for k, v in STACK_V2.items() if k != "content"}
    pq.write_table(pa.Table.from_pylist([without]), tmp_path / "a.parquet")
    source = ParquetSource("s", str(tmp_path), layout="stack_v2_dedup", columns={"stars": "star"})
    content, stars = check_source(source)
    assert (content.field, stars.field) == ("sources.s.columns.content", "sources.s.columns.stars")
    assert "star_events_count" in stars.mend
    assert ledger(read_all(source)) == {("s", "a.parquet"): "missing_column"}
    (tmp_path / "a.jsonl").write_text('{"path": "a.py", "text": ""}\n')
    (fault,) = check_source(JsonlSource("s", str(tmp_path)))
    assert "`content`" in str(fault)
    pq.write_table(pa.table({"content": [1], "path": ["a.py"]}), tmp_path / "a.parquet")
    assert ledger(read_all(ParquetSource("s", str(tmp_path)))) == {
        ("s", "a.parquet"): "missing_column"
    }


def test_truncated_files_keep_what_came_before(tmp_path: Path) -> None:
    rows = [{"content": f"x = {i}\n" + "#" * 500, "path": f"{i}.py"} for i in range(3_000)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    packed = gzip.compress(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    items = read_all(JsonlSource("s", str(tmp_path)))
    assert 0 < len(documents(items)) < 3_000
    assert ledger(items)["s", "a.jsonl.gz"] == "broken_jsonl"

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=500)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    source = ParquetSource("s", str(tmp_path))
    assert check_source(source) == []  # one broken file of many is for the ledger
    assert ledger(read_all(source)) == {("s", "a.parquet"): "broken_parquet"}
    middle = data[: len(data) // 2] + bytes(3_000) + data[len(data) // 2 + 3_000 :]
    (tmp_path / "a.parquet").write_bytes(middle)
    items = read_all(source)
    assert documents(items)
    assert set(ledger(items).values()) <= REASONS
    assert ledger(items)


def test_bad_lines_cost_themselves_alone(tmp_path: Path) -> None:
    lines = [
        b'{"content": "x = 1\\n", "path": "a.py"}',
        b"not json",
        b"[1, 2]",
        b"[" * 100_000,
        b'{"content": "x", "path": "b.py", "stars": ' + b"9" * 5_000 + b"}",
        b'{"content": "\\ud800", "path": "c.py", "repo": "\\udfff"}',
        b'{"content": ["x"], "path": "d.py"}',
        b"\xff\xfe",
        b'{"content": "' + b"x" * 200_000 + b'", "path": "e.py"}',
        b'{"content": "' + b"\\u0041" * LIMIT + b'", "path": "f.py"}',
        b'{"content": "last = 1", "path": "g.py"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines))
    items = read_all(JsonlSource("s", str(tmp_path)))
    assert {path for _, path in documents(items)} == {"a.py", "f.py", "g.py"}
    assert ledger(items) == {
        ("s", "a.jsonl:1"): "broken_row",
        ("s", "a.jsonl:2"): "broken_row",
        ("s", "a.jsonl:3"): "broken_row",
        ("s", "a.jsonl:4"): "broken_row",
        ("\\udfff", "c.py"): "undecodable",
        ("s", "d.py"): "unreadable",
        ("s", "a.jsonl:7"): "broken_row",
        ("s", "a.jsonl:8"): "too_large",
    }


def test_large_files_are_cut_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MIN_PIECE_BYTES", 45_000)
    rows = [{"content": os.urandom(5_000).hex(), "path": f"{i}.py"} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=2)
    source = ParquetSource("s", str(tmp_path))
    pieces = sources.parts(source, seed=0)
    assert [[(p.first_group, p.num_groups) for p in piece] for piece in pieces] == [
        [(0, 2)], [(2, 2)], [(4, 2)], [(6, 2)], [(8, 2)],
    ]  # fmt: skip
    assert len(documents(read_all(source))) == 20


def test_a_small_table_is_cut_so_that_several_workers_can_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_MIN_PIECE_BYTES", 1_000)
    monkeypatch.setattr(sources, "_MAX_PIECE_BYTES", 50_000)
    rows = [{"content": os.urandom(1_000).hex(), "path": f"{i}.py"} for i in range(64)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=1)
    (even, *_) = pieces = sources.parts(ParquetSource("s", str(tmp_path)), seed=0)
    assert 16 <= len(pieces) <= 22 and sum(p.num_groups for p in even) in (3, 4)
    monkeypatch.setattr(sources, "_MAX_PIECE_BYTES", 5_000)
    assert len(sources.parts(ParquetSource("s", str(tmp_path)), seed=0)) >= 32


def test_the_fingerprint_reads_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 broken")
    source = ParquetSource("s", str(tmp_path))
    first = sources.fingerprint(source, Limits(LIMIT), seed=0)
    assert sources.fingerprint(source, Limits(LIMIT), seed=0) == first
    (tmp_path / "a.parquet").write_bytes(b"PAR1 broken!")
    second = sources.fingerprint(source, Limits(LIMIT), seed=0)
    (tmp_path / "b.parquet").write_bytes(b"")
    assert len({first, second, sources.fingerprint(source, Limits(LIMIT), seed=0)}) == 3


@given(data=st.binary(max_size=400), at=st.floats(0, 1))
def test_any_bytes_as_a_table(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: float
) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = [{"content": f"x = {i}\n", "path": f"{i}.py", "repo": "r"} for i in range(50)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "good", row_group_size=20)
    parquet = (folder / "good").read_bytes()
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    for name, good in {
        "a.parquet": parquet,
        "a.jsonl": lines,
        "a.jsonl.gz": gzip.compress(lines, mtime=0),
        "a.jsonl.zst": pa.compress(lines, "zstd", asbytes=True),
    }.items():
        start = int(at * len(good))
        for broken in (data, good[:start], good[:start] + data + good[start + len(data) :]):
            (folder / name).write_bytes(broken)
            is_parquet = name.endswith("parquet")
            source = (ParquetSource if is_parquet else JsonlSource)("s", str(folder / name))
            check_source(source)
            items = read_all(source)
            assert set(ledger(items).values()) <= REASONS
            assert all(len(x.content) <= LIMIT for x in documents(items).values())
