"""The seeds stage: exact shares, clean texts, the same parts however it is run or killed."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_corpus import KEY, Corpus, Row, row

from beam_pipelines import seeds as stage
from beam_pipelines.options import local_options
from beam_pipelines.select import SELECTION_SCHEMA
from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.synthesis import seed_parts, seeds

EMAIL = "someone@corp-mail.org"
NUM_SHARDS = 3


def make_rows() -> list[Row]:
    counts = {"Python": (".py", 40), "Go": (".go", 24), "Java": (".java", 8), "C": (".c", 6)}
    rows = [
        row(f"repo{i % 7}", f"f{i}{ending}", language, f"{language} {i} {EMAIL} text\n", "MIT")
        for language, (ending, num) in counts.items()
        for i in range(num)
    ]
    for r in rows:
        start = r["content"].index(EMAIL)
        r["spans"] = [{"start": start, "end": start + len(EMAIL), "kind": "email"}]
    return rows


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"), make_rows(), NUM_SHARDS)


def job(corpus: Corpus, **changed: Any) -> stage.SeedJob:
    # A tenth of the files were not selected, those of the path f1.
    selection = corpus.write(
        "selection",
        SELECTION_SCHEMA,
        lambda r: {"id": r["id"], "selected": not r["path"].startswith("f1.")},
    )
    quality = corpus.write(
        "quality",
        pa.schema([("id", pa.string()), ("score", pa.float32())]),
        lambda r: {"id": r["id"], "score": None if r["language"] == "Go" else 0.25},
    )
    settings: dict[str, Any] = {
        "corpus": corpus.root,
        "secrets": corpus.secrets,
        "selection": selection,
        "quality": quality,
        "usable_languages": ("Python", "Go", "Java"),
        "num_seeds": 20,
        "language_shares": {"Python": 0.5},
        "seed": 5,
    }
    return stage.SeedJob(**{**settings, **changed})


def run(drawn: stage.SeedJob, folder: Path, workers: int = 1) -> dict[str, Any]:
    return stage.run(drawn, output=str(folder), key=KEY, options=local_options(workers))


def read(folder: Path) -> list[Row]:
    paths = storage.list_files(str(folder), ".parquet")
    rows: list[Row] = pa.concat_tables([pq.read_table(p) for p in paths]).to_pylist()
    return rows


def test_seeds_have_the_shares_their_texts_and_where_they_come_from(
    corpus: Corpus, tmp_path: Path
) -> None:
    facts = run(job(corpus), tmp_path)
    assert facts["available"] == {"Go": 23, "Java": 7, "Python": 39}
    assert facts["drawn"] == facts["wanted"] == {"Go": 8, "Java": 2, "Python": 10}
    assert facts["unusable"] == {"C": 5}
    assert storage.read_json(str(tmp_path / "seeds.json")) == facts
    rows = read(tmp_path)
    assert collections.Counter(r["language"] for r in rows) == facts["drawn"]
    assert len({r["id"] for r in rows}) == len(rows) == facts["seeds"] == 20
    documents = {r["id"]: r for r in corpus.rows}
    for found in rows:
        document = documents[found["id"]]
        assert document["path"][:3] != "f1."
        assert all(found[name] == document[name] for name in ("repo", "path", "license"))
        assert found["score"] == (0.0 if found["language"] == "Go" else 0.25)
        assert EMAIL not in found["text"]
        assert found["text"].startswith(document["content"].split(EMAIL)[0])


def test_of_a_language_those_of_the_smallest_hashes_are_drawn(
    corpus: Corpus, tmp_path: Path
) -> None:
    run(job(corpus), tmp_path)
    eligible = [
        r["id"] for r in corpus.rows if r["language"] == "Python" and r["path"][:3] != "f1."
    ]
    expected = sorted(eligible, key=lambda i: seeds.seed_hash(5, i))[:10]
    assert {r["id"] for r in read(tmp_path) if r["language"] == "Python"} == set(expected)


def test_there_is_a_part_for_each_shard_and_those_that_ask_can_read_them(
    corpus: Corpus, tmp_path: Path
) -> None:
    run(job(corpus, num_seeds=3), tmp_path)
    names = [Path(p).name for p in seed_parts.part_paths(str(tmp_path))]
    assert names == [f"part-{n:05d}.parquet" for n in range(NUM_SHARDS)]
    for path in tmp_path.glob("*.parquet"):
        assert pq.read_table(path).schema.equals(seeds.SEED_SCHEMA)
    found = list(seed_parts.read_seeds(str(tmp_path)))
    assert {seed.id for seed in found} == {r["id"] for r in read(tmp_path)}
    assert seed_parts.count_seeds(str(tmp_path)) == 3
    draws = {r["id"]: r["draw"] for r in read(tmp_path)}
    (first,) = seed_parts.read_seeds(str(tmp_path), 1)
    assert draws[first.id] == min(draws.values())


def test_until_it_is_exhausted(corpus: Corpus, tmp_path: Path) -> None:
    facts = run(job(corpus, num_seeds=None), tmp_path)
    assert facts["drawn"] == facts["available"]
    assert len({r["draw"] for r in read(tmp_path)}) == facts["seeds"] == 69


def test_the_same_parts_with_two_workers_and_after_a_kill(corpus: Corpus, tmp_path: Path) -> None:
    one, two, killed = tmp_path / "one", tmp_path / "two", tmp_path / "killed"
    facts = run(job(corpus), one)
    assert run(job(corpus), two, workers=2) == facts
    run(job(corpus), killed)
    # Killed before one part was vouched for, and half-way in another.
    (killed / "part-00000.parquet.manifest.json").unlink()
    (killed / "part-00001.parquet").write_bytes(b"PAR1")
    assert run(job(corpus), killed) == facts

    def files(folder: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    assert files(one) == files(two) == files(killed)


def test_other_seeds_of_chance_draw_others(corpus: Corpus, tmp_path: Path) -> None:
    run(job(corpus), tmp_path / "a")
    run(job(corpus, seed=6), tmp_path / "b")
    assert {r["id"] for r in read(tmp_path / "a")} != {r["id"] for r in read(tmp_path / "b")}


def test_without_a_usable_document_the_user_is_told(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no document .* \(74 are in languages"):
        run(job(corpus, usable_languages=("Rust",)), tmp_path)
    with pytest.raises(InputError, match="language_shares"):
        run(job(corpus, language_shares={"Rust": 1.0}), tmp_path)
