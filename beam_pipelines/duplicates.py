"""Exact and near-duplicates over a corpus, the best of each cluster kept.

Three pipelines over the shards, with numbers only between them: `duplicate_pairs` finds what is
alike, `duplicate_clusters` what belongs together, and here the best of each cluster is chosen.
Every shard names its best document of each cluster, and the best of those is kept: no place sees
more of a cluster than one document for each shard and text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents, duplicate_clusters, duplicate_pairs, workers
from beam_pipelines.documents import VERDICT_FIELDS, Shard
from beam_pipelines.duplicate_pairs import Compared, Numbered, read_rows
from beam_pipelines.int_rows import ROW_BITS, ROW_MASK, Keyed, Rows, Scratch, split_by, unpack
from snowcoder_jax import parquet, recipe_corpus, storage
from snowcoder_jax.text import components, licenses

DUPLICATES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        *VERDICT_FIELDS,
        pa.field("cluster", pa.string()),  # id of the cluster's kept document: own id if alone
        pa.field("cluster_size", pa.int64()),  # in documents
        pa.field("kept", pa.bool_()),
    ]
)

# Of documents in clusters, by their row in the shard.
_JUDGED_SCHEMA = DUPLICATES_SCHEMA.remove(0).insert(0, pa.field("row", pa.int64()))

EXACT_RULE = "exact_duplicate"
NEAR_RULE = "near_duplicate"

# Of a cluster the first document in this order is kept.
_BEST_FIRST = [
    ("is_reference", "descending"),
    ("passes", "descending"),  # the other judges
    ("permissive", "descending"),
    ("stars", "descending"),  # unknown counts as none
    ("num_bytes", "descending"),  # the longer one holds what the shorter does, and more
    ("repo", "ascending"),
    ("path", "ascending"),
    ("id", "ascending"),
]


def run(
    corpus: str,
    config: recipe_corpus.Duplicates,
    *,
    output: str,
    key: str,
    options: PipelineOptions,
    verdicts: Sequence[str] = (),
    references: Sequence[str] = (),
    heads: str | None = None,
) -> int:
    """Judge every document of a corpus; returns the number of rows.

    Of a cluster a document is kept that passes all `verdicts` (attribute folders of judges), then
    one of a permissive licence, then the one of the most stars (unknown counts as none), then the
    longest, then the lexically first (repository, path). The rule of the others says whether a
    better document has the same text. Where the stage was interrupted it is done again whole.

    Args:
      references: other corpora, whose documents are kept before any of this one; nothing is
        written of them. They are read and signed like this one, and not compared among themselves.
      heads: folder of this corpus's `head_bytes`: what is not compared (`Compared`).
    """
    judged = [Compared(s.documents, s.relative, heads=heads) for s in documents.list_shards(corpus)]
    shards = judged + [
        Compared(s.documents, s.relative, is_reference=True)
        for reference in references
        for s in documents.list_shards(reference)
    ]
    scratch = Scratch(storage.join(output, "scratch"))
    storage.remove(scratch.folder)
    if not all(storage.is_done(documents.attribute_path(output, s), key) for s in judged):
        with workers.pipeline(options) as pipeline:
            duplicate_pairs.add_pairs(
                _numbered(pipeline, shards, options),
                config,
                scratch,
                num_shards=len(shards),
                num_judged=len(judged),
                num_documents=sum(_num_rows(s) for s in shards),
            )
        graph = duplicate_clusters.settle(scratch, num_shards=len(shards), options=options)
        with workers.pipeline(options) as pipeline:
            write = _WriteFn(config.threshold, output, key)
            _add_choice(_numbered(pipeline, shards, options), scratch, graph, verdicts, write)
        storage.remove(scratch.folder)
    return documents.finish_stage(corpus, output, key)


def _num_rows(shard: Shard) -> int:
    manifest = storage.read_manifest(storage.join(shard.documents, shard.relative))
    assert manifest is not None, f"{shard} is not done"
    return int(manifest["rows"])


def _numbered(
    pipeline: beam.Pipeline, shards: Sequence[Compared], options: PipelineOptions
) -> beam.PCollection[Numbered]:
    numbered = list(enumerate(shards))
    return workers.spread(pipeline, numbered, documents.sizes_bytes(shards), options)


def _add_choice(
    numbered: beam.PCollection[Numbered],
    scratch: Scratch,
    graph: str,
    verdicts: Sequence[str],
    write: _WriteFn,
) -> None:
    copies = numbered | "Copies" >> beam.ParDo(_copies, scratch).with_output_types(Keyed)
    members = (
        {"shard": numbered, "copies": copies}
        | "JoinCopies" >> beam.CoGroupByKey()
        | "Members" >> beam.ParDo(_members, scratch, graph).with_output_types(Keyed)
    )
    best = (
        {"shard": numbered, "members": members}
        | "JoinMembers" >> beam.CoGroupByKey()
        | "BestOfShard" >> beam.ParDo(_best_of_shard, scratch, verdicts).with_output_types(Keyed)
        | "GroupBest" >> beam.GroupByKey()
        | "Best" >> beam.ParDo(_best).with_output_types(Keyed)
    )
    _ = (
        {"shard": numbered, "members": members, "best": best}
        | "JoinBest" >> beam.CoGroupByKey()
        | "Write" >> beam.ParDo(write)
    )


def _copies(numbered: Numbered, scratch: Scratch) -> Iterator[Keyed]:
    copies = scratch.load("copies", numbered[0], 2)
    yield from split_by(copies[:, 1] >> ROW_BITS, *copies.T)


def _members(joined: tuple[int, dict[str, Any]], scratch: Scratch, graph: str) -> Iterator[Keyed]:
    """To its shard, for each document of a cluster: (document, first of its copies, cluster, bits
    of the largest similarity to another text; 0 where there is none)."""
    index, parts = joined
    copies = unpack(parts["copies"], 2)
    cluster_of = components.labels(scratch.load(graph, index, 2))
    near = scratch.load("near", index, 3)
    # One row for each text that has copies or is near to another.
    text = np.union1d(copies[:, 1], cluster_of[:, 0])
    cluster, similarity = text.copy(), np.zeros(len(text))
    cluster[np.searchsorted(text, cluster_of[:, 0])] = cluster_of[:, 1]
    np.maximum.at(similarity, np.searchsorted(text, near[:, 0]), near[:, 2].view(np.float64))
    document = np.concatenate([text, copies[:, 0]])
    row = np.concatenate([np.arange(len(text)), np.searchsorted(text, copies[:, 1])])
    yield from split_by(document >> ROW_BITS, document, text[row], cluster[row], similarity[row])


def _best_of_shard(
    joined: tuple[int, dict[str, Any]], scratch: Scratch, verdicts: Sequence[str]
) -> Iterator[Keyed]:
    """A shard's best document of each text of each cluster, to where the cluster is decided."""
    index, parts = joined
    members = unpack(parts["members"], 4)
    if len(members) == 0:
        return
    (shard,) = parts["shard"]
    rows = members[:, 0] & ROW_MASK
    table = _ranked(shard, rows, verdicts)
    num_bytes = scratch.load("bytes", index, 1)[rows, 0]
    names = ("document", "text", "cluster")
    for name, column in zip((*names, "num_bytes"), (*members.T[:3], num_bytes), strict=True):
        table = table.append_column(name, pa.array(column))
    table = table.sort_by([("cluster", "ascending"), ("text", "ascending"), *_BEST_FIRST])
    first = _first_of(table, "cluster", "text")
    counts = pa.array(np.diff(np.append(first, table.num_rows)))
    table = table.take(pa.array(first)).append_column("count", counts)
    yield from _split_table(_numbers(table, "cluster") >> ROW_BITS, table)


