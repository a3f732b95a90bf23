"""From sources to shards: the same bytes however it is run, and nothing lost without a reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines import documents, ingest
from beam_pipelines.options import local_options
from snowcoder_jax import languages, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Corpus, FolderSource
from snowcoder_jax.source_files import FileReference

FIXTURES = Path(__file__).parents[1] / "fixtures" / "languages"
CONFIG = Corpus(num_shards=3, max_file_bytes=50_000)


def make_sources(root: Path) -> tuple[FolderSource, ...]:
    for r in range(6):
        folder = root / "code" / f"repo{r}"
        folder.mkdir(parents=True)
        for f in range(5):
            (folder / f"f{f}.py").write_text(f"x = {r * f}\n")
        (folder / "z.h").write_text("int z;\n" if r % 2 else "class Z;\n")
        (folder / "notes.txt").write_text("no code")
    (root / "code/repo0/binary.py").write_bytes(b"\0")
    (root / "code/repo1/large.py").write_text("#" * 60_000)
    return (
        FolderSource("code", str(root / "code"), license="MIT"),
        FolderSource("languages", str(FIXTURES), layout="repository"),
    )


def run(sources: tuple[FolderSource, ...], output: str, workers: int = 1, key: str = "k") -> Any:
    options = local_options(workers)
    return ingest.run(sources, CONFIG, seed=5, output=output, key=key, options=options)


def parquet_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture(scope="module")
def ingested(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, tuple[FolderSource, ...], Any]:
    root = tmp_path_factory.mktemp("ingest")
    sources = make_sources(root)
    return root, sources, run(sources, str(root / "corpus"))


def test_counts_add_up(ingested: tuple[Path, tuple[FolderSource, ...], Any]) -> None:
    root, _, summary = ingested
    code = summary["sources"]["code"]
    assert code["documents"] == 36
    assert code["ledger"] == {"binary": 1, "language": 6, "too_large": 1}
    assert code["files"] == 36 + 8
    assert code["languages"]["C"] == {"documents": 3, "bytes": 21}
    assert set(summary["languages"]) == {x.name for x in languages.LANGUAGES}
    assert summary["documents"] == sum(s["documents"] for s in summary["sources"].values())
    rows = pq.read_table(root / "corpus/ledger/code.parquet").to_pylist()
    assert rows == [
        {"repo": "repo0", "path": "binary.py", "reason": "binary", "bytes": 1},
        {"repo": "repo1", "path": "large.py", "reason": "too_large", "bytes": 60_000},
    ]
    assert storage.read_json(str(root / "corpus/ingest.json")) == summary
    assert not (root / "corpus/ledger/pieces").exists()


def test_shards(ingested: tuple[Path, tuple[FolderSource, ...], Any]) -> None:
    root, _, summary = ingested
    shards = documents.list_shards(str(root / "corpus"))
    assert len(shards) == 2 * CONFIG.num_shards
    where: dict[str, set[str]] = {}
    num_rows = 0
    for shard in shards:
        table = documents.read_table(storage.join(shard.documents, shard.relative))
        assert table.schema == documents.DOCUMENT_SCHEMA
        rows = table.to_pylist()
        num_rows += len(rows)
        order = [(r["repo"], r["language"], r["path"]) for r in rows]
        assert order == sorted(order)
        for row in rows:
            where.setdefault(row["repo"], set()).add(shard.relative)
            assert row["id"] == ingest.document_id(row["repo"], row["path"], row["content"])
    assert num_rows == summary["documents"]
    assert all(len(where[f"repo{r}"]) == 1 for r in range(6))
    # One repository is all of its source, so more than an even share: it is spread.
    assert len(where["languages"]) == CONFIG.num_shards


def test_same_bytes_for_two_workers_and_after_a_kill(
    ingested: tuple[Path, tuple[FolderSource, ...], Any], tmp_path: Path
) -> None:
    root, sources, summary = ingested
    expected = parquet_bytes(root / "corpus")
    assert run(sources, str(tmp_path / "two"), workers=2) == summary
    assert parquet_bytes(tmp_path / "two") == expected

    # As a kill leaves it: some shards whole, one without a manifest, one half-written.
    halfway = tmp_path / "two"
    shard = halfway / "documents/code/part-00001.parquet"
    os.unlink(str(shard) + storage.MANIFEST_SUFFIX)
    (halfway / "documents/code/part-00002.parquet").write_bytes(b"PAR1")
    for name in ("ingest.json", "stage.json"):
        (halfway / name).unlink()
    assert run(sources, str(halfway)) == summary
    assert parquet_bytes(halfway) == expected


def test_done_is_not_redone(ingested: tuple[Path, tuple[FolderSource, ...], Any]) -> None:
    root, sources, summary = ingested
    path = root / "corpus/documents/code/part-00000.parquet"
    before = path.stat().st_mtime_ns
    assert run(sources, str(root / "corpus")) == summary
    assert path.stat().st_mtime_ns == before


def test_source_without_a_document(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/readme.txt").write_text("x")
    with pytest.raises(InputError, match=r"sources\.s: none of its 1 files .*language: 1"):
        run((FolderSource("s", str(tmp_path / "code")),), str(tmp_path / "out"))


def test_missing_sources_are_all_named(tmp_path: Path) -> None:
    missing = tuple(FolderSource(n, str(tmp_path / n)) for n in ("one", "two"))
    with pytest.raises(InputError, match=r"(?s)sources\.one\.path.*sources\.two\.path"):
        run(missing, str(tmp_path / "out"))


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 50)), max_size=30), st.integers(1, 5)
)
def test_every_file_is_dealt_once(files: list[tuple[str, int]], num_shards: int) -> None:
    references = [
        FileReference(repo, f"{i}.py", "", size, "x") for i, (repo, size) in enumerate(files)
    ]
    shards = ingest.assign_shards(references, num_shards, seed=1)
    assert sorted(r.path for s in shards for r in s) == sorted(r.path for r in references)
    total = sum(size for _, size in files)
    for repo in "abcd":
        own = sum(size for name, size in files if name == repo)
        if own * num_shards <= total:
            assert sum(any(r.repo == repo for r in s) for s in shards) <= 1


TEXT = st.text(max_size=8)


@given(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
def test_ids(a: str, b: str, c: str, x: str, y: str, z: str) -> None:
    first, second = ingest.document_id(a, b, c), ingest.document_id(x, y, z)
    assert len(first) == 32
    if "\0" not in a + b + x + y:
        assert (first == second) == ((a, b, c) == (x, y, z))
