"""Documents as text outside Beam: samples that are small enough for one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines import documents
from beam_pipelines.documents import Shard
from snowcoder_jax import parquet, storage
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


def readable_text(content: str, language: str, spans: Sequence[Mapping[str, object]]) -> str | None:
    """`reader.clean_text`, or None: a broken notebook, or one that escapes half a character."""
    try:
        text = clean_text(content, language, spans)
        text.encode()
    except ValueError:
        return None
    return text


def column(folder: str, shard: Shard, name: str) -> pa.ChunkedArray:
    """One column of a stage, for one shard."""
    return parquet.read_table(storage.join(folder, shard.relative), [name])[name]


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
        ids = parquet.read_table(storage.join(shard.documents, shard.relative), ["id"])["id"]
        drawn = [storage.seeded_share(seed, purpose, i) < share for i in ids.to_pylist()]
        return choose(shard) & np.array(drawn, np.bool_)

    return choose_sample


def read_texts(
    corpus: str, secrets: str, choose: Callable[[Shard], Mask]
) -> Iterator[TextDocument]:
    """Clean text of the chosen rows, shard by shard; unreadable documents are left out."""
    for shard in documents.list_shards(corpus):
        chosen = choose(shard)
        spans = column(secrets, shard, "spans").filter(pa.array(chosen)).to_pylist()
        rows = _chosen_rows(shard, ["id", "repo", "path", "language", "license", "content"], chosen)
        for row, row_spans in zip(rows, spans, strict=True):
            text = readable_text(row.pop("content"), row["language"], row_spans)
            if text is not None:
                yield TextDocument(**row, text=text)


def _chosen_rows(shard: Shard, names: list[str], chosen: Mask) -> Iterator[dict[str, Any]]:
    start = 0
    for batch in documents.iter_batches(storage.join(shard.documents, shard.relative), names):
        yield from batch.filter(pa.array(chosen[start:][: len(batch)])).to_pylist()
        start += len(batch)


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
        table = parquet.read_table(storage.join(folder, shard.relative), ["id", name])
        rows = zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True)
        result.update({i: value for i, value in rows if value is not None})
    return result
