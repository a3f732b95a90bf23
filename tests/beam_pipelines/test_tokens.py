"""The tokens stage: the ids of clean text, or a verdict where there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from small_corpus import KEY, ROWS, Corpus, row
from tokenizers import Tokenizer as HuggingFaceTokenizer

from beam_pipelines import tokens
from beam_pipelines.options import local_options
from snowcoder_jax import storage


def notebook(source: str) -> str:
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    facts = {"metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps({"cells": [{**cell, "source": [source]}], **facts})


def test_ids_are_hugging_faces_of_the_text_without_its_secrets(tmp_path: Path) -> None:
    secret = {"start": 4, "end": 17, "kind": "email"}
    rows = [
        row("r", "1.py", "Python", "") | {"expected": ""},
        row("r", "2.py", "Python", "é = a@example.org\n") | {"expected": "é = a@example.org\n"},
        row("r", "3.py", "Python", "é =a@example.org;\n")
        | {"spans": [secret], "expected": "é =<EMAIL_1>;\n"},
        row("r", "4.ipynb", "Jupyter Notebook", notebook("x = 1")) | {"expected": "# %%\nx = 1\n"},
    ]
    corpus = Corpus(tmp_path, rows, num_shards=1)
    reference = HuggingFaceTokenizer.from_file(f"{corpus.tokenizer}/tokenizer.json")
    got = {r["id"]: r for r in corpus.table(corpus.tokens).to_pylist()}
    for expected in rows:
        ids = reference.encode(expected["expected"], add_special_tokens=False).ids
        entry = got[expected["id"]]
        assert (entry["ids"], entry["num_tokens"], entry["verdict"]) == (ids, len(ids), "pass")
        assert (entry["rule"], entry["value"], entry["threshold"]) == (None, None, None)


def test_what_cannot_be_read_is_an_error_and_has_no_ids(tmp_path: Path) -> None:
    broken = [notebook("x = '\\ud800'").replace("\\\\", "\\"), "{", "[]", '{"cells": 3}']
    rows = [row("r", f"{i}.ipynb", "Jupyter Notebook", text) for i, text in enumerate(broken)]
    corpus = Corpus(tmp_path, [*rows, row("r", "x.py", "Python", "x = 1\n")], num_shards=1)
    table = {r["id"]: r for r in corpus.table(corpus.tokens).to_pylist()}
    assert {r["path"]: table[r["id"]]["verdict"] for r in corpus.rows} == {
        **{f"{i}.ipynb": "error" for i in range(4)},
        "x.py": "pass",
    }
    for r in rows:
        entry = table[r["id"]]
        assert (entry["rule"], entry["num_tokens"], entry["ids"]) == ("unreadable", 0, None)


def test_a_stage_redoes_only_what_is_missing(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, ROWS)
    paths = storage.list_files(corpus.tokens, ".parquet")
    assert len(paths) == 2
    before = {p: os.stat(p).st_mtime_ns for p in paths}
    os.unlink(paths[0] + storage.MANIFEST_SUFFIX)
    values: dict[str, Any] = {"secrets": corpus.secrets, "tokenizer": corpus.tokenizer}
    tokens.run(corpus.root, **values, output=corpus.tokens, key=KEY, options=local_options())
    after = {p: os.stat(p).st_mtime_ns for p in paths}
    assert after[paths[0]] != before[paths[0]]
    assert after[paths[1]] == before[paths[1]]
