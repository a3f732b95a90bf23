"""A corpus folder made by hand, with the columns that selection and packing read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipelines import documents, select, tokens
from beam_pipelines.documents import DOCUMENT_SCHEMA, VERDICT_FIELDS
from beam_pipelines.options import local_options
from snowcoder_jax import storage, tokenizer

KEY = "k"
PASS = ("pass", None, None, None)
VERDICT_NAMES = [field.name for field in VERDICT_FIELDS]

Row = dict[str, Any]

SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("kind", pa.string())]))

# What the tokenizer is trained on: fixed, so that ids are the same whatever becomes of this file.
TRAINING_TEXT = (
    "def word(self, words):\n    return [each for each in words if other != each]\n" * 40
)


def row(repo: str, path: str, language: str, content: str, license_id: str = "MIT") -> Row:
    identity = hashlib.sha256(f"{repo}\0{path}\0{content}".encode()).hexdigest()[:32]
    return {
        "id": identity,
        "repo": repo,
        "path": path,
        "language": language,
        "license": license_id,
        "stars": None,
        "content": content,
    }


ROWS = [
    row(f"repo{r}", f"dir/file{f}.{ext}", language, f"{ext} {r} {f}\n" + "word " * (5 + 7 * f + r))
    for r in range(6)
    for f, (ext, language) in enumerate([("py", "Python"), ("py", "Python"), ("c", "C")] * 2)
]


def hash_of(text: str) -> int:
    return storage.seeded_hash(0, "shard", text)


class Corpus:
    """A corpus in `num_shards` shards, its tokenizer and its tokens."""

    def __init__(self, root: Path | str, rows: list[Row], num_shards: int = 2) -> None:
        self.root = str(root)
        self.rows = sorted(rows, key=lambda r: (r["repo"], r["language"], r["path"]))
        self.parts = [
            [r for r in self.rows if hash_of(r["repo"]) % num_shards == shard]
            for shard in range(num_shards)
        ]
        names = DOCUMENT_SCHEMA.names
        self.write("documents", DOCUMENT_SCHEMA, lambda r: {n: r[n] for n in names})
        self.secrets = self.write(
            "secrets",
            pa.schema([("id", pa.string()), ("spans", SPANS)]),
            lambda r: {"id": r["id"], "spans": r.get("spans", [])},
        )
        self.tokenizer = storage.join(self.root, "tokenizer")
        tokenizer.train([TRAINING_TEXT], 300, self.tokenizer)
        self.tokens = storage.join(self.root, "tokens")
        tokens.run(
            self.root,
            secrets=self.secrets,
            tokenizer=self.tokenizer,
            output=self.tokens,
            key=KEY,
            options=local_options(),
        )

    def write(self, name: str, schema: pa.Schema, column_of: Callable[[Row], Row]) -> str:
        """A stage's folder, row for row."""
        folder = storage.join(self.root, name)
        for number, part in enumerate(self.parts):
            table = pa.Table.from_pylist([column_of(r) for r in part], schema=schema)
            path = storage.join(folder, f"source/part-{number:05d}.parquet")
            documents.write_batches(path, schema, iter([table]), KEY)
        return folder

    def judge(self, name: str, verdict_of: Callable[[Row], tuple[Any, ...]]) -> str:
        schema = pa.schema([("id", pa.string()), *VERDICT_FIELDS])
        return self.write(
            name,
            schema,
            lambda r: {"id": r["id"], **dict(zip(VERDICT_NAMES, verdict_of(r), strict=True))},
        )

    def policy(self, heldout_share: float = 0.0, **judges: Any) -> str:
        verdicts = {n: self.judge(n, f) for n, f in judges.items()}
        folder = storage.join(self.root, f"policy-{heldout_share}")
        select.run_policy(
            self.root,
            verdicts=verdicts or {"rules": self.judge("rules", lambda r: PASS)},
            permissive_only=True,
            seed=0,
            heldout_share=heldout_share,
            output=folder,
            key=KEY,
            options=local_options(),
        )
        return folder

    def table(self, folder: str) -> pa.Table:
        """A stage's rows, all shards."""
        paths = storage.list_files(storage.join(folder, "source"), ".parquet")
        return pa.concat_tables([pq.read_table(p) for p in paths])
