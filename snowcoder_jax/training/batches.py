"""The batch of step k as a pure function of (phase, packed folders, seed, k).

Each mixture part is put in order by grain (a seeded shuffle for each epoch, repeated), the parts
are interleaved by their exact counts, and a host takes its run of rows: no iterator state, so a
resume needs the step alone and may change the number of hosts.

Shape legend: B rows of the batch, S positions.
"""

from __future__ import annotations

import concurrent.futures
import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import grain
import numpy as np
import numpy.typing as npt

from snowcoder_jax import recipe, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed, Record, decode_record

T = TypeVar("T")

# Without a part that fills, rounding of budgets may send a part over its repeat limit by this
# share of it or by one batch, whichever is larger.
_OVERRUN_SHARE = 0.02

# Up to here shards are hashed in full when they are opened (a second or so); above, their size
# and their manifest's hash are compared.
_HASHED_BYTES = 1 << 30


@dataclass(frozen=True)
class ResolvedPart:
    """What a phase reads of a mixture part.

    Attributes:
      num_sequences: read in the whole phase.
      num_records: the part holds.
      epochs: num_sequences / num_records (0 where it holds none).
      shortfall: sequences that its weight asks for and another part fills.
    """

    selection: str
    num_sequences: int
    num_records: int
    epochs: float
    shortfall: int


def resolve_mixture(phase: recipe.Phase, packed: dict[str, Packed]) -> tuple[ResolvedPart, ...]:
    """How many sequences of each part the phase reads; they add up to its steps x batch.

    Raises:
      InputError: the parts hold too little, even with their repetitions.
    """
    num_wanted = phase.num_steps * phase.batch_size
    wanted = _split_by_weight(num_wanted, [part.weight for part in phase.data])
    records = [packed[part.selection].num_records for part in phase.data]
    fill = next((i for i, part in enumerate(phase.data) if part.fill), None)
    taken = []
    for i, part in enumerate(phase.data):
        limit = records[i] * part.repeat
        if fill is None:
            limit = _with_overrun(limit, phase.batch_size)
        taken.append(wanted[i] if i == fill else min(wanted[i], limit))
    num_short = num_wanted - sum(taken)
    if fill is not None:
        limit = _with_overrun(records[fill] * phase.data[fill].repeat, phase.batch_size)
        taken[fill] = min(taken[fill] + num_short, limit)
        num_short = num_wanted - sum(taken)
    if num_short:
        holds = ", ".join(
            f"{part.selection} {n} x {part.repeat}"
            for part, n in zip(phase.data, records, strict=True)
        )
        raise InputError(
            f"phases.{phase.name}.data: {num_short} of {num_wanted} sequences are short "
            f"(sequences held x repeat: {holds}). Lower phases.{phase.name}.tokens to "
            f"{(num_wanted - num_short) // phase.batch_size * phase.tokens_per_step}, raise a "
            "part's `repeat`, or give `fill: true` to a part that holds more."
        )
    return tuple(
        ResolvedPart(
            selection=part.selection,
            num_sequences=taken[i],
            num_records=records[i],
            epochs=taken[i] / records[i] if records[i] else 0.0,
            shortfall=max(0, wanted[i] - taken[i]),
        )
        for i, part in enumerate(phase.data)
    )


def _with_overrun(limit: int, batch_size: int) -> int:
    return limit + max(int(limit * _OVERRUN_SHARE), batch_size) if limit else 0