def _ranked(shard: Compared, wanted: Rows, verdicts: Sequence[str]) -> pa.Table:
    """What decides who is best, of some rows; in order."""
    columns = ["id", "repo", "path", "license", "stars"]
    table = pa.concat_tables(t for _, t in read_rows(shard, columns, wanted))
    passes = np.ones(len(wanted), np.bool_)
    for folder in () if shard.is_reference else verdicts:
        judged = parquet.read_table(documents.attribute_path(folder, shard), ["verdict"])
        passes &= pc.equal(judged["verdict"], "pass").fill_null(False).to_numpy()[wanted]
    license_of = pc.dictionary_encode(table["license"].combine_chunks().fill_null(""))
    permissive = np.array([licenses.is_permissive(x) for x in license_of.dictionary.to_pylist()])
    return pa.table(
        {
            "id": table["id"],
            "repo": table["repo"],
            "path": table["path"],
            "is_reference": np.full(len(wanted), shard.is_reference),
            "passes": passes,
            "permissive": permissive[license_of.indices.to_numpy()],
            "stars": table["stars"].fill_null(0),
        }
    )


def _best(grouped: tuple[int, Iterable[bytes]]) -> Iterator[Keyed]:
    """To every shard that asked, for each text: the best document of that text, and the cluster's
    kept document, its id, and the cluster's size."""
    table = pa.concat_tables(pa.ipc.open_stream(v).read_all() for v in grouped[1])
    table = table.sort_by([("cluster", "ascending"), *_BEST_FIRST])
    first = _first_of(table, "cluster")
    size = np.add.reduceat(_numbers(table, "count"), first)
    which = np.repeat(np.arange(len(first)), np.diff(np.append(first, table.num_rows)))
    document, text = _numbers(table, "document"), _numbers(table, "text")
    # Rows are best first, also among those of one text.
    _, first_of_text, text_of = np.unique(text, return_index=True, return_inverse=True)
    answer = pa.table(
        {
            "text": text,
            "best": document[first_of_text][text_of],
            "kept": document[first][which],
            "id": table["id"].take(pa.array(first[which])),
            "size": size[which],
        }
    )
    yield from _split_table(document >> ROW_BITS, answer)


