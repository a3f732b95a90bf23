"""The sequences of a packed folder by number, at the length it was packed with or at another.

The records of a shard are cut from one stream of tokens. For another length the same stream is
cut anew as it is read: what comes out is what packing at that length would have made, every token
a target once and the last sequence of a shard padded. Ids are stored once, whatever lengths the
phases ask for.
"""

from __future__ import annotations

from collections.abc import Sequence

import grain
import numpy as np
import numpy.typing as npt

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed, PackedShard, Record, decode_record, num_records

# Up to here shards are hashed in full when they are opened (a second or so); above, their size
# and their manifest's hash are compared.
_HASHED_BYTES = 1 << 30

_REMAKE = "Remove that folder and run again: it will be packed anew."


class Sequences:
    """Sequences 0, 1, 2, ... of the shards of a packed folder, in the order of its shards.

    Nothing is read before `open`.

    Args:
      sequence_length: S of the sequences; they hold S + 1 ids.
      language: take the shards of this language only.
    """

    def __init__(self, packed: Packed, sequence_length: int, language: str | None = None) -> None:
        self.sequence_length = sequence_length
        self.shards = [s for s in packed.shards if language in (None, s.language)]
        self._packed = packed
        self._source: grain.sources.ArrayRecordDataSource | None = None
        # Number of the first sequence, and of the first stored record, of each shard; then all.
        self._firsts = _sums([self._num_sequences(shard) for shard in self.shards])
        self._first_records = _sums([shard.num_records for shard in self.shards])

    def _num_sequences(self, shard: PackedShard) -> int:
        if self.sequence_length == self._packed.sequence_length:
            return shard.num_records
        return num_records(shard.num_tokens, self.sequence_length)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def shard_of(self, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Indices in `shards` of the shards in which these sequences lie."""
        return np.searchsorted(self._firsts, numbers, side="right") - 1

    def num_in_shards(self) -> npt.NDArray[np.int64]:
        """int64 [shards]: how many sequences each holds."""
        return np.diff(self._firsts)

    def open(self) -> None:
        """Check the shards and make them readable.

        Raises:
          InputError: a shard is missing, cut short or changed.
        """
        if self._source is None:
            self._source = _open(self.shards)

    def __getitem__(self, number: int) -> Record:
        """Sequence `number`.

        Raises:
          InputError: a record cannot be read, or holds an id that is not in the vocabulary.
        """
        assert 0 <= number < len(self)
        shard = int(self.shard_of(number))
        begin = (number - int(self._firsts[shard])) * self.sequence_length
        stored = self._packed.sequence_length
        # Record k holds the targets k * stored + 1 to (k + 1) * stored of the stream.
        first = begin // stored
        last = min((begin + self.sequence_length - 1) // stored, self.shards[shard].num_records - 1)
        base = int(self._first_records[shard])
        records = [self._read(base + k) for k in range(first, last + 1)]
        if self.sequence_length == stored:
            return records[0]
        return _window(records, begin - first * stored, self.sequence_length)

    def _read(self, index: int) -> Record:
        assert self._source is not None, "open() comes first"
        packed = self._packed
        try:
            record = decode_record(self._source[index])
        except (ValueError, OSError, IndexError, RuntimeError) as e:
            raise InputError(f"{self._place(index)} cannot be read ({e}). {_REMAKE}") from e
        if len(record.ids) != packed.sequence_length + 1:
            raise InputError(
                f"{self._place(index)} holds {len(record.ids)} ids, not "
                f"{packed.sequence_length + 1}. {_REMAKE}"
            )
        # A gather of a row that is not there gives NaN, steps later and without a word of why.
        largest = int(record.ids.view(np.uint32).max())
        if largest >= packed.vocab_size:
            raise InputError(
                f"{self._place(index)} holds the id {largest}, and the vocabulary has "
                f"{packed.vocab_size}. {_REMAKE}"
            )
        return record

    def _place(self, index: int) -> str:
        shard = int(np.searchsorted(self._first_records, index, side="right")) - 1
        return f"{self.shards[shard].path}: record {index - int(self._first_records[shard])}"


def _sums(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(counts, np.int64))])


def _window(records: Sequence[Record], begin: int, sequence_length: int) -> Record:
    """S + 1 ids from position `begin` of neighbouring records on, padded where they end.

    Neighbours share one token; what stands in both of them (a start, a masked position) is the
    same in both.
    """
    size = sequence_length + 1
    stored = len(records[0].ids) - 1
    ids = np.concatenate([records[0].ids[:1], *(record.ids[1:] for record in records)])
    ids = ids[begin : begin + size]
    offsets = [k * stored - begin for k in range(len(records))]
    starts = np.unique(
        np.concatenate([r.starts + at for r, at in zip(records, offsets, strict=True)])
    )
    masked = np.concatenate([r.masked + at for r, at in zip(records, offsets, strict=True)])
    masked = np.clip(masked, 0, len(ids))
    if len(ids) < size:
        # The last id of a shard ends a text, or pads already.
        masked = np.concatenate([masked, [[len(ids), size]]])
        ids = np.pad(ids, (0, size - len(ids)), mode="edge")
    return Record(
        ids,
        starts[(starts >= 0) & (starts < size)].astype(np.int32),
        masked[masked[:, 0] < masked[:, 1]].astype(np.int32),
    )


def _open(shards: Sequence[PackedShard]) -> grain.sources.ArrayRecordDataSource:
    manifests = {shard.path: storage.read_manifest(shard.path) for shard in shards}
    num_bytes = sum(m["bytes"] for m in manifests.values() if m)
    for shard in shards:
        manifest = manifests[shard.path]
        if manifest is None:
            raise InputError(f"{shard.path}: is missing or cut short. {_REMAKE}")
        changed = manifest["sha256"] != shard.sha256 or (
            num_bytes <= _HASHED_BYTES and storage.sha256_file(shard.path) != shard.sha256
        )
        if changed:
            raise InputError(f"{shard.path}: has changed since it was packed. {_REMAKE}")
    # The range after the name saves the reader from opening every shard to count its records.
    ranges = [f"{shard.path}[0:{shard.num_records}]" for shard in shards]
    return grain.sources.ArrayRecordDataSource(ranges)
