"""The duplicates stage over small corpora, through Beam: what is found, and what is kept."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines import documents, duplicate_candidates, duplicate_pairs, duplicates
from beam_pipelines.documents import DOCUMENT_SCHEMA, VERDICT_FIELDS
from beam_pipelines.options import local_options
from snowcoder_jax import parquet, recipe_corpus, storage
from snowcoder_jax.errors import InputError

KEY = "k"
CONFIG = recipe_corpus.Duplicates()
VOCABULARY = [f"name{i}" for i in range(3_000)]
DRAWN = random.Random(2)

Row = dict[str, Any]


def words(size: int) -> list[str]:
    return DRAWN.choices(VOCABULARY, k=size)


def changed(tokens: Sequence[str], num_words: int) -> list[str]:
    """With this many words replaced; the length in words stays."""
    copy = list(tokens)
    for at in DRAWN.sample(range(len(copy)), num_words):
        copy[at] = DRAWN.choice(VOCABULARY)
    return copy


def text(tokens: Sequence[str], separator: str = " ") -> str:
    lines = [separator.join(tokens[i : i + 8]) for i in range(0, len(tokens), 8)]
    return "\n".join(lines) + "\n"


def row(
    repo: str, content: str, path: str = "a.py", stars: int | None = None, license_id: str = "MIT"
) -> Row:
    return {
        "id": hashlib.sha256(f"{repo}\0{path}\0{content}".encode()).hexdigest()[:32],
        "repo": repo,
        "path": path,
        "language": "Python",
        "license": license_id,
        "stars": stars,
        "content": content,
    }


def write_corpus(folder: str, shards: Sequence[Sequence[Row]]) -> str:
    for index, rows in enumerate(shards):
        table = pa.Table.from_pylist(list(rows), DOCUMENT_SCHEMA)
        path = storage.join(folder, "documents", "s", f"part-{index:05d}.parquet")
        documents.write_batches(path, DOCUMENT_SCHEMA, iter([table]), KEY)
    return folder


def dealt(rows: Sequence[Any], num_shards: int) -> list[list[Any]]:
    return [list(rows[index::num_shards]) for index in range(num_shards)]


def run(corpus: str, output: Path, verdicts: Sequence[str] = (), workers: int = 1) -> str:
    duplicates.run(
        corpus,
        CONFIG,
        output=str(output),
        key=KEY,
        options=local_options(workers),
        verdicts=verdicts,
    )
    return str(output)


def read(corpus: str, folder: str) -> dict[tuple[str, str], Row]:
    """The stage's rows by (repository, path)."""
    found = {}
    for shard in documents.list_shards(corpus):
        of_documents = parquet.read_table(storage.join(shard.documents, shard.relative))
        of_stage = parquet.read_table(documents.attribute_path(folder, shard))
        assert of_documents["id"].equals(of_stage["id"])
        for a, b in zip(of_documents.to_pylist(), of_stage.to_pylist(), strict=True):
            found[a["repo"], a["path"]] = b
    return found


def files(folder: str) -> dict[str, bytes]:
    return {os.path.relpath(p, folder): storage.read_bytes(p) for p in storage.list_files(folder)}


def plain_shingles(content: str) -> set[tuple[str, ...]]:
    found = re.findall(r"[A-Za-z0-9_]+", content)
    return {tuple(found[i : i + 5]) for i in range(len(found) - 4)}


def plain_jaccard(a: str, b: str) -> float:
    x, y = plain_shingles(a), plain_shingles(b)
    return len(x & y) / len(x | y)


ORIGINAL = words(400)
SINGLES = [row(f"single{i}", text(words(60 + i))) for i in range(40)]
FAMILY = [
    row("popular", text(ORIGINAL), "z.py", stars=10),
    row("fork", text(ORIGINAL).replace("\n", "\r\n"), stars=3),
    row("edited", text(changed(ORIGINAL, 4)), stars=5),
    row("unknown", text(changed(ORIGINAL, 5))),
]
TWINS = [row(r, "twin text of two words each\n", p) for r, p in ("bx", "ay", "ax")]
EMPTY = [row("e", " \n" * i, f"{i}.py") for i in range(3)]
TEMPLATE = words(300)  # so many variants that not all are compared with each other
CROWD = [row(f"crowd{i}", text(changed(TEMPLATE, 1 + i % 9))) for i in range(60)]
ROWS = [*SINGLES, *FAMILY, *TWINS, *EMPTY, *CROWD]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("corpus"))
    return write_corpus(folder, [*dealt(ROWS, 3), []])  # the last shard is empty


