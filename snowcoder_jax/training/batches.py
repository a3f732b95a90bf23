"""The batch of step k as a pure function of (phase, packed folders, seed, k).

The streams of a phase (`mixture.py`: its parts, or the languages of a part) are interleaved by
their exact counts, and a host takes its run of rows: no iterator state, so a resume needs the step
alone and may change the number of hosts.

Shape legend: B rows of the batch, S positions.
"""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed, Record
from snowcoder_jax.training.mixture import counts_before, make_streams, resolve_mixture

T = TypeVar("T")


class Batches:
    """The batches of one phase for one host.

    Args:
      packed: by selection name; at the phase's sequence length or at another.
      seed: the recipe's.
      host_index, num_hosts: which run of each batch's rows to read.

    Raises:
      InputError: too little data, hosts that do not divide the batch, or a shard that is missing,
        cut short or changed.
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
        self.phase = phase
        self.mixture = resolve_mixture(phase, packed)
        self._streams = make_streams(phase, packed, self.mixture, seed)
        self._sizes = [stream.num_sequences for stream in self._streams]
        self._num_rows = phase.batch_size // num_hosts
        self._first_row = host_index * self._num_rows
        for stream in self._streams:
            if stream.num_sequences:
                stream.sequences.open()

    def sequence_ids(self, k: int) -> npt.NDArray[np.int64]:
        """int64 [B of this host, 3]: stream, epoch and sequence of each row of batch k (from 0).

        A stream is a part of the mixture, or one language of it where the part weighs languages.
        """
        assert 0 <= k < self.phase.num_steps
        first = k * self.phase.batch_size + self._first_row
        rows = []
        for index in range(first, first + self._num_rows):
            before = counts_before(index, self._sizes)
            after = counts_before(index + 1, self._sizes)
            i = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a < b)
            stream = self._streams[i]
            rows.append((i, before[i] // len(stream.sequences), stream.order[before[i]]))
        return np.array(rows, np.int64)

    def batch(self, k: int) -> dict[str, npt.NDArray[Any]]:
        """Batch k, counted from 0.

        Returns:
          ids: int32 [B, S+1]; inputs are ids[:, :-1], targets ids[:, 1:].
          weights: float32 [B, S], of the targets: 0 in masked spans, else 1.
          first_key: int32 [B, S], where the document of each input position begins.
          sequence_ids: as the method of that name.

        Raises:
          InputError: a shard cannot be read, or holds ids outside the vocabulary.
        """
        sequence_ids = self.sequence_ids(k)
        records = [self._streams[i].sequences[number] for i, _, number in sequence_ids.tolist()]
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
        for stream, count in zip(self._streams, before, strict=True):
            selection = self.phase.data[stream.part].selection
            counts[selection] = counts.get(selection, 0) + count
        return counts


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
