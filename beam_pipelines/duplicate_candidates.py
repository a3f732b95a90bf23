"""Which documents are to be compared: pairs of those that share the key of a band.

A small group of documents under one key is compared whole, where its band is. The members of a
crowd (`text/duplicates.py`) are compared with few of each other, and which those are depends on all
crowds that they are in: so every document learns its prominence in its shard, and then crowds meet.
Two shuffles of 24 bytes for each document and each crowd it is in, so at most 24 * bands bytes a
document, and none where nothing is crowded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_pipelines.int_rows import ROW_BITS, ROW_MASK, Keyed, Rows, Scratch, split_by, unpack
from snowcoder_jax.text import components, words
from snowcoder_jax.text import duplicates as text_duplicates
from snowcoder_jax.text.components import distinct_rows

# A runner in memory holds the data of a shuffle four times while it groups them: what is large goes
# in this many shuffles, one after the other.
_NUM_SHUFFLES = 4
# Candidate pairs held before they are sent on, so that those of many bands are sent once.
_MAX_HELD_PAIRS = 2**22

_PAIRS, _CROWDS = "pairs", "crowds"

Mask = npt.NDArray[np.bool_]


def add_candidates(
    bands: beam.PCollection[Keyed], scratch: Scratch, *, num_shards: int, num_judged: int
) -> beam.PCollection[Keyed]:
    """Candidate pairs, each at least once, each with one of `num_shards` places to compare it.

    Args:
      bands: values of `pack_band`, by any numbers below 2^31 that keep apart what is not to meet.
      scratch: holds "texts", a hash of every document's text.
      num_judged: documents of the shards from there on are references, which are not compared with
        each other.
    """
    first_reference = num_judged << ROW_BITS
    found = group_apart(
        "Bands",
        bands,
        beam.ParDo(_ProposeFn(num_shards, first_reference))
        .with_output_types(Keyed, **{_CROWDS: Keyed})
        .with_outputs(_CROWDS, main=_PAIRS),
    )
    of_crowds = (
        [part[_CROWDS] for part in found]
        | "AllCrowds" >> beam.Flatten()
        | "MeetOwn" >> beam.GroupByKey()
        | "Prominence" >> beam.ParDo(_prominence, scratch, num_shards).with_output_types(Keyed)
        | "MeetCrowds" >> beam.GroupByKey()
        | "Crowds" >> beam.ParDo(_CrowdFn(num_shards, first_reference)).with_output_types(Keyed)
    )
    return [*(part[_PAIRS] for part in found), of_crowds] | "AllPairs" >> beam.Flatten()


def group_apart(name: str, keyed: beam.PCollection[Keyed], work: beam.PTransform) -> list[Any]:
    """Group by key in several shuffles; what `work` makes of the groups of each."""
    return [
        keyed
        | f"{name}{number}" >> beam.Filter(_is_of_shuffle, number)
        | f"Group{name}{number}" >> beam.GroupByKey()
        | f"Work{name}{number}" >> work
        for number in range(_NUM_SHUFFLES)
    ]


def _is_of_shuffle(keyed: Keyed, number: int) -> bool:
    return keyed[0] % _NUM_SHUFFLES == number


def pack_band(first: int, has_key: Mask, key: npt.NDArray[np.uint32]) -> bytes:
    """Keys of one band, of the documents from number `first` on that have one."""
    header = np.array([first, len(has_key)], "<i8").tobytes()
    return b"".join((header, np.packbits(has_key).tobytes(), key.astype("<u4").tobytes()))


def _unpack_band(value: bytes) -> tuple[npt.NDArray[np.uint32], Rows]:
    """Keys, and their document numbers."""
    first, num_rows = np.frombuffer(value, "<i8", 2).tolist()
    end = 16 + -(-num_rows // 8)
    mask = np.unpackbits(np.frombuffer(value[16:end], np.uint8), count=num_rows)
    return np.frombuffer(value, "<u4", offset=end), first + np.flatnonzero(mask)


class _PairsFn(beam.DoFn):
    """Finds candidate pairs; one that is found many times is sent once a bundle."""

    def __init__(self, num_partitions: int, first_reference: int) -> None:
        self._num_partitions = np.uint64(num_partitions)
        self._first_reference = first_reference
        self._held: list[Rows] = []

    def _hold(self, pairs: Rows) -> Iterator[Keyed]:
        self._held.append(pairs)
        if len(self._held) > 1 and sum(map(len, self._held[1:])) > len(self._held[0]):
            self._held = [distinct_rows(np.concatenate(self._held))]
        if len(self._held[0]) > _MAX_HELD_PAIRS:
            yield from self._send()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for packed in self._send():
            yield WindowedValue(packed, window.max_timestamp(), [window])

    def _send(self) -> Iterator[Keyed]:
        if not self._held:
            return
        graph = components.graph_of(np.concatenate(self._held))
        self._held = []
        # Pairs go where the smallest neighbour of their first document's smallest neighbour says:
        # alike documents meet in one place, and send their shingles to few.
        document, smallest = components.labels(graph).T
        hub = smallest[np.searchsorted(document, smallest)]
        partition = (words.mix(hub.view(np.uint64)) % self._num_partitions).view(np.int64)
        first, second = graph[graph[:, 0] < graph[:, 1]].T
        yield from split_by(partition[np.searchsorted(document, first)], first, second)


class _ProposeFn(_PairsFn):
    """Pairs of one band after another; and to each document's shard, the crowds it is in."""

    def process(self, grouped: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        keys, documents = zip(*map(_unpack_band, grouped[1]), strict=True)
        key, document = np.concatenate(keys), np.concatenate(documents)
        pairs, crowds = text_duplicates.group_pairs(key, document)
        # Two references need no comparison: what is near to either is no new text.
        yield from self._hold(pairs[pairs[:, 0] < self._first_reference])
        group = grouped[0] << 32 | crowds.group
        for keyed in split_by(crowds.document >> ROW_BITS, crowds.document, group, crowds.size):
            yield beam.pvalue.TaggedOutput(_CROWDS, keyed)


def _prominence(
    grouped: tuple[int, Iterable[bytes]], scratch: Scratch, num_partitions: int
) -> Iterator[Keyed]:
    """To where a crowd meets: (crowd, document, how prominent it is)."""
    index, values = grouped
    document, group, size = unpack(values, 3).T
    text_hash = scratch.load("texts", index, 1)[document & ROW_MASK, 0].view(np.uint64)
    prominent = text_duplicates.prominence(document, size, text_hash)
    partition = words.mix(group.view(np.uint64)) % np.uint64(num_partitions)
    yield from split_by(partition.view(np.int64), group, document, prominent)


class _CrowdFn(_PairsFn):
    """Pairs of the crowds that meet in one place."""

    def process(self, grouped: tuple[int, Iterable[bytes]]) -> Iterator[Keyed]:
        group, document, prominent = unpack(grouped[1], 3).T
        pairs = text_duplicates.crowd_pairs(group, document, prominent, self._first_reference)
        yield from self._hold(pairs)
