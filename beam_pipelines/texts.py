"""Documents as text outside Beam: samples that are small enough for one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines import documents
from beam_pipelines.documents import Shard
from snowcoder_jax import storage
from snowcoder_jax.text.reader import clean_text

Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class TextDocument:
    """A document as everything downstream of the corpus sees it: clean text."""

    id: str
    repo: str
    path: str
    language: str
    license: str
    text: str


def column(folder: str, shard: Shard, name: str) -> pa.ChunkedArray:
    """One column of a stage, for one shard."""
    return documents.read_table(storage.join(folder, shard.relative), [name])[name]


def in_split(policy: str, split: str) -> Callable[[Shard], Mask]:
    """A choice of rows for `read_texts`: those the policy puts on one side of the split."""

    def choose(shard: Shard) -> Mask:
        equal = pc.equal(column(policy, shard, "split"), split)
        return np.asarray(equal.fill_null(False).to_numpy(), np.bool_)

    return choose


def selected(selection: str) -> Callable[[Shard], Mask]:
    """A choice of rows for `read_texts`: those of a selection."""
    return lambda shard: np.asarray(column(selection, shard, "selected").to_numpy(), np.bool_)


def sampled(
    choose: Callable[[Shard], Mask], corpus: str, *, share: float, seed: int, purpose: str
) -> Callable[[Shard], Mask]:
    """Of the chosen rows, those whose seeded hash falls below `share`."""

    def choose_sample(shard: Shard) -> Mask:
        ids = documents.read_table(storage.join(shard.documents, shard.relative), ["id"])["id"]
        drawn = [storage.seeded_share(seed, purpose, i) < share for i in ids.to_pylist()]
        return choose(shard) & np.array(drawn, np.bool_)

    return choose_sample


def read_texts(
    corpus: str, secrets: str, choose: Callable[[Shard], Mask]
) -> Iterator[TextDocument]:
    """Clean text of the chosen rows, shard by shard; unreadable notebooks are left out."""
    for shard in documents.list_shards(corpus):
        mask = pa.array(choose(shard))
        path = storage.join(shard.documents, shard.relative)
        table = documents.read_table(path).filter(mask)
        spans = column(secrets, shard, "spans").filter(mask).to_pylist()
        for row, row_spans in zip(table.to_pylist(), spans, strict=True):
            try:
                text = clean_text(row["content"], row["language"], row_spans)
            except ValueError:
                continue
            yield TextDocument(
                row["id"], row["repo"], row["path"], row["language"], row["license"], text
            )


def total_bytes(corpus: str, policy: str, split: str) -> int:
    """Raw bytes of the documents on one side of the split."""
    total = 0
    for shard in documents.list_shards(corpus):
        mask = pa.array(in_split(policy, split)(shard))
        total += pc.sum(column(policy, shard, "num_bytes").filter(mask)).as_py() or 0
    return total


def values_by_id(folder: str, corpus: str, name: str) -> dict[str, Any]:
    """A column of a stage as id -> value, nulls left out."""
    result: dict[str, Any] = {}
    for shard in documents.list_shards(corpus):
        table = documents.read_table(storage.join(folder, shard.relative), ["id", name])
        rows = zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True)
        result.update({i: value for i, value in rows if value is not None})
    return result
