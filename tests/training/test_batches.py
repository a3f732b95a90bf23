"""The order of sequences: exact mixtures, once per epoch, any host count, any resume."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import SEQUENCE_LENGTH, make_phase, write_records

from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed, Record
from snowcoder_jax.recipe import Part
from snowcoder_jax.training.batches import (
    Batches,
    first_keys,
    prefetched,
    target_weights,
)
from snowcoder_jax.training.mixture import counts_before, resolve_mixture

STEP = 8 * SEQUENCE_LENGTH


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packed]:
    folder = tmp_path_factory.mktemp("packed")
    return {
        "all": write_records(str(folder / "all"), 40),
        "few": write_records(str(folder / "few"), 7, num_shards=3, seed=1),
        "none": write_records(str(folder / "none"), 0, num_shards=1),
    }


def test_every_sequence_once_in_each_epoch_and_epochs_differ(data: dict[str, Packed]) -> None:
    phase = make_phase(tokens=15 * STEP, data=(Part("all", repeat=3),))
    batches = Batches(phase, data, seed=1)
    ids = np.concatenate([batches.sequence_ids(k) for k in range(15)])
    assert ids[:, 1].tolist() == [0] * 40 + [1] * 40 + [2] * 40
    orders = ids[:, 2].reshape(3, 40)
    assert (np.sort(orders) == np.arange(40)).all()
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0].tolist() != list(range(40))


def test_the_seed_and_the_phase_decide_the_order(data: dict[str, Packed]) -> None:
    phase = make_phase(tokens=5 * STEP)
    first = Batches(phase, data, seed=1).sequence_ids(0).tolist()
    assert first == Batches(phase, data, seed=1).sequence_ids(0).tolist()
    assert first != Batches(phase, data, seed=2).sequence_ids(0).tolist()
    other = make_phase(tokens=5 * STEP, name="continued")
    assert first != Batches(other, data, seed=1).sequence_ids(0).tolist()


def test_a_mixture_keeps_its_counts_and_spreads_its_parts(data: dict[str, Packed]) -> None:
    parts = (Part("all", weight=3, repeat=2), Part("few", weight=1, repeat=4))
    phase = make_phase(tokens=10 * STEP, data=parts)
    batches = Batches(phase, data, seed=0)
    seen = [Counter(batches.sequence_ids(k)[:, 0].tolist()) for k in range(10)]
    assert all(count == {0: 6, 1: 2} for count in seen)
    assert batches.counts_until(10) == {"all": 60, "few": 20}
    assert batches.counts_until(3) == {"all": 18, "few": 6}
    few = [tuple(row) for k in range(10) for row in batches.sequence_ids(k) if row[0] == 1]
    assert max(Counter(few).values()) == 1, "a record twice in one epoch of its part"


@pytest.mark.parametrize("num_hosts", [2, 4, 8])
def test_hosts_together_read_what_one_host_reads(data: dict[str, Packed], num_hosts: int) -> None:
    phase = make_phase(data=(Part("all", weight=2, repeat=3), Part("few", repeat=6)))
    alone = Batches(phase, data, seed=0)
    hosts = [Batches(phase, data, 0, h, num_hosts) for h in range(num_hosts)]
    for k in (0, 7):
        together = [host(k) for host in hosts]
        for name, array in alone(k).items():
            np.testing.assert_array_equal(np.concatenate([b[name] for b in together]), array)


def test_a_batch_in_the_middle_needs_no_batch_before_it(data: dict[str, Packed]) -> None:
    phase = make_phase()
    straight = list(prefetched(Batches(phase, data, seed=0), 0, phase.num_steps))
    resumed = list(prefetched(Batches(phase, data, seed=0), 5, phase.num_steps))
    assert len(straight) == phase.num_steps
    for ours, want in zip(resumed, straight[5:], strict=True):
        for name, array in want.items():
            np.testing.assert_array_equal(ours[name], array)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 1), (3, 5), (0, 7)])
def test_prefetching_gives_each_once_in_order(first: int, last: int) -> None:
    assert list(prefetched(lambda k: k, first, last)) == list(range(first, last))


def test_arrays_of_a_batch(data: dict[str, Packed]) -> None:
    batch = Batches(make_phase(), data, seed=0)(0)
    assert {n: (x.shape, x.dtype.name) for n, x in batch.items()} == {
        "ids": ((8, SEQUENCE_LENGTH + 1), "int32"),
        "weights": ((8, SEQUENCE_LENGTH), "float32"),
        "first_key": ((8, SEQUENCE_LENGTH), "int32"),
        "sequence_ids": ((8, 3), "int64"),
    }


def record(num_ids: int, starts: list[int], masked: list[list[int]]) -> Record:
    spans = np.array(masked, np.int32).reshape(-1, 2)
    return Record(np.arange(num_ids, dtype=np.int32), np.array(starts, np.int32), spans)


def test_masked_spans_weigh_nothing_as_targets() -> None:
    # Target of position s is id s + 1: the spans 0-2 and 5-7 hold the targets of 0 and 4, 5.
    assert target_weights(record(8, [], [[0, 2], [5, 7]])).tolist() == [0, 1, 1, 1, 0, 0, 1]
    assert target_weights(record(4, [], [])).tolist() == [1, 1, 1]
    assert target_weights(record(4, [], [[0, 4]])).tolist() == [0, 0, 0]


def test_first_keys_follow_the_document_starts() -> None:
    # A start at the last id opens a document whose first token is a target only.
    assert first_keys(record(7, [2, 3, 6], [])).tolist() == [0, 0, 2, 3, 3, 3]
    assert first_keys(record(4, [], [])).tolist() == [0, 0, 0]
    assert first_keys(record(4, [0], [])).tolist() == [0, 0, 0]


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=5), data=st.data())
def test_counts_grow_one_part_at_a_time_to_their_sizes(
    sizes: list[int], data: st.DataObject
) -> None:
    total = sum(sizes)
    assert counts_before(total, sizes) == sizes
    index = data.draw(st.integers(0, max(0, total - 1)))
    before = counts_before(index, sizes)
    assert sum(before) == index
    if total:
        grown = [b - a for a, b in zip(before, counts_before(index + 1, sizes), strict=True)]
        assert sorted(grown) == [0] * (len(sizes) - 1) + [1]
        for count, size in zip(before, sizes, strict=True):
            assert abs(count - index * size / total) < len(sizes)


def test_a_part_that_is_short_is_filled(data: dict[str, Packed]) -> None:
    parts = (Part("few", weight=1, repeat=2), Part("all", weight=1, repeat=2, fill=True))
    few, rest = resolve_mixture(make_phase(tokens=10 * STEP, data=parts), data)
    assert (few.num_sequences, few.epochs, few.shortfall) == (14, 2.0, 26)
    assert (rest.num_sequences, rest.num_records, rest.shortfall) == (66, 40, 0)


def test_an_empty_part_is_filled(data: dict[str, Packed]) -> None:
    phase = make_phase(tokens=5 * STEP, data=(Part("none"), Part("all", fill=True)))
    empty, rest = resolve_mixture(phase, data)
    assert (empty.num_sequences, empty.epochs, empty.shortfall) == (0, 0.0, 20)
    assert rest.num_sequences == 40
    assert Batches(phase, data, seed=0).batch(4)["ids"].shape == (8, SEQUENCE_LENGTH + 1)


def test_rounding_may_overrun_a_limit_by_a_batch_and_no_more(data: dict[str, Packed]) -> None:
    (part,) = resolve_mixture(make_phase(tokens=6 * STEP, data=(Part("all"),)), data)
    assert (part.num_sequences, part.epochs) == (48, 1.2)
    with pytest.raises(InputError) as caught:
        resolve_mixture(make_phase(tokens=7 * STEP, data=(Part("all"),)), data)
    assert "phases.general.data: 8 of 56 sequences are short" in str(caught.value)
    assert f"Lower phases.general.tokens to {6 * STEP}" in str(caught.value)


def test_a_filling_part_has_a_limit_too(data: dict[str, Packed]) -> None:
    parts = (Part("few"), Part("all", fill=True))
    with pytest.raises(InputError, match=r"phases\.general\.data: 25 of 80 sequences are short"):
        resolve_mixture(make_phase(tokens=10 * STEP, data=parts), data)


def test_hosts_that_do_not_divide_the_batch_are_refused(data: dict[str, Packed]) -> None:
    with pytest.raises(InputError, match=r"phases\.general\.batch_size"):
        Batches(make_phase(), data, 0, 0, 3)


def test_a_shard_that_was_cut_or_changed_is_named(tmp_path: Path) -> None:
    packed = write_records(str(tmp_path), 40)
    path = packed.shards[1].path
    whole = Path(path).read_bytes()
    for broken, word in ((whole[:-1], "cut short"), (whole[:-1] + b"?", "changed")):
        Path(path).write_bytes(broken)
        with pytest.raises(InputError, match=word) as caught:
            Batches(make_phase(), {"all": packed}, seed=0)
        assert path in str(caught.value)
    os.unlink(path)
    with pytest.raises(InputError, match="missing"):
        Batches(make_phase(), {"all": packed}, seed=0)
