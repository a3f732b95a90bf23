"""Duplicates of another corpus: what a reference has is not kept again, given heads aside."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from small_corpus import KEY, Row, row

from beam_pipelines import documents, duplicates
from beam_pipelines.documents import DOCUMENT_SCHEMA
from beam_pipelines.options import local_options
from snowcoder_jax import parquet, recipe_corpus, storage

CONFIG = recipe_corpus.Duplicates()
DRAWN = random.Random(4)
VOCABULARY = [f"name{i}" for i in range(3_000)]


def words(size: int) -> list[str]:
    return DRAWN.choices(VOCABULARY, k=size)


def text(tokens: Sequence[str]) -> str:
    return "\n".join(" ".join(tokens[i : i + 8]) for i in range(0, len(tokens), 8)) + "\n"


def changed(tokens: Sequence[str], num_words: int) -> list[str]:
    copy = list(tokens)
    for at in DRAWN.sample(range(len(copy)), num_words):
        copy[at] = DRAWN.choice(VOCABULARY)
    return copy


def write_corpus(folder: Path, rows: Sequence[Row], num_shards: int = 2) -> str:
    for index in range(num_shards):
        table = pa.Table.from_pylist(list(rows[index::num_shards]), DOCUMENT_SCHEMA)
        path = str(folder / "documents/s" / f"part-{index:05d}.parquet")
        documents.write_batches(path, DOCUMENT_SCHEMA, iter([table]), KEY)
    return str(folder)


def write_heads(folder: Path, corpus: str, heads: dict[str, int]) -> str:
    for shard in documents.list_shards(corpus):
        ids = parquet.read_table(storage.join(shard.documents, shard.relative), ["id"])["id"]
        sizes = pa.array([heads.get(i, 0) for i in ids.to_pylist()], pa.int64())
        table = pa.table({"id": ids, "head_bytes": sizes})
        path = documents.attribute_path(str(folder), shard)
        documents.write_batches(path, table.schema, iter([table]), KEY)
    return str(folder)


def judge(
    corpus: str,
    output: Path,
    references: Sequence[str],
    heads: str | None = None,
    workers: int = 1,
) -> dict[str, Row]:
    """The stage's rows by id."""
    options: dict[str, Any] = {"key": KEY, "options": local_options(workers)}
    duplicates.run(
        corpus, CONFIG, output=str(output), references=references, heads=heads, **options
    )
    rows: list[Row] = []
    for shard in documents.list_shards(corpus):
        rows += parquet.read_table(documents.attribute_path(str(output), shard)).to_pylist()
    return {r["id"]: r for r in rows}


REAL, OTHER, TWIN, LONE = words(300), words(300), words(300), words(300)
# Of the reference: a file, an edit of it (near each other), something else.
KNOWN = [
    row("real", "a.py", "Python", text(REAL)),
    row("real", "b.py", "Python", text(changed(REAL, 6))),
    row("real", "c.py", "Python", text(OTHER)),
]
NEAR = row("new", "near.py", "Python", text([*changed(REAL, 5), *words(9)]))
EXACT = row("new", "exact.py", "Python", text(OTHER))
TWINS = [row("new", f"twin{i}.py", "Python", text(changed(TWIN, i * 3))) for i in range(2)]
FRESH = row("new", "fresh.py", "Python", text(LONE))


def test_what_a_reference_has_is_dropped_and_the_rest_compared_as_ever(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "new", [NEAR, EXACT, *TWINS, FRESH])
    reference = write_corpus(tmp_path / "real", KNOWN, num_shards=3)
    found = judge(corpus, tmp_path / "out", [reference])
    assert len(found) == 5
    near, exact, fresh = found[NEAR["id"]], found[EXACT["id"]], found[FRESH["id"]]
    assert (near["verdict"], near["rule"], near["kept"]) == ("drop", "near_duplicate", False)
    assert CONFIG.threshold <= near["value"] < 1
    assert near["cluster"] in {KNOWN[0]["id"], KNOWN[1]["id"]}
    assert (exact["verdict"], exact["rule"]) == ("drop", "exact_duplicate")
    assert exact["cluster"] == KNOWN[2]["id"]
    assert fresh["verdict"] == "pass"
    assert sorted(found[t["id"]]["verdict"] for t in TWINS) == ["drop", "pass"]
    # Nothing is written of the reference, and without it all but the twins are new.
    names = {Path(p).name for p in storage.list_files(str(tmp_path / "out"), ".parquet")}
    assert names == {"part-00000.parquet", "part-00001.parquet"}
    alone = judge(corpus, tmp_path / "alone", [])
    assert [r["verdict"] for r in alone.values()].count("drop") == 1


def test_a_better_document_of_the_corpus_does_not_beat_a_reference(tmp_path: Path) -> None:
    longer = row("new", "a.py", "Python", text([*REAL, *words(30)])) | {"stars": 900}
    worse = row("real", "z.py", "Python", text(REAL), license_id="GPL-3.0-only")
    corpus = write_corpus(tmp_path / "new", [longer], num_shards=1)
    found = judge(corpus, tmp_path / "out", [write_corpus(tmp_path / "real", [worse])])
    assert found[longer["id"]]["verdict"] == "drop"
    assert found[longer["id"]]["cluster"] == worse["id"]


def test_a_given_head_is_not_compared(tmp_path: Path) -> None:
    """One goes on from a known file by new text, the other from a new head by a known file."""
    given = text(REAL)
    new_rest = row("new", "rest.py", "Python", given + text(words(90)))
    new_head = row("new", "head.py", "Python", "x = 'é'\n" + text(OTHER))
    corpus = write_corpus(tmp_path / "new", [new_rest, new_head, FRESH])
    reference = write_corpus(tmp_path / "real", KNOWN)
    sizes = {new_rest["id"]: len(given.encode()), new_head["id"]: len("x = 'é'\n".encode())}
    heads = write_heads(tmp_path / "heads", corpus, sizes)
    found = judge(corpus, tmp_path / "out", [reference], heads)
    assert found[new_rest["id"]]["verdict"] == "pass"
    assert found[new_head["id"]]["rule"] == "exact_duplicate"
    without = judge(corpus, tmp_path / "without", [reference])
    assert without[new_rest["id"]]["rule"] == "near_duplicate"


def test_many_references_under_one_key_hide_none_of_the_corpus(tmp_path: Path) -> None:
    """Large groups are not compared pair by pair."""
    known = [row(f"real{i}", "a.py", "Python", text(changed(REAL, 2))) for i in range(60)]
    new = [row(f"new{i}", "a.py", "Python", text(changed(REAL, 2))) for i in range(30)]
    corpus = write_corpus(tmp_path / "new", new)
    found = judge(corpus, tmp_path / "out", [write_corpus(tmp_path / "real", known)])
    assert {r["verdict"] for r in found.values()} == {"drop"}
    assert {r["cluster"] for r in found.values()} <= {r["id"] for r in known}


@pytest.mark.slow
def test_two_workers_write_the_same(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "new", [NEAR, EXACT, *TWINS, FRESH])
    reference = write_corpus(tmp_path / "real", KNOWN)
    one = judge(corpus, tmp_path / "one", [reference])
    assert judge(corpus, tmp_path / "two", [reference], workers=2) == one
    for path in (tmp_path / "one").rglob("*.parquet"):
        assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == (
            path.read_bytes()
        )
