"""Exact and near-duplicates over a corpus, the best of each cluster kept.

Shards are read twice and no text is shuffled. The first reading emits hashes: a key of the whole
text and the MinHash band keys, packed into one array for each partition of the key space. Keys
that meet propose pairs; the second reading emits the shingle hashes of the documents in those
pairs only, and a pair counts where the exact Jaccard similarity reaches the threshold. Clusters
are the connected components of verified pairs and exact copies; they are found in one place, whose
memory grows with the number of duplicates (not of documents).

A document is numbered `shard << 32 | row` on the way. All packed arrays are 64-bit integers.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents
from beam_pipelines.documents import ROW_GROUP_ROWS, VERDICT_FIELDS, Shard
from snowcoder_jax import recipe, storage
from snowcoder_jax.text import duplicates as text_duplicates
from snowcoder_jax.text.duplicates import Pairs

DUPLICATES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        *VERDICT_FIELDS,
        pa.field("cluster", pa.string()),  # id of the cluster's kept document: own id if alone
        pa.field("kept", pa.bool_()),
    ]
)

EXACT_RULE = "exact_duplicate"
NEAR_RULE = "near_duplicate"

_ROW_BITS = 32
_EVERYTHING = 0  # the one key of the clustering step

Packed = tuple[int, bytes]
Array = npt.NDArray[Any]


def run(
    corpus: str, config: recipe.Duplicates, *, output: str, key: str, options: PipelineOptions
) -> int:
    """Judge every document of a corpus; returns the number of rows.

    Of a cluster the document of the most stars is kept (unknown counts as none), then the
    lexically first (repository, path). Where the stage was interrupted it is done again whole.
    """
    shards = documents.list_shards(corpus)
    if all(storage.is_done(documents.attribute_path(output, s), key) for s in shards):
        return documents.finish_stage(corpus, output, key)
    num_partitions = len(shards)
    with beam.Pipeline(options=options) as pipeline:
        numbered = pipeline | beam.Create(list(enumerate(shards)), reshuffle=False)
        numbered |= beam.Reshuffle()
        signed = numbered | "Sign" >> beam.ParDo(_SignFn(config, num_partitions)).with_outputs(
            "exact", main="bands"
        )
        exact_edges = (
            signed.exact
            | "GroupExact" >> beam.GroupByKey()
            | "ExactEdges" >> beam.ParDo(_exact_edges).with_output_types(Packed)
        )
        candidates = (
            signed.bands
            | "GroupBands" >> beam.GroupByKey()
            | "Pairs" >> beam.ParDo(_propose, num_partitions).with_output_types(Packed)
            | "GroupPairs" >> beam.GroupByKey()
            | "UniquePairs" >> beam.ParDo(_UniquePairsFn()).with_outputs("needs", main="pairs")
        )
        exact_needs = exact_edges | "ExactNeeds" >> beam.ParDo(_members).with_output_types(Packed)
        shingled = (
            {"shard": numbered, "needs": candidates.needs, "members": exact_needs}
            | "JoinNeeds" >> beam.CoGroupByKey()
            | "Shingle" >> beam.ParDo(_ShingleFn(config)).with_outputs("facts", main="shingles")
        )
        near_edges = (
            {"pairs": candidates.pairs, "shingles": shingled.shingles}
            | "JoinPairs" >> beam.CoGroupByKey()
            | "Verify" >> beam.ParDo(_verify, config.threshold).with_output_types(Packed)
        )
        clusters = (
            {"exact": exact_edges, "near": near_edges, "facts": shingled.facts}
            | "JoinEdges" >> beam.CoGroupByKey()
            | "Cluster" >> beam.ParDo(_cluster, config.threshold).with_output_types(Packed)
        )
        _ = (
            {"shard": numbered, "verdicts": clusters}
            | "JoinVerdicts" >> beam.CoGroupByKey()
            | "Write" >> beam.ParDo(_WriteFn(output, key))
        )
    return documents.finish_stage(corpus, output, key)


def _pack(*columns: Array) -> bytes:
    """Columns of equal length, each 64 bits wide, as the bytes of one [rows, columns] array."""
    return np.stack([np.asarray(c).astype("<i8", copy=False) for c in columns], 1).tobytes()


def _unpack(values: Iterable[bytes], num_columns: int) -> npt.NDArray[np.int64]:
    # Sorted first: a runner hands values over in any order.
    data = b"".join(sorted(values))
    return np.frombuffer(data, "<i8").reshape(-1, num_columns)


def _by_partition(partition: Array, *columns: Array) -> Iterator[Packed]:
    for p in np.unique(partition):
        chosen = partition == p
        yield int(p), _pack(*(c[chosen] for c in columns))


class _SignFn(beam.DoFn):
    """First reading: the keys of every document of a shard."""

    def __init__(self, config: recipe.Duplicates, num_partitions: int) -> None:
        self._config = config
        self._num_partitions = np.uint64(num_partitions)

    def process(self, numbered: tuple[int, Shard]) -> Iterator[Any]:
        index, shard = numbered
        exact: list[Array] = []
        bands: list[Array] = []
        for start, table in _batches(shard, ["content"]):
            texts = [str(text) for text in table["content"].to_pylist()]
            first = index << _ROW_BITS | start
            document = np.arange(first, first + len(texts), dtype=np.int64)
            keys = [text_duplicates.exact_key(text) for text in texts]
            exact_key = np.array(keys, np.uint64).reshape(-1, 2)
            exact.append(np.column_stack([exact_key.view(np.int64), document]))
            bands.append(self._bands(texts, document, exact_key[:, 1].view(np.int64)))
        if exact:
            high, low, document = np.concatenate(exact).T
            partition = low.view(np.uint64) % self._num_partitions
            for packed in _by_partition(partition, high, low, document):
                yield beam.pvalue.TaggedOutput("exact", packed)
            band, document, low = np.concatenate(bands).T
            yield from _by_partition(
                band.view(np.uint64) % self._num_partitions, band, document, low
            )

    def _bands(self, texts: Sequence[str], document: Array, exact_low: Array) -> Array:
        config = self._config
        sets = [text_duplicates.shingles(text, config.ngram_words) for text in texts]
        has_words = np.array([len(s) > 0 for s in sets], np.bool_)
        keys = text_duplicates.band_keys(
            [s for s in sets if len(s)], config.bands, config.rows
        ).view(np.int64)
        return np.column_stack(
            [
                keys.ravel(),
                np.repeat(document[has_words], config.bands),
                np.repeat(exact_low[has_words], config.bands),
            ]
        )


def _batches(shard: Shard, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    start = 0
    with storage.open_read(storage.join(shard.documents, shard.relative)) as f:
        for batch in pq.ParquetFile(f).iter_batches(ROW_GROUP_ROWS, columns=columns):
            yield start, pa.Table.from_batches([batch])
            start += batch.num_rows


def _exact_edges(grouped: tuple[int, Iterable[bytes]]) -> Iterator[Packed]:
    """From each copy to the first document with the same text."""
    rows = _unpack(grouped[1], 3)
    rows = rows[np.lexsort(rows.T[::-1])]
    is_copy = np.zeros(len(rows), np.bool_)
    is_copy[1:] = (rows[1:, :2] == rows[:-1, :2]).all(1)
    first = rows[np.maximum.accumulate(np.where(is_copy, 0, np.arange(len(rows)))), 2]
    if is_copy.any():
        yield _EVERYTHING, _pack(first[is_copy], rows[is_copy, 2])


def _propose(grouped: tuple[int, Iterable[bytes]], num_partitions: int) -> Iterator[Packed]:
    """Candidate pairs of one partition of the band keys; copies stand in for each other."""
    band, document, exact_low = _unpack(grouped[1], 3).T
    order = np.lexsort((document, exact_low, band))
    band, document, exact_low = band[order], document[order], exact_low[order]
    is_first = np.ones(len(band), np.bool_)
    is_first[1:] = (band[1:] != band[:-1]) | (exact_low[1:] != exact_low[:-1])
    pairs = text_duplicates.candidate_pairs(band[is_first].view(np.uint64), document[is_first])
    yield from _by_partition(pairs[:, 0] % num_partitions, pairs[:, 0], pairs[:, 1])


class _UniquePairsFn(beam.DoFn):
    """Pairs found in several bands are one; says which shard must send what where."""

    def process(self, grouped: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        partition, values = grouped
        pairs = text_duplicates.unique_pairs([_unpack(values, 2)])
        yield partition, _pack(pairs[:, 0], pairs[:, 1])
        document = np.unique(pairs)
        to = np.full(len(document), partition)
        for packed in _by_partition(document >> _ROW_BITS, document, to):
            yield beam.pvalue.TaggedOutput("needs", packed)


def _members(edges: Packed) -> Iterator[Packed]:
    document = np.unique(_unpack([edges[1]], 2))
    yield from _by_partition(document >> _ROW_BITS, document)


class _ShingleFn(beam.DoFn):
    """Second reading: shingle hashes where a pair needs them, and what decides who is kept."""

    def __init__(self, config: recipe.Duplicates) -> None:
        self._config = config

    def process(self, joined: tuple[int, dict[str, Any]]) -> Iterator[Any]:
        index, parts = joined
        needs: dict[int, set[int]] = {}
        for document, partition in _unpack(parts["needs"], 2).tolist():
            needs.setdefault(document, set()).add(partition)
        for (document,) in _unpack(parts["members"], 1).tolist():
            needs.setdefault(document, set())
        if not needs:
            return
        (shard,) = parts["shard"]
        facts: list[tuple[int, int, str, str, str]] = []
        for start, table in _batches(shard, ["id", "repo", "path", "stars", "content"]):
            first = index << _ROW_BITS | start
            here = [row for row in range(table.num_rows) if first + row in needs]
            for row, document in zip(
                here, table.take(pa.array(here, pa.int64())).to_pylist(), strict=True
            ):
                stars = -1 if document["stars"] is None else document["stars"]
                facts.append(
                    (first + row, stars, document["repo"], document["path"], document["id"])
                )
                yield from self._shingles(first + row, document["content"], needs[first + row])
        yield beam.pvalue.TaggedOutput("facts", (_EVERYTHING, json.dumps(facts).encode()))

    def _shingles(self, document: int, text: str, partitions: set[int]) -> Iterator[Packed]:
        if partitions:
            found = text_duplicates.shingles(text, self._config.ngram_words)
            packed = np.concatenate([np.array([document], np.uint64), found]).tobytes()
            yield from ((partition, packed) for partition in sorted(partitions))


def _verify(joined: tuple[int, dict[str, Any]], threshold: float) -> Iterator[Packed]:
    """Pairs whose exact Jaccard similarity reaches the threshold, with it in 10^-9."""
    sets = {}
    for value in joined[1]["shingles"]:
        packed = np.frombuffer(value, np.uint64)
        sets[int(packed[0])] = packed[1:]
    pairs = _unpack(joined[1]["pairs"], 2)
    similarity = np.array([text_duplicates.jaccard(sets[a], sets[b]) for a, b in pairs.tolist()])
    is_near = similarity >= threshold
    if is_near.any():
        scaled = np.round(similarity[is_near] * 1e9).astype(np.int64)
        yield _EVERYTHING, _pack(pairs[is_near, 0], pairs[is_near, 1], scaled)


def _cluster(joined: tuple[int, dict[str, Any]], threshold: float) -> Iterator[Packed]:
    """For each shard, JSON rows [row, kept id, rule or null, similarity or null, threshold]."""
    exact: Pairs = _unpack(joined[1]["exact"], 2)
    near = _unpack(joined[1]["near"], 3)
    facts = [fact for value in joined[1]["facts"] for fact in json.loads(value)]
    # Most stars first, then repository and path; ids part what is left.
    rank = {f[0]: (-f[1], f[2], f[3], f[4]) for f in facts}
    id_of = {f[0]: f[4] for f in facts}
    copy_of = text_duplicates.connected_components(exact)
    cluster_of = text_duplicates.connected_components(np.concatenate([exact, near[:, :2]]))
    best_copy = _best(copy_of, rank)
    best = _best(cluster_of, rank)

    # An edge speaks for all copies of its two ends.
    similarity: dict[int, float] = {}
    for first, second, scaled in near.tolist():
        for end in (first, second):
            group = copy_of.get(end, end)
            similarity[group] = max(similarity.get(group, 0.0), scaled / 1e9)

    rows: dict[int, list[Any]] = {}
    for document, cluster in cluster_of.items():
        kept = best[cluster]
        group = copy_of.get(document, document)
        verdict: list[Any] = [None, None, None]
        if document in copy_of and document != best_copy[group]:
            verdict = [EXACT_RULE, 1.0, 1.0]
        elif document != kept:
            verdict = [NEAR_RULE, similarity[group], threshold]
        row = [document & (2**_ROW_BITS - 1), id_of[kept], *verdict]
        rows.setdefault(document >> _ROW_BITS, []).append(row)
    for index, shard_rows in sorted(rows.items()):
        yield index, json.dumps(sorted(shard_rows, key=operator.itemgetter(0))).encode()


def _best(component_of: dict[int, int], rank: dict[int, tuple[Any, ...]]) -> dict[int, int]:
    best: dict[int, int] = {}
    for document, component in component_of.items():
        if component not in best or rank[document] < rank[best[component]]:
            best[component] = document
    return best


class _WriteFn(beam.DoFn):
    def __init__(self, output: str, key: str) -> None:
        self._output = output
        self._key = key

    def process(self, joined: tuple[int, dict[str, Any]]) -> Iterator[int]:
        (shard,) = joined[1]["shard"]
        judged = {row[0]: row[1:] for value in joined[1]["verdicts"] for row in json.loads(value)}
        tables = (_table(start, table, judged) for start, table in _batches(shard, ["id"]))
        path = documents.attribute_path(self._output, shard)
        yield documents.write_batches(path, DUPLICATES_SCHEMA, tables, self._key)


def _table(start: int, table: pa.Table, judged: dict[int, list[Any]]) -> pa.Table:
    rows = []
    for row, identity in enumerate(table["id"].to_pylist(), start=start):
        cluster, rule, value, threshold = judged.get(row, [identity, None, None, None])
        rows.append(
            {
                "id": identity,
                "verdict": "pass" if rule is None else "drop",
                "rule": rule,
                "value": value,
                "threshold": threshold,
                "cluster": cluster,
                "kept": rule is None,
            }
        )
    return pa.Table.from_pylist(rows, DUPLICATES_SCHEMA)
