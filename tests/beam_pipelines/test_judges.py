"""Rules, secrets, contamination and duplicates over a small corpus, through Beam."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from beam_pipelines import contamination, documents, duplicates, ingest, rules, secrets
from beam_pipelines.documents import DOCUMENT_SCHEMA
from beam_pipelines.options import local_options
from snowcoder_jax import recipe, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.text import duplicates as text_duplicates
from snowcoder_jax.text.contamination import shipped_references
from snowcoder_jax.text.reader import clean_text

KEY = "k"
DRAWN = random.Random(2)
VOCABULARY = [f"name{i}" for i in range(3_000)]


def words(size: int) -> list[str]:
    return DRAWN.choices(VOCABULARY, k=size)


def changed(text: list[str], num_words: int) -> list[str]:
    copy = list(text)
    for _ in range(num_words):
        copy[DRAWN.randrange(len(copy))] = DRAWN.choice(VOCABULARY)
    return copy


def text(tokens: list[str]) -> str:
    lines = [" ".join(tokens[i : i + 8]) for i in range(0, len(tokens), 8)]
    return "\n".join(lines) + "\n"


def row(repo: str, path: str, content: str, stars: int | None = None) -> dict[str, Any]:
    language = "Jupyter Notebook" if path.endswith(".ipynb") else "Python"
    identity = ingest.document_id(repo, path, content)
    return {
        "id": identity,
        "repo": repo,
        "path": path,
        "language": language,
        "license": "MIT",
        "stars": stars,
        "content": content,
    }


ORIGINAL = words(400)
SINGLES = [row(f"single{i}", "a.py", text(words(60 + i))) for i in range(40)]
STARS = [
    row("popular", "z.py", text(ORIGINAL), stars=10),
    row("fork", "a.py", text(ORIGINAL).replace("\n", "\r\n"), stars=3),
    row("edited", "a.py", text(changed(ORIGINAL, 4)), stars=5),
    row("unknown", "a.py", text(changed(ORIGINAL, 5)), stars=None),
]
TWINS = [
    row(r, p, "twin text of two words each\n") for r, p in (("b", "x"), ("a", "y"), ("a", "x"))
]
EMPTY = [row("e", f"{i}.py", " \n" * i) for i in range(3)]
PROBLEM = shipped_references()[-1]
JUDGED = [
    row("leak", "a.py", f"import os\n{PROBLEM.text}"),
    row("mail", "a.py", "# é ask ada@analytical-engine.org\nname = 'ada'\n"),
    row("long", "a.py", "x = 1  # " + "a" * 1_001 + "\n" * 50),
    row("broken", "a.ipynb", "{"),
]
ROWS = [*SINGLES, *STARS, *TWINS, *EMPTY, *JUDGED]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("corpus"))
    for index in range(4):
        rows = ROWS[index::3] if index < 3 else []  # the last shard is empty
        rows.sort(key=lambda r: (r["repo"], r["language"], r["path"]))
        table = pa.Table.from_pylist(rows, DOCUMENT_SCHEMA)
        path = storage.join(folder, "documents", "s", f"part-{index:05d}.parquet")
        documents.write_batches(path, DOCUMENT_SCHEMA, iter([table]), KEY)
    return folder


def read(corpus: str, folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The stage's rows by (repository, path)."""
    found = {}
    for shard in documents.list_shards(corpus):
        of_documents = documents.read_table(storage.join(shard.documents, shard.relative))
        of_stage = documents.read_table(documents.attribute_path(folder, shard))
        assert of_documents["id"].equals(of_stage["id"])
        for a, b in zip(of_documents.to_pylist(), of_stage.to_pylist(), strict=True):
            found[a["repo"], a["path"]] = b
    return found


def test_rules(corpus: str, tmp_path: Path) -> None:
    out = str(tmp_path)
    assert rules.run(corpus, recipe.Rules(), output=out, key=KEY, options=local_options()) == len(
        ROWS
    )
    found = read(corpus, out)
    assert (found["long", "a.py"]["rule"], found["long", "a.py"]["value"]) == ("line", 1_010)
    assert found["broken", "a.ipynb"]["verdict"] == "error"
    assert found["broken", "a.ipynb"]["num_lines"] is None
    assert found["e", "0.py"]["rule"] == "letters"
    assert found["popular", "z.py"]["verdict"] == "pass"
    assert found["popular", "z.py"]["num_lines"] == 50