class _WriteFn(beam.DoFn):
    def __init__(self, threshold: float, output: str, key: str) -> None:
        self._threshold = threshold
        self._output = output
        self._key = key

    def process(self, joined: tuple[int, dict[str, Any]]) -> Iterator[int]:
        _, parts = joined
        (shard,) = parts["shard"]
        if shard.is_reference:
            return
        best = [pa.ipc.open_stream(v).read_all() for v in parts["best"]]
        judged = _JUDGED_SCHEMA.empty_table()
        if best:
            judged = self._judge(unpack(parts["members"], 4), pa.concat_tables(best))
        path = documents.attribute_path(self._output, shard)
        ids = parquet.read_table(storage.join(shard.documents, shard.relative), ["id"])["id"]
        table = _with_the_rest(judged, ids)
        yield documents.write_batches(path, DUPLICATES_SCHEMA, iter([table]), self._key)

    def _judge(self, members: Rows, best: pa.Table) -> pa.Table:
        """The stage's columns of the documents in clusters, in order of rows."""
        document, text, _, similarity = members.T
        best = best.sort_by("text")
        best = best.take(pa.array(np.searchsorted(_numbers(best, "text"), text)))
        is_exact = document != _numbers(best, "best")
        kept = document == _numbers(best, "kept")
        value = np.where(is_exact, 1.0, similarity.view(np.float64))
        threshold = np.where(is_exact, 1.0, self._threshold)
        rule = np.where(is_exact, EXACT_RULE, NEAR_RULE)
        columns = {
            "row": document & ROW_MASK,
            "verdict": np.where(kept, "pass", "drop"),
            "rule": pa.array(rule, mask=kept),
            "value": pa.array(value, mask=kept),
            "threshold": pa.array(threshold, mask=kept),
            "cluster": best["id"],
            "cluster_size": best["size"],
            "kept": kept,
        }
        return pa.table(columns, schema=_JUDGED_SCHEMA)


def _with_the_rest(judged: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    """The stage's columns of all rows of a shard: those outside of `judged` are alone and kept."""
    where = np.full(len(ids), -1)
    where[_numbers(judged, "row")] = np.arange(judged.num_rows)
    table = judged.take(pa.array(where, mask=where < 0))
    columns = {
        **{name: table[name] for name in table.column_names},
        "id": ids,
        "verdict": table["verdict"].fill_null("pass"),
        "cluster": pc.coalesce(table["cluster"], ids),
        "cluster_size": table["cluster_size"].fill_null(1),
        "kept": table["kept"].fill_null(True),
    }
    return pa.table([columns[name] for name in DUPLICATES_SCHEMA.names], schema=DUPLICATES_SCHEMA)


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return table[name].to_numpy()


def _first_of(table: pa.Table, *names: str) -> npt.NDArray[np.int64]:
    """Where groups of equal rows begin in a sorted table."""
    columns = np.stack([_numbers(table, name) for name in names], 1)
    differs = (columns[1:] != columns[:-1]).any(1)
    return np.flatnonzero(np.append(True, differs))


def _split_table(key: npt.NDArray[np.int64], table: pa.Table) -> Iterator[Keyed]:
    """A table apart for each key, as Arrow streams."""
    for k in np.unique(key).tolist():
        sink = pa.BufferOutputStream()
        chosen = table.filter(pa.array(key == k))
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(chosen)
        yield k, sink.getvalue().to_pybytes()


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("duplicates")