def _split_by_weight(total: int, weights: list[float]) -> list[int]:
    """Whole numbers in proportion to the weights that add up to `total` (largest remainders)."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [math.floor(x) for x in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def counts_before(index: int, sizes: list[int]) -> list[int]:
    """How many of the first `index` sequences of a mixture come from each part.

    The parts are spread evenly: each count follows its share of `sizes` to within one for each
    part before it, and at the end is exactly its size.
    """
    counts, left, remaining = [], index, sum(sizes)
    for size in sizes:
        # Of `left` sequences, these fall to the parts that come after this one.
        after = left * (remaining - size) // remaining if remaining else 0
        counts.append(left - after)
        left, remaining = after, remaining - size
    return counts


class Batches:
    """The batches of one phase for one host.

    Args:
      packed: by selection name.
      seed: the recipe's.
      host_index, num_hosts: which run of each batch's rows to read.

    Raises:
      InputError: too little data, another sequence length, hosts that do not divide the batch,
        or a shard that is missing, cut short or changed.
    """

    def __init__(
        self,
        phase: recipe.Phase,
        packed: dict[str, Packed],
        seed: int,
        host_index: int = 0,
        num_hosts: int = 1,
    ) -> None:
        assert 0 <= host_index < num_hosts
        if phase.batch_size % num_hosts:
            raise InputError(
                f"phases.{phase.name}.batch_size: {phase.batch_size} is not divided by "
                f"{num_hosts} hosts. Choose a multiple."
            )
        for part in phase.data:
            length = packed[part.selection].sequence_length
            if length != phase.sequence_length:
                raise InputError(
                    f"phases.{phase.name}.sequence_length: {phase.sequence_length}, but selection "
                    f"`{part.selection}` is packed at {length}. Give both the same."
                )
        self.phase = phase
        self.mixture = resolve_mixture(phase, packed)
        self._sizes = [part.num_sequences for part in self.mixture]
        self._parts = [packed[part.selection] for part in phase.data]
        self._num_rows = phase.batch_size // num_hosts
        self._first_row = host_index * self._num_rows
        used = {p.folder: p for p, n in zip(self._parts, self._sizes, strict=True) if n}
        self._sources = {folder: _open(p) for folder, p in used.items()}
        self._orders = [
            _order(p.num_records, storage.seeded_hash(seed, "batches", f"{phase.name}/{i}"))
            for i, p in enumerate(self._parts)
        ]

    def sequence_ids(self, k: int) -> npt.NDArray[np.int64]:
        """int64 [B of this host, 3]: part, epoch, record of each row of batch k (from 0)."""
        assert 0 <= k < self.phase.num_steps
        first = k * self.phase.batch_size + self._first_row
        rows = []
        for index in range(first, first + self._num_rows):
            before = counts_before(index, self._sizes)
            after = counts_before(index + 1, self._sizes)
            part = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a < b)
            epoch = before[part] // self._parts[part].num_records
            rows.append((part, epoch, self._orders[part][before[part]]))
        return np.array(rows, np.int64)

    def batch(self, k: int) -> dict[str, npt.NDArray[Any]]:
        """Batch k, counted from 0.

        Returns:
          ids: int32 [B, S+1]; inputs are ids[:, :-1], targets ids[:, 1:].
          weights: float32 [B, S], of the targets: 0 in masked spans, else 1.
          first_key: int32 [B, S], where the document of each input position begins.
          sequence_ids: as the method of that name.

        Raises:
          InputError: a shard cannot be read.
        """
        sequence_ids = self.sequence_ids(k)
        records = [self._read(int(part), int(record)) for part, _, record in sequence_ids]
        return {
            "ids": np.stack([record.ids for record in records]),
            "weights": np.stack([target_weights(record) for record in records]),
            "first_key": np.stack([first_keys(record) for record in records]),
            "sequence_ids": sequence_ids,
        }

    __call__ = batch

    def counts_until(self, k: int) -> dict[str, int]:
        """Sequences of each selection in the batches 0 to k - 1 of all hosts."""
        counts: dict[str, int] = {}
        before = counts_before(k * self.phase.batch_size, self._sizes)
        for part, count in zip(self.mixture, before, strict=True):
            counts[part.selection] = counts.get(part.selection, 0) + count
        return counts

    def _read(self, part: int, index: int) -> Record:
        packed = self._parts[part]
        try:
            record = decode_record(self._sources[packed.folder][index])
        except (ValueError, OSError, IndexError, RuntimeError) as e:
            raise InputError(
                f"{packed.folder}: record {index} cannot be read ({e}). {_REMAKE}"
            ) from e
        if len(record.ids) != packed.sequence_length + 1:
            raise InputError(
                f"{packed.folder}: record {index} holds {len(record.ids)} ids, not "
                f"{packed.sequence_length + 1}. {_REMAKE}"
            )
        return record


def target_weights(record: Record) -> npt.NDArray[np.float32]:
    """float32 [S]: whether ids[s + 1] bears loss as the target of position s."""
    weights = np.ones(len(record.ids), np.float32)
    for start, stop in record.masked:
        weights[start:stop] = 0.0
    return weights[1:]


def first_keys(record: Record) -> npt.NDArray[np.int32]:
    """int32 [S]: where the document of each position begins, 0 if in an earlier record."""
    keys = np.zeros(len(record.ids), np.int32)
    keys[record.starts] = record.starts
    return np.maximum.accumulate(keys)[:-1]


def prefetched(make: Callable[[int], T], first: int, last: int, depth: int = 2) -> Generator[T]:
    """make(first), ..., make(last - 1), made up to `depth` ahead in one background thread."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(make, k) for k in range(first, min(first + depth, last)))
        try:
            for k in range(first + depth, last + depth):
                made = pending.popleft().result()
                if k < last:
                    pending.append(pool.submit(make, k))
                yield made
        finally:
            pool.shutdown(cancel_futures=True)


def _order(num_records: int, seed: int) -> grain.MapDataset:
    """Record numbers for ever: every epoch a shuffle of its own, in which each stands once."""
    return grain.MapDataset.range(num_records).shuffle(seed=seed % 2**32).repeat(None)


_REMAKE = "Remove that folder and run again: it will be packed anew."


def _open(packed: Packed) -> grain.sources.ArrayRecordDataSource:
    manifests = {shard.path: storage.read_manifest(shard.path) for shard in packed.shards}
    num_bytes = sum(m["bytes"] for m in manifests.values() if m)
    for shard in packed.shards:
        manifest = manifests[shard.path]
        if manifest is None:
            raise InputError(f"{shard.path}: is missing or cut short. {_REMAKE}")
        changed = manifest["sha256"] != shard.sha256 or (
            num_bytes <= _HASHED_BYTES and storage.sha256_file(shard.path) != shard.sha256
        )
        if changed:
            raise InputError(f"{shard.path}: has changed since it was packed. {_REMAKE}")
    # The range after the name saves the reader from opening every shard to count its records.
    ranges = [f"{shard.path}[0:{shard.num_records}]" for shard in packed.shards]
    return grain.sources.ArrayRecordDataSource(ranges)