def test_secrets(corpus: str, tmp_path: Path) -> None:
    out = str(tmp_path)
    secrets.run(corpus, output=out, key=KEY, options=local_options())
    found = read(corpus, out)
    assert {r["verdict"] for r in found.values()} == {"pass"}
    assert [k for k, r in found.items() if r["spans"]] == [("mail", "a.py")]
    content = next(r["content"] for r in ROWS if r["repo"] == "mail")
    cleaned = clean_text(content, "Python", found["mail", "a.py"]["spans"])
    assert cleaned == "# é ask <EMAIL_1>\nname = 'ada'\n"


def test_contamination(corpus: str, tmp_path: Path) -> None:
    out = str(tmp_path)
    config = recipe.Contamination()
    contamination.run(corpus, config, output=out, key=KEY, options=local_options())
    dropped = {k: r for k, r in read(corpus, out).items() if r["verdict"] != "pass"}
    assert list(dropped) == [("leak", "a.py")]
    verdict = dropped["leak", "a.py"]
    assert (verdict["benchmark"], verdict["item"]) == ("shipped", PROBLEM.item)
    assert verdict["match"] in PROBLEM.text


def test_contamination_with_a_missing_file(corpus: str, tmp_path: Path) -> None:
    config = recipe.Contamination(benchmarks=(str(tmp_path / "gone.jsonl"),))
    with pytest.raises(InputError, match="does not exist"):
        contamination.run(corpus, config, output=str(tmp_path), key=KEY, options=local_options())


CONFIG = recipe.Duplicates()


def test_duplicates_keep_the_best(corpus: str, tmp_path: Path) -> None:
    out = str(tmp_path / "one")
    num_rows = duplicates.run(corpus, CONFIG, output=out, key=KEY, options=local_options())
    assert num_rows == len(ROWS)
    found = read(corpus, out)
    ids = {(r["repo"], r["path"]): r["id"] for r in ROWS}

    def verdict(repo: str, path: str = "a.py") -> tuple[Any, ...]:
        r = found[repo, path]
        return r["verdict"], r["rule"], r["kept"], r["cluster"]

    popular = ids["popular", "z.py"]
    assert verdict("popular", "z.py") == ("pass", None, True, popular)
    assert verdict("fork") == ("drop", "exact_duplicate", False, popular)
    for repo in ("edited", "unknown"):
        assert verdict(repo) == ("drop", "near_duplicate", False, popular)
        shingles = [
            text_duplicates.shingles(r["content"], CONFIG.ngram_words)
            for r in ROWS
            if r["repo"] in (repo, "popular", "edited", "unknown") and r["repo"] != repo
        ]
        own = text_duplicates.shingles(
            next(r["content"] for r in ROWS if r["repo"] == repo), CONFIG.ngram_words
        )
        largest = max(text_duplicates.jaccard(own, s) for s in shingles)
        assert found[repo, "a.py"]["value"] == pytest.approx(largest, abs=1e-6)
        assert found[repo, "a.py"]["threshold"] == CONFIG.threshold
    # Without stars the lexically first repository and path.
    assert verdict("a", "x") == ("pass", None, True, ids["a", "x"])
    assert (
        verdict("a", "y")[1:] == verdict("b", "x")[1:] == ("exact_duplicate", False, ids["a", "x"])
    )
    assert Counter(found["e", f"{i}.py"]["kept"] for i in range(3)) == {True: 1, False: 2}
    for single in SINGLES:
        key = (single["repo"], single["path"])
        assert verdict(*key) == ("pass", None, True, single["id"])


def test_duplicates_are_the_same_bytes_with_two_workers(corpus: str, tmp_path: Path) -> None:
    contents = []
    for workers in (1, 2):
        out = str(tmp_path / str(workers))
        duplicates.run(corpus, CONFIG, output=out, key=KEY, options=local_options(workers))
        paths = storage.list_files(out)
        contents.append({os.path.relpath(p, out): storage.read_bytes(p) for p in paths})
    assert contents[0] == contents[1]
    assert "stage.json" in contents[0]


def test_corpus_without_duplicates(tmp_path: Path) -> None:
    path = str(tmp_path / "documents/s/part-00000.parquet")
    table = pa.Table.from_pylist(SINGLES, DOCUMENT_SCHEMA)
    documents.write_batches(path, DOCUMENT_SCHEMA, iter([table]), KEY)
    out = str(tmp_path / "out")
    duplicates.run(str(tmp_path), CONFIG, output=out, key=KEY, options=local_options())
    assert all(r["kept"] for r in read(str(tmp_path), out).values())
