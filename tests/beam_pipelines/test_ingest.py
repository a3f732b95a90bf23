"""From sources to shards: the same bytes however it is run, and nothing lost without a reason."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines import documents, exchange, ingest
from beam_pipelines.options import local_options
from snowcoder_jax import languages, parquet, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_corpus import Corpus, FolderSource, JsonlSource, ParquetSource
from snowcoder_jax.sources.documents import LedgerRow, SourceDocument

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
    assert not (root / "corpus/exchange").exists()


def test_shards(ingested: tuple[Path, tuple[FolderSource, ...], Any]) -> None:
    root, _, summary = ingested
    shards = documents.list_shards(str(root / "corpus"))
    assert len(shards) == 2 * CONFIG.num_shards
    where: dict[str, set[str]] = {}
    num_rows = 0
    for shard in shards:
        table = parquet.read_table(storage.join(shard.documents, shard.relative))
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


def test_a_ledger_that_was_lost_is_made_again(
    ingested: tuple[Path, tuple[FolderSource, ...], Any],
) -> None:
    root, sources, summary = ingested
    ledger = root / "corpus/ledger/code.parquet"
    before = ledger.read_bytes()
    ledger.unlink()
    assert run(sources, str(root / "corpus")) == summary
    assert ledger.read_bytes() == before


def test_source_without_a_document(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/readme.txt").write_text("x")
    with pytest.raises(InputError, match=r"sources\.s: none of its 1 files .*language: 1"):
        run((FolderSource("s", str(tmp_path / "code")),), str(tmp_path / "out"))


def test_missing_sources_are_all_named(tmp_path: Path) -> None:
    missing = tuple(FolderSource(n, str(tmp_path / n)) for n in ("one", "two"))
    with pytest.raises(InputError, match=r"(?s)sources\.one\.path.*sources\.two\.path"):
        run(missing, str(tmp_path / "out"))


def test_killed_between_the_pieces_and_the_shards(
    ingested: tuple[Path, tuple[FolderSource, ...], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pieces that are done are not read again; one that was not finished is."""
    root, sources, summary = ingested
    output = tmp_path / "corpus"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_repositories", killed)
        with pytest.raises(KeyboardInterrupt):
            run(sources, str(output))
    pieces = sorted((output / "exchange/code").glob("*.arrow"))
    assert len(pieces) == 7
    (output / "exchange/code/piece-00001.done.json").unlink()
    pieces[1].write_bytes(b"half")
    before = pieces[2].stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_repositories", killed)
        with pytest.raises(KeyboardInterrupt):
            run(sources, str(output))
    assert pieces[2].stat().st_mtime_ns == before
    assert run(sources, str(output)) == summary
    assert parquet_bytes(output) == parquet_bytes(root / "corpus")


def test_tables_and_archives_give_the_shards_of_the_folder(tmp_path: Path) -> None:
    """However the same files come, in how many pieces and runs, they end in the same shards."""
    code = make_sources(tmp_path)[:1]
    rows = []
    for path in sorted((tmp_path / "code").rglob("*")):
        if path.is_file():
            repo, name = path.parent.name, path.name
            text = path.read_text() if name != "binary.py" else "\0"
            rows.append({"repo": repo, "path": name, "content": text, "license": "MIT"})
    rows.reverse()
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "code.parquet", row_group_size=7)
    (tmp_path / "lines").mkdir()
    for part in range(3):
        with open(tmp_path / f"lines/{part}.jsonl", "w") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows[part::3])
    for repo in sorted((tmp_path / "code").iterdir()):
        shutil.make_archive(str(tmp_path / "zips" / repo.name), "zip", repo)

    expected = run(code, str(tmp_path / "out/folder"))
    for name, source in {
        "parquet": ParquetSource("code", str(tmp_path / "code.parquet")),
        "lines": JsonlSource("code", str(tmp_path / "lines")),
        "zips": FolderSource("code", str(tmp_path / "zips"), license="MIT"),
    }.items():
        assert run((source,), str(tmp_path / "out" / name)) == expected
        assert parquet_bytes(tmp_path / "out" / name) == parquet_bytes(tmp_path / "out/folder")


