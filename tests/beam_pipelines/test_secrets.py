"""Secrets over a small corpus, through Beam: spans beside every document, and nothing of them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from beam_pipelines import documents, secrets
from beam_pipelines.documents import DOCUMENT_SCHEMA
from beam_pipelines.options import local_options
from snowcoder_jax import parquet, storage
from snowcoder_jax.text.reader import clean_text

MAIL = "ada@analytical-engine.org"
ESCAPED = MAIL.replace("@", r"\u0040")
CONTENTS = {
    "mail.py": f"# é ask {MAIL}\nname = 'ada'\n",
    "none.py": "name = 'ada'\n",
    "empty.py": "",
    "broken.ipynb": "{ " + MAIL,  # found in what is no notebook too
    "escaped.ipynb": f'{{"cells": [{{"source": "{ESCAPED}"}}]}}',
}


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    folder = str(tmp_path / "corpus")
    rows = [
        {
            "id": f"{i:032x}",
            "repo": "r",
            "path": path,
            "language": "Python" if path.endswith(".py") else "Jupyter Notebook",
            "license": "MIT",
            "stars": None,
            "content": content,
        }
        for i, (path, content) in enumerate(CONTENTS.items())
    ]
    for index, part in enumerate((rows, [])):  # the last shard is empty
        table = pa.Table.from_pylist(part, DOCUMENT_SCHEMA)
        path = storage.join(folder, "documents", "s", f"part-{index:05d}.parquet")
        documents.write_batches(path, DOCUMENT_SCHEMA, iter([table]), "k")
    return folder


def test_spans_of_every_document(corpus: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert secrets.run(corpus, output=out, key="k", options=local_options()) == len(CONTENTS)
    tables = [
        parquet.read_table(documents.attribute_path(out, shard))
        for shard in documents.list_shards(corpus)
    ]
    assert [table.num_rows for table in tables] == [len(CONTENTS), 0]
    rows = tables[0].to_pylist()
    assert {row["verdict"] for row in rows} == {"pass"}
    spans = {path: row["spans"] for path, row in zip(CONTENTS, rows, strict=True)}
    assert spans == {
        "mail.py": [{"start": 9, "end": 9 + len(MAIL), "kind": "email"}],
        "none.py": [],
        "empty.py": [],
        "broken.ipynb": [{"start": 2, "end": 2 + len(MAIL), "kind": "email"}],
        "escaped.ipynb": [{"start": 23, "end": 23 + len(ESCAPED), "kind": "email"}],
    }
    cleaned = clean_text(CONTENTS["mail.py"], "Python", spans["mail.py"])
    assert cleaned == "# é ask <EMAIL_1>\nname = 'ada'\n"


def test_no_secret_is_written(corpus: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    secrets.run(corpus, output=out, key="k", options=local_options())
    for path in storage.list_files(out):
        assert b"analytical" not in storage.read_bytes(path)
