"""Decontamination over a small corpus, through Beam."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from beam_pipelines import contamination, documents, ingest
from beam_pipelines.documents import DOCUMENT_SCHEMA
from beam_pipelines.options import local_options
from snowcoder_jax import parquet, recipe_corpus, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.text.benchmarks import SHIPPED, shipped_references

KEY = "k"
FIXTURES = str(Path(__file__).parents[1] / "fixtures" / "benchmarks")
CONFIG = recipe_corpus.Contamination(benchmarks=(FIXTURES,))
PROBLEM = [r for r in shipped_references() if r.part == "program"][-1]
# sanitized-mbpp 97, with other names and a docstring, as a method.
RENAMED = '''
class Fleet:
    def tally(self, holds: list) -> dict:
        """How often each cargo lies in the holds."""
        holds = [sack for hold in holds for sack in hold]
        found = {}
        for bag in holds:  # every one
            if bag in found.keys():
                found[bag] += 1
            else:
                cargo = bag
                start = 1
                found[cargo] = start
        return found
'''
FERRY = "def ferry_over(deck, cars):\n    return deck.load(cars)\n"


def notebook(code: str) -> str:
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": code.splitlines(keepends=True),
    }
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


FILES = {
    "leak.py": ("Python", f"import os\n{PROBLEM.text}"),
    "renamed.py": ("Python", RENAMED),
    "renamed.md": ("Markdown", RENAMED),
    "book.ipynb": ("Jupyter Notebook", notebook(PROBLEM.text)),
    "renamed.ipynb": ("Jupyter Notebook", notebook(RENAMED)),
    "clean.ipynb": ("Jupyter Notebook", notebook(FERRY)),
    "broken.ipynb": ("Jupyter Notebook", "{"),
    "clean.py": ("Python", FERRY),
    "empty.py": ("Python", ""),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("corpus"))
    rows = [
        {
            "id": ingest.document_id("r", path, content),
            "repo": "r",
            "path": path,
            "language": language,
            "license": "MIT",
            "stars": None,
            "content": content,
        }
        for path, (language, content) in FILES.items()
    ]
    for number, part in enumerate((rows[::2], rows[1::2], [])):
        path = storage.join(folder, "documents", "s", f"part-{number:05d}.parquet")
        table = pa.Table.from_pylist(part, DOCUMENT_SCHEMA)
        documents.write_batches(path, DOCUMENT_SCHEMA, iter([table]), KEY)
    return folder


def judged(corpus: str, output: str) -> dict[str, dict[str, Any]]:
    """The stage's rows by path."""
    found = {}
    for shard in documents.list_shards(corpus):
        paths = parquet.read_table(storage.join(shard.documents, shard.relative))["path"]
        rows = parquet.read_table(documents.attribute_path(output, shard)).to_pylist()
        found.update(zip(paths.to_pylist(), rows, strict=True))
    return found


def test_what_repeats_a_benchmark_is_dropped_and_named(corpus: str, tmp_path: Path) -> None:
    out = str(tmp_path)
    num_rows = contamination.run(corpus, CONFIG, output=out, key=KEY, options=local_options())
    assert num_rows == len(FILES)
    found = judged(corpus, out)
    assert {path: (r["verdict"], r["rule"], r["method"]) for path, r in found.items()} == {
        "leak.py": ("drop", "contaminated", "exact"),
        "renamed.py": ("drop", "contaminated", "function"),
        "renamed.md": ("pass", None, None),
        "book.ipynb": ("drop", "contaminated", "exact"),
        "renamed.ipynb": ("drop", "contaminated", "function"),
        "clean.ipynb": ("pass", None, None),
        "broken.ipynb": ("error", "notebook", None),
        "clean.py": ("pass", None, None),
        "empty.py": ("pass", None, None),
    }
    leak, renamed = found["leak.py"], found["renamed.py"]
    assert (leak["benchmark"], leak["item"]) == (SHIPPED, PROBLEM.item)
    assert leak["match"] in PROBLEM.text
    assert (renamed["benchmark"], renamed["item"]) == ("sanitized-mbpp", "97")
    assert renamed["match"] == RENAMED[RENAMED.index("def tally") :].rstrip()


def test_a_missing_file_is_told_before_any_work(corpus: str, tmp_path: Path) -> None:
    config = recipe_corpus.Contamination(benchmarks=(str(tmp_path / "gone.jsonl"),))
    with pytest.raises(InputError, match="does not exist"):
        contamination.run(corpus, config, output=str(tmp_path), key=KEY, options=local_options())
    assert list(tmp_path.iterdir()) == []