def test_opt_out_list(tmp_path: Path) -> None:
    code = make_sources(tmp_path)[:1]
    (tmp_path / "no.txt").write_text("REPO3\nnobody/nothing\n")
    config = dataclasses.replace(CONFIG, opt_out=str(tmp_path / "no.txt"))
    arguments: dict[str, Any] = {"seed": 5, "key": "k", "options": local_options()}
    summary = ingest.run(code, config, output=str(tmp_path / "out"), **arguments)
    assert summary["documents"] == 30
    assert summary["ledger"]["opted_out"] == 1
    config = dataclasses.replace(CONFIG, opt_out=str(tmp_path / "gone.txt"))
    with pytest.raises(InputError, match=r"corpus\.opt_out"):
        ingest.run(code, config, output=str(tmp_path / "other"), **arguments)


def document(repo: str, path: str, content: str) -> SourceDocument:
    return SourceDocument(repo, path, "Python", "MIT", None, content.encode())


FILES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.text(max_size=20)), max_size=30
)


@given(FILES, st.integers(1, 5), st.integers(1, 60), st.integers(1, 4))
def test_every_document_goes_to_one_shard_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[str, str, str]],
    num_shards: int,
    run_bytes: int,
    num_pieces: int,
) -> None:
    """Of any runs and batches, however small."""
    folder = tmp_path_factory.mktemp("exchange")
    deal = exchange.Dealing(num_shards, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "RUN_BYTES", run_bytes)
        patch.setattr(exchange, "BATCH_BYTES", 7)
        patch.setattr(exchange, "ROW_GROUP_ROWS", 3)
        pieces = [exchange.PieceFiles(str(folder / str(n))) for n in range(num_pieces)]
        for n, piece in enumerate(pieces):
            items = [document(*file) for file in files[n::num_pieces]]
            row = LedgerRow("r", str(n), "binary", 1)
            exchange.write_piece([*items, None, row], piece, deal, "key")
            assert piece.is_done("key")
            assert not piece.is_done("other")
            assert parquet.read_table(piece.ledger).num_rows == 1
        sizes = [parquet.read_table(piece.repos) for piece in pieces]
        repos = pa.concat_tables(sizes).group_by("repo").aggregate([("bytes", "sum")])
        spread = exchange.too_big(repos["repo"], repos["bytes_sum"], num_shards)
        total = sum(len(content.encode()) for _, _, content in files)
        for repo in "abcd":
            own = sum(len(content.encode()) for r, _, content in files if r == repo)
            assert (repo in spread) == (own > total // num_shards)
        deal = exchange.Dealing(num_shards, 1, spread)
        found = []
        for index in range(num_shards):
            tables, counts = exchange.merge(pieces, index, deal)
            rows = [row for table in tables for row in table.to_pylist()]
            order = [(row["repo"], row["path"]) for row in rows]
            assert order == sorted(order)
            assert all(deal.shard(row["repo"], row["path"]) == index for row in rows)
            assert sum(c["documents"] for c in counts.values()) == len(rows)
            assert sum(c["bytes"] for c in counts.values()) == sum(
                len(row["content"].encode()) for row in rows
            )
            found += [(row["repo"], row["path"], row["content"]) for row in rows]
    assert sorted(found) == sorted(files)


TEXT = st.text(max_size=8)


@given(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
def test_ids(a: str, b: str, c: str, x: str, y: str, z: str) -> None:
    first, second = ingest.document_id(a, b, c), ingest.document_id(x, y, z)
    assert len(first) == 32
    if "\0" not in a + b + x + y:
        assert (first == second) == ((a, b, c) == (x, y, z))