@pytest.fixture(scope="module")
def judged(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return run(corpus, tmp_path_factory.mktemp("judged"))


def test_every_document_of_a_cluster_says_why(corpus: str, judged: str) -> None:
    found = read(corpus, judged)
    assert len(found) == len(ROWS)

    def verdict(repo: str, path: str = "a.py") -> tuple[Any, ...]:
        r = found[repo, path]
        return r["verdict"], r["rule"], r["kept"], r["cluster"], r["cluster_size"]

    popular = FAMILY[0]["id"]
    assert verdict("popular", "z.py") == ("pass", None, True, popular, 4)
    assert verdict("fork") == ("drop", "exact_duplicate", False, popular, 4)
    for own in FAMILY[2:]:
        assert verdict(own["repo"]) == ("drop", "near_duplicate", False, popular, 4)
        others = [r for r in FAMILY if r is not own]
        largest = max(plain_jaccard(own["content"], r["content"]) for r in others)
        r = found[own["repo"], "a.py"]
        assert (r["value"], r["threshold"]) == (pytest.approx(largest), CONFIG.threshold)
    assert verdict("a", "x") == ("pass", None, True, TWINS[2]["id"], 3)
    exact = ("drop", "exact_duplicate", False, TWINS[2]["id"], 3)
    assert verdict("a", "y") == verdict("b", "x") == exact
    assert Counter(found["e", f"{i}.py"]["kept"] for i in range(3)) == {True: 1, False: 2}
    for single in SINGLES:
        r = found[single["repo"], single["path"]]
        assert r == {
            **dict.fromkeys(("rule", "value", "threshold")),
            "id": single["id"],
            "verdict": "pass",
            "cluster": single["id"],
            "cluster_size": 1,
            "kept": True,
        }


def test_nothing_but_the_verdicts_stays(corpus: str, judged: str) -> None:
    names = {f"s/part-{i:05d}.parquet{s}" for i in range(4) for s in ("", ".manifest.json")}
    assert set(files(judged)) == {*names, "stage.json"}


def test_corpus_without_documents(tmp_path: Path) -> None:
    corpus = write_corpus(str(tmp_path / "corpus"), [[], []])
    with pytest.raises(InputError, match="holds no rows"):
        run(corpus, tmp_path / "out")


def test_corpus_without_duplicates(tmp_path: Path) -> None:
    corpus = write_corpus(str(tmp_path / "corpus"), [SINGLES])
    assert all(r["kept"] for r in read(corpus, run(corpus, tmp_path / "out")).values())


# From the worst to the best: each is better than the one before by one criterion, and worse by
# all that come after it.
def ladder_of(size: int) -> list[tuple[Row, bool]]:
    base = text(words(200))
    long = base + text(words(3))
    return [
        (row("y", base, "y.py", license_id="GPL-3.0-only"), False),
        (row("y", base, "x.py", license_id="GPL-3.0-only"), False),  # path
        (row("x", base, "z.py", license_id="GPL-3.0-only"), False),  # repository
        (row("z", long, "z.py", license_id="GPL-3.0-only"), False),  # length
        (row("zz", base, "z.py", stars=1, license_id="GPL-3.0-only"), False),  # stars
        (row("zz", base, "zz.py", license_id="GPL-2.0-only OR MIT"), False),  # licence
        (row("zz", base, "zzz.py", license_id=""), True),  # the other judges
    ][:size]


@pytest.mark.parametrize("best", range(2, 8))
def test_the_best_of_a_cluster_is_kept(best: int, tmp_path: Path) -> None:
    ladder = ladder_of(best)
    expected = ladder[-1][0]["id"]
    DRAWN.shuffle(ladder)
    shards = dealt(ladder, 2)
    corpus = write_corpus(str(tmp_path / "corpus"), [[r for r, _ in shard] for shard in shards])
    schema = pa.schema([("id", pa.string()), *VERDICT_FIELDS])
    judges = [str(tmp_path / "rules"), str(tmp_path / "contamination")]
    for number, folder in enumerate(judges):
        for shard, rows in zip(documents.list_shards(corpus), shards, strict=True):
            # A document that fails fails one of the judges; an error or nothing is no pass either.
            failed = ["drop", "error", None][best % 3]
            verdicts = ["pass" if ok or number else failed for _, ok in rows]
            table = pa.table({"id": [r["id"] for r, _ in rows], "verdict": verdicts})
            for name in ("rule", "value", "threshold"):
                table = table.append_column(name, pa.nulls(len(rows), schema.field(name).type))
            path = documents.attribute_path(folder, shard)
            documents.write_batches(path, schema, iter([table.cast(schema)]), KEY)
    found = read(corpus, run(corpus, tmp_path / "out", judges)).values()
    assert [r["id"] for r in found if r["kept"]] == [expected]
    assert {r["cluster"] for r in found} == {expected}


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(corpus: str, judged: str, tmp_path: Path) -> None:
    assert files(run(corpus, tmp_path, workers=2)) == files(judged)


def test_many_parts_find_what_one_finds(
    corpus: str, judged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a large corpus is dealt to, with bounds of a few documents."""
    monkeypatch.setattr(duplicate_pairs, "_DOCUMENTS_IN_A_SLICE", 9)
    monkeypatch.setattr(duplicate_pairs, "_DOCUMENTS_IN_AN_EXACT_PART", 7)
    monkeypatch.setattr(duplicate_candidates, "_MAX_HELD_PAIRS", 1)
    monkeypatch.setattr(duplicate_pairs, "_ROWS_IN_A_VALUE", 3)
    monkeypatch.setattr(duplicate_pairs, "_BATCH_ROWS", 2)
    assert files(run(corpus, tmp_path)) == files(judged)


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(shard_of=st.lists(st.integers(0, 2), min_size=len(ROWS), max_size=len(ROWS)))
def test_verdicts_do_not_depend_on_shards(
    corpus: str,
    judged: str,
    shard_of: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("dealt")
    shards: list[list[Row]] = [[], [], []]
    for r, shard in zip(ROWS, shard_of, strict=True):
        shards[shard].insert(0, r)
    other = write_corpus(str(folder / "corpus"), shards)
    assert read(other, run(other, folder / "out")) == read(corpus, judged)


# -- precision and recall


def planted() -> list[Row]:
    """Families of each kind, about the threshold and far from it."""
    DRAWN.seed(5)
    rows: list[Row] = []

    def add(family: str, content: str) -> None:
        rows.append(row(f"{family}-{len(rows)}", content))

    for number in range(60):
        original = words(DRAWN.randint(60, 400))
        add("original", text(original))
        # A replaced word costs up to five of the shingles: similarities from 0.5 to 0.95.
        share = (0.005, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08)[number % 7]
        for _ in range(DRAWN.randint(1, 4)):
            add("edited", text(changed(original, max(1, round(share * len(original))))))
    for _ in range(10):
        version = words(300)
        for _ in range(8):  # a chain: each near to the one before, the ends far apart
            add("chain", text(version))
            version = changed(version, 10)
    for _ in range(20):
        original = words(DRAWN.randint(8, 300))
        add("exact", text(original))
        add("exact", text(original).replace("\n", "\r\n"))
        add("reformatted", text(original, separator=" (\n\t"))
    return rows


def stars(sizes: Sequence[int] = (200, 350, 500)) -> list[Row]:
    """Templates, which are near to all of their variants; the variants are not to each other."""
    DRAWN.seed(6)
    rows: list[Row] = []
    for size in sizes:
        template = words(300)
        rows.append(row(f"template-{size}", text(template)))
        rows += [row(f"variant-{size}-{i}", text(changed(template, 9))) for i in range(size)]
    DRAWN.shuffle(rows)
    return rows


def pairs_of(cluster_of: dict[str, str]) -> set[tuple[str, ...]]:
    """Pairs of documents in one cluster."""
    clusters: dict[str, list[str]] = {}
    for document, cluster in cluster_of.items():
        clusters.setdefault(cluster, []).append(document)
    return {pair for of in clusters.values() for pair in itertools.combinations(sorted(of), 2)}


def union_find(edges: Sequence[tuple[Any, Any]], vertices: Sequence[Any]) -> dict[Any, Any]:
    parent = {v: v for v in vertices}

    def find(x: Any) -> Any:
        while parent[x] != x:
            x = parent[x]
        return x

    for a, b in edges:
        low, high = sorted((find(a), find(b)))
        parent[high] = low
    return {v: find(v) for v in vertices}


def brute_force(rows: Sequence[Row]) -> set[tuple[str, ...]]:
    """Pairs of one component of the graph of all pairs at the threshold."""
    number: dict[tuple[str, ...], int] = {}
    bits = {}  # of each document's shingles
    for r in rows:
        chosen = [number.setdefault(s, len(number)) for s in plain_shingles(r["content"])]
        digits = np.zeros(len(number), np.uint8)
        digits[chosen] = 1
        bits[r["id"]] = int.from_bytes(np.packbits(digits, bitorder="little").tobytes(), "little")
    edges = [
        (a, b)
        for (a, x), (b, y) in itertools.combinations(bits.items(), 2)
        if (x & y).bit_count() >= CONFIG.threshold * (x | y).bit_count()
    ]
    return pairs_of(union_find(edges, list(bits)))


@pytest.mark.parametrize("kind", ["of each kind", "stars"])
def test_precision_and_recall_against_brute_force(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = stars() if kind == "stars" else planted()
    expected = brute_force(rows)
    corpus = write_corpus(str(tmp_path / "corpus"), dealt(rows, 3))
    judged = read(corpus, run(corpus, tmp_path / "out"))
    found = pairs_of({r["id"]: r["cluster"] for r in judged.values()})
    precision = len(found & expected) / len(found)
    recall = len(found & expected) / len(expected)
    with capsys.disabled():
        print(
            f"\nduplicates stage, families {kind}, {len(rows)} planted documents, "
            f"{len(expected)} pairs of one cluster: precision {precision:.4f}, recall {recall:.4f}"
        )
    assert precision >= 0.99
    assert recall >= 0.95


def test_crowds_do_not_depend_on_the_order_of_documents(tmp_path: Path) -> None:
    rows = stars(sizes=(120, 60))
    corpora = [dealt(rows, 1), dealt(rows[::-1], 3)]
    judged = []
    for number, shards in enumerate(corpora):
        corpus = write_corpus(str(tmp_path / f"corpus-{number}"), shards)
        judged.append(read(corpus, run(corpus, tmp_path / f"out-{number}")))
    assert judged[0] == judged[1]
    assert sum(r["kept"] for r in judged[0].values()) == 2


# -- memory

# Not `ru_maxrss`, which a child takes over from the process that starts it.
_PEAK_OF_A_RUN = """
import sys
from beam_pipelines import duplicates
from beam_pipelines.options import local_options
from snowcoder_jax import recipe_corpus
corpus, output = sys.argv[1:]
duplicates.run(
    corpus, recipe_corpus.Duplicates(), output=output, key="k", options=local_options()
)
status = open("/proc/self/status").read()
print(1024 * int(status.split("VmHWM:")[1].split()[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_grows_by_less_than_a_kilobyte_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peaks = []
    sizes = (5_000, 40_000)
    for size in sizes:
        rng = np.random.default_rng(size)
        rows = [
            row(f"r{i}", " ".join(f"w{x:x}" for x in rng.integers(0, 2**31, 40)))
            for i in range(size)
        ]
        corpus = write_corpus(str(tmp_path / f"{size}"), dealt(rows, 4))
        command = [sys.executable, "-c", _PEAK_OF_A_RUN, corpus, str(tmp_path / f"out-{size}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout.split()[-1]))
    growth = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    with capsys.disabled():
        print(f"\nduplicates stage: peak memory grows by {growth:.0f} bytes a document")
    assert growth <= 1_000
