"""The rules stage over a small corpus, through Beam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines import documents, rules
from beam_pipelines.documents import DOCUMENT_SCHEMA
from beam_pipelines.options import local_options
from snowcoder_jax import parquet, storage
from snowcoder_jax.recipe_corpus import Rules
from snowcoder_jax.text import rules as text_rules
from snowcoder_jax.text.rule_table import SIGNALS

KEY = "k"
CODE = "import os\n\n\ndef name(path: str) -> str:\n    return os.path.basename(path)\n"
FILES = {
    "good.py": ("Python", CODE),
    "é.py": ("Python", CODE.replace("name", "größe")),
    "long.py": ("Python", CODE + "# " + "word " * 200 + "\n" * 50),
    "empty.py": ("Python", ""),
    "faulty.py": ("Python", CODE + "def f(:\n    pass\n"),
    "deep.py": ("Python", CODE + "(" * 300 + "\n"),
    "broken.ipynb": ("Jupyter Notebook", "{"),
    "a_test.go": ("Go", "package a\n" * 30),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("corpus"))
    rows = [
        {"id": f"{n:032}", "repo": "r", "path": path, "language": language, "content": content}
        for n, (path, (language, content)) in enumerate(FILES.items())
    ]
    for shard in range(3):  # the last one is empty
        part = rows[shard::2] if shard < 2 else []
        table = pa.Table.from_pylist(part, DOCUMENT_SCHEMA)
        path = storage.join(folder, "documents", "s", f"part-{shard:05d}.parquet")
        documents.write_batches(path, DOCUMENT_SCHEMA, iter([table]), KEY)
    return folder


def run(corpus: str, config: Rules, output: Path, workers: int = 1) -> dict[str, dict[str, Any]]:
    """The stage's rows by path."""
    options = local_options(workers)
    num_rows = rules.run(corpus, config, output=str(output), key=KEY, options=options)
    assert num_rows == len(FILES)
    found = {}
    for shard in documents.list_shards(corpus):
        path = documents.attribute_path(str(output), shard)
        assert pq.read_schema(path).equals(rules.RULES_SCHEMA)
        for row in parquet.read_table(path).to_pylist():
            found[list(FILES)[int(row["id"])]] = row
    return found


def test_verdicts_and_signals_stand_beside_the_documents(corpus: str, tmp_path: Path) -> None:
    found = run(corpus, Rules(), tmp_path)
    verdicts = {path: (row["verdict"], row["rule"]) for path, row in found.items()}
    assert verdicts == {
        "good.py": ("pass", None),
        "é.py": ("pass", None),
        "long.py": ("drop", "max_line_characters"),
        "empty.py": ("drop", "min_letter_share"),
        "faulty.py": ("pass", None),
        "deep.py": ("drop", "min_letter_share"),
        "broken.ipynb": ("error", "notebook"),
        "a_test.go": ("pass", None),
    }
    assert (found["long.py"]["value"], found["long.py"]["threshold"]) == (1_002, 1_000)
    assert found["good.py"]["num_lines"] == 5
    assert found["good.py"]["xml"] is False
    assert found["good.py"]["num_words"] is None
    assert all(found["broken.ipynb"][name] is None for name in SIGNALS)


def test_with_a_tree_faults_are_seen_and_what_has_none_is_an_error(
    corpus: str, tmp_path: Path
) -> None:
    limits: dict[str, dict[str, float | None]] = {"all": {"max_parse_error_share": 0}}
    found = run(corpus, Rules("none", True, limits), tmp_path)
    dropped = found["faulty.py"]
    assert (dropped["verdict"], dropped["rule"]) == ("drop", "max_parse_error_share")
    assert dropped["value"] == dropped["parse_error_share"] > dropped["threshold"] == 0
    assert (found["deep.py"]["verdict"], found["deep.py"]["rule"]) == ("error", "parse")
    assert found["deep.py"]["num_functions"] is None
    assert found["deep.py"]["num_lines"] == 6
    assert found["good.py"]["num_functions"] == found["good.py"]["num_imports"] == 1


def test_paths_reach_the_rules(corpus: str, tmp_path: Path) -> None:
    found = run(corpus, Rules("none", thresholds={"all": {"test_file": 0}}), tmp_path)
    assert [p for p, row in found.items() if row["verdict"] == "drop"] == ["a_test.go"]


def test_the_stage_says_what_the_library_says(corpus: str, tmp_path: Path) -> None:
    config = Rules("opencoder", parse=True)
    found = run(corpus, config, tmp_path)
    for path, (language, content) in FILES.items():
        signals, verdict = text_rules.judge_document(content, language, config, path)
        row = found[path]
        assert (row["verdict"], row["rule"]) == (verdict.verdict, verdict.rule)
        assert {name: row[name] for name in SIGNALS if row[name] is not None} == signals


def test_two_workers_write_the_same_bytes(corpus: str, tmp_path: Path) -> None:
    written = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        run(corpus, Rules("opencoder", parse=True), folder, workers)
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        written.append({str(p.relative_to(folder)): p.read_bytes() for p in paths})
    assert written[0] == written[1]
