"""Which documents are alike: exact copies, and verified pairs of near-duplicates.

Shards are read three times and no text is shuffled.

1. Keys of whole texts meet; of equal texts all but one are copies and go no further.
2. MinHash band keys of the rest meet: 32 bits each, with no document number beside them. A value
   holds the keys of one band for a run of rows in their order, and a bit for each row that has
   one. Keys that meet propose pairs (`duplicate_candidates`).
3. Shingle hashes of the documents in those pairs meet, and a pair counts where the exact Jaccard
   similarity reaches the threshold.

What is found lies in scratch files, one for each shard: "bytes" and "texts" (the size of each row's
text, and a hash), "copies" (copy, first of its copies) by the shard of the copy, and "near"
(document, other, bits of their similarity) both ways, by the shard of the first; and the graph that
`duplicate_clusters` settles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipelines import duplicate_candidates, duplicate_clusters
from beam_pipelines.documents import Shard
from beam_pipelines.duplicate_candidates import Mask
from beam_pipelines.duplicate_clusters import Grouped
from beam_pipelines.int_rows import ROW_BITS, ROW_MASK, Keyed, Rows, Scratch, pack, split_by, unpack
from snowcoder_jax import recipe_corpus, storage
from snowcoder_jax.parquet import open_parquet, read_table
from snowcoder_jax.text import duplicates as text_duplicates
from snowcoder_jax.text import words

# Keys of a band are dealt to so many parts that one holds about this many documents: few enough
# for a worker's memory, and for 32 bits to tell them apart (one false candidate in 1,000 keys).
_DOCUMENTS_IN_A_SLICE = 2**23
# So many rows of whole-text keys are sorted in one place.
_DOCUMENTS_IN_AN_EXACT_PART = 2**20
# Texts read at a time: Arrow keeps what it decoded at once.
_BATCH_ROWS = 64

# Rows whose keys go into one value of a shuffle.
_ROWS_IN_A_VALUE = 512


@dataclasses.dataclass(frozen=True)
class Compared(Shard):
    """A shard as it takes part in the comparison.

    Attributes:
      heads: folder of a column `head_bytes`: so many bytes at the start of each document were
        given to who wrote it, and are not compared. None: all of it is.
      is_reference: its documents are compared with others, not with each other.
    """

    heads: str | None = None
    is_reference: bool = False


# (index, shard), in a collection that every stage reads; references come last.
Numbered = tuple[int, Compared]


def add_pairs(
    numbered: beam.PCollection[Numbered],
    config: recipe_corpus.Duplicates,
    scratch: Scratch,
    *,
    num_shards: int,
    num_judged: int,
    num_documents: int,
) -> None:
    """Add to a pipeline all that leads from shards to these scratch files.

    Args:
      num_shards: of them the first `num_judged` are no references.
    """
    num_exact_parts = 1 + num_documents // _DOCUMENTS_IN_AN_EXACT_PART
    num_slices = 1 + num_documents // _DOCUMENTS_IN_A_SLICE
    copies = (
        numbered
        | "ExactKeys" >> beam.ParDo(_ExactFn(scratch, num_exact_parts)).with_output_types(Keyed)
        | "GroupExact" >> beam.GroupByKey()
        | "Copies" >> beam.ParDo(_find_copies).with_output_types(Keyed)
    )
    bands = (
        {"shard": numbered, "copies": copies}
        | "JoinCopies" >> beam.CoGroupByKey()
        | "Sign" >> beam.ParDo(_SignFn(config, scratch, num_slices)).with_output_types(Keyed)
    )
    proposed = duplicate_candidates.add_candidates(
        bands, scratch, num_shards=num_shards, num_judged=num_judged
    )
    needs = (
        proposed
        | "GroupPairs" >> beam.GroupByKey()
        | "Needs" >> beam.ParDo(_needs).with_output_types(Keyed)
    )
    shingles = (
        {"shard": numbered, "needs": needs}
        | "JoinNeeds" >> beam.CoGroupByKey()
        | "Shingle" >> beam.ParDo(_ShingleFn(config.ngram_words)).with_output_types(Keyed)
    )
    verify = beam.ParDo(_verify, config.threshold).with_output_types(Keyed)
    near = duplicate_candidates.group_apart("Verify", shingles, verify) | "Near" >> beam.Flatten()
    graph = (
        {"shard": numbered, "near": near}
        | "JoinNear" >> beam.CoGroupByKey()
        | "SaveNear" >> beam.ParDo(_save_near, scratch)
    )
    duplicate_clusters.save_graph(duplicate_clusters.add_first_phases(graph), scratch, phase=0)


def read_rows(
    shard: Shard, columns: Sequence[str], wanted: Rows | None = None
) -> Iterator[tuple[Rows, pa.Table]]:
    """(row numbers, those rows) of a shard, a few at a time; all, or the sorted `wanted` ones.

    Row groups without wanted rows are not read.
    """
    with open_parquet(storage.join(shard.documents, shard.relative)) as file:
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        groups = range(len(sizes))
        if wanted is not None:
            groups = np.unique(np.searchsorted(ends, wanted, side="right")).tolist()
        if len(groups) == 0:
            return
        rows = np.concatenate([np.arange(ends[g] - sizes[g], ends[g]) for g in groups])
        start = 0
        batches = file.iter_batches(
            _BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False
        )
        for batch in batches:
            here = rows[start : start + batch.num_rows]
            start += batch.num_rows
            table = pa.Table.from_batches([batch])
            if wanted is not None:
                is_wanted = np.isin(here, wanted)
                here, table = here[is_wanted], table.filter(pa.array(is_wanted))
            if len(here):
                yield here, table


def read_contents(
    shard: Compared, wanted: Rows | None = None
) -> Iterator[tuple[Rows, pa.ChunkedArray]]:
    """(row numbers, what is compared of those rows), as `read_rows`."""
    heads: Rows | None = None
    if shard.heads is not None:
        path = storage.join(shard.heads, shard.relative)
        heads = read_table(path, ["head_bytes"])["head_bytes"].to_numpy()
    for rows, table in read_rows(shard, ["content"], wanted):
        content = table["content"]
        if heads is not None:
            parts = zip(content.to_pylist(), heads[rows].tolist(), strict=True)
            rest = [text.encode()[size:].decode() for text, size in parts]
            content = pa.chunked_array([pa.array(rest, content.type)])
        yield rows, content


class _ExactFn(beam.DoFn):
    """First reading: a key of every whole text."""

    def __init__(self, scratch: Scratch, num_parts: int) -> None:
        self._scratch = scratch
        self._num_parts = np.uint64(num_parts)

    def process(self, numbered: Numbered) -> Iterator[Keyed]:
        index, shard = numbered
        keys = [np.zeros((0, 2), np.uint64)]
        sizes = [np.zeros(0, np.int64)]
        for _, content in read_contents(shard):
            keys.append(text_duplicates.exact_rows(content.to_pylist()))
            sizes.append(pc.binary_length(content).to_numpy())
        self._scratch.save("bytes", index, np.concatenate(sizes))
        first, second = np.concatenate(keys).T
        self._scratch.save("texts", index, first)
        document = index << ROW_BITS | np.arange(len(first), dtype=np.int64)
        part = (first % self._num_parts).astype(np.int64)
        yield from split_by(part, first, second, document)


def _find_copies(grouped: tuple[int, Iterable[bytes]]) -> Iterator[Keyed]:
    """Copies of one part of the key space, to their shards."""
    rows = unpack(grouped[1], 3)
    copies = text_duplicates.copies(rows[:, :2].view(np.uint64), rows[:, 2])
    yield from split_by(copies[:, 0] >> ROW_BITS, *copies.T)


class _SignFn(beam.DoFn):
    """Second reading: the band keys of every document that is no copy of another."""

    def __init__(self, config: recipe_corpus.Duplicates, scratch: Scratch, num_slices: int) -> None:
        self._config = config
        self._scratch = scratch
        self._num_slices = num_slices

    def process(self, joined: tuple[int, dict[str, Any]]) -> Iterator[Keyed]:
        index, parts = joined
        copies = unpack(parts["copies"], 2)
        self._scratch.save("copies", index, *copies.T)
        (shard,) = parts["shard"]
        first, held = 0, []
        for rows, content in read_contents(shard):
            is_new = ~np.isin(rows, copies[:, 0] & ROW_MASK)
            held.append(self._sign(content, is_new))
            if rows[-1] + 1 - first >= _ROWS_IN_A_VALUE:
                yield from self._send(index << ROW_BITS | first, held)
                first, held = int(rows[-1]) + 1, []
        if held:
            yield from self._send(index << ROW_BITS | first, held)

    def _sign(self, content: pa.ChunkedArray, signed: Mask) -> tuple[Mask, words.Hashes]:
        """Which of the texts have keys, being wanted and having words; and their keys."""
        config = self._config
        texts = content.filter(pa.array(signed)).to_pylist()
        grams = [text_duplicates.word_ngrams(text, config.ngram_words) for text in texts]
        signed[signed] = [len(g) > 0 for g in grams]
        with_words = [g for g in grams if len(g)]
        return signed, text_duplicates.band_keys(with_words, config.bands, config.rows)

    def _send(self, first: int, held: list[tuple[Mask, words.Hashes]]) -> Iterator[Keyed]:
        signed = np.concatenate([mask for mask, _ in held])
        keys = np.concatenate([keys for _, keys in held])
        # The halves of a key are independent: one picks the slice, the other is sent.
        slices = (keys & np.uint64(ROW_MASK)) % np.uint64(self._num_slices)
        short = (keys >> np.uint64(32)).astype(np.uint32)
        for number in range(self._num_slices):
            for band in range(self._config.bands):
                chosen = slices[:, band] == number
                mask = np.zeros(len(signed), np.bool_)
                mask[signed] = chosen
                value = duplicate_candidates.pack_band(first, mask, short[chosen, band])
                yield number * self._config.bands + band, value


def _needs(grouped: tuple[int, Iterable[bytes]]) -> Iterator[Keyed]:
    """To each shard, (document, partition to send it to, second of its pair or itself).

    Pairs that several bundles found are one. They travel with their first documents, so that all
    that meets in a partition comes from one place.
    """
    partition, values = grouped
    first, second = unpack(values, 2).T
    both = np.unique(np.concatenate([first, second]))
    document, other = np.concatenate([first, both]), np.concatenate([second, both])
    yield from split_by(document >> ROW_BITS, document, np.full_like(document, partition), other)


class _ShingleFn(beam.DoFn):
    """Third reading: candidate pairs and the shingles of their documents, to where they meet."""

    def __init__(self, ngram_words: int) -> None:
        self._ngram_words = ngram_words

    def process(self, joined: tuple[int, dict[str, Any]]) -> Iterator[Keyed]:
        index, parts = joined
        document, partition, other = unpack(parts["needs"], 3).T
        is_pair = document != other
        pairs = split_by(partition[is_pair], document[is_pair], other[is_pair])
        yield from ((to, _PAIRS + packed) for to, packed in pairs)
        (shard,) = parts["shard"]
        document, partition = document[~is_pair], partition[~is_pair]
        for rows, content in read_contents(shard, np.unique(document) & ROW_MASK):
            texts = content.to_pylist()
            sets = [text_duplicates.shingles(text, self._ngram_words) for text in texts]
            here = index << ROW_BITS | rows
            meets = np.isin(document, here)
            for to in np.unique(partition[meets]).tolist():
                sent = np.searchsorted(here, document[meets & (partition == to)])
                yield to, _pack_sets(here[sent], [sets[i] for i in sent])


# Where pairs and shingles meet, the first number of a value tells them apart.
_PAIRS = np.zeros(1, "<i8").tobytes()


def _pack_sets(document: Rows, sets: Sequence[words.Hashes]) -> bytes:
    """The number of sets, which is not 0; their documents, their sizes, and the sets."""
    sizes = [len(s) for s in sets]
    head = np.array([len(sets), *document.tolist(), *sizes], np.uint64)
    return np.concatenate([head, *sets]).astype("<u8", copy=False).tobytes()


def _unpack_sets(value: bytes) -> Iterator[tuple[int, words.Hashes]]:
    numbers = np.frombuffer(value, "<u8")
    count = int(numbers[0])
    ends = np.cumsum(numbers[count + 1 : 2 * count + 1]).astype(np.int64)
    sets = np.split(numbers[2 * count + 1 :], ends[:-1])
    yield from zip(numbers[1 : count + 1].tolist(), sets, strict=True)


def _verify(grouped: tuple[int, Iterable[bytes]], threshold: float) -> Iterator[Keyed]:
    """Both ways, (document, other, bits of the similarity) where that reaches the threshold."""
    sets: dict[int, words.Hashes] = {}
    found: list[bytes] = []
    for value in grouped[1]:
        if value.startswith(_PAIRS):
            found.append(value[len(_PAIRS) :])
        else:
            sets.update(_unpack_sets(value))
    pairs = unpack(found, 2)
    documents = np.array(sorted(sets), np.int64)
    size = np.array([len(sets[d]) for d in documents.tolist()])[np.searchsorted(documents, pairs)]
    # What shares all of the smaller set is this near at best.
    pairs = pairs[size.min(1) / size.max(1) >= threshold]
    similarity = np.array(
        [text_duplicates.jaccard(sets[a], sets[b]) for a, b in pairs.tolist()], np.float64
    )
    is_near = similarity >= threshold
    first, second = pairs[is_near].T
    for a, b in ((first, second), (second, first)):
        yield from split_by(a >> ROW_BITS, a, b, similarity[is_near])


def _save_near(joined: tuple[int, dict[str, Any]], scratch: Scratch) -> Iterator[Grouped]:
    near = unpack(joined[1]["near"], 3)
    scratch.save("near", joined[0], *near.T)
    yield joined[0], [pack(*near[:, :2].T)]
