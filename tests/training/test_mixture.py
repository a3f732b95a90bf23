"""Languages with weights inside a part, and the count of what was seen of each source."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from tiny_training import SEQUENCE_LENGTH, make_phase, write_records

from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed
from snowcoder_jax.recipe import Part, Phase
from snowcoder_jax.training.batches import Batches
from snowcoder_jax.training.mixture import resolve_mixture, seen_by_source

STEP = 8 * SEQUENCE_LENGTH


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packed]:
    """40 sequences of Python (from two sources), 20 of C, 4 of Go; and 12 others."""
    folder = tmp_path_factory.mktemp("packed")
    parts = [
        write_records(str(folder / "all"), num, num_shards=2, seed=num, language=language)
        for language, num in (("C", 20), ("Go", 4), ("Python", 40))
    ]
    shards = [shard for part in parts for shard in part.shards]
    sources = ("crawl", "crawl", "crawl", "crawl", "crawl", "stack")
    shards = [
        dataclasses.replace(shard, source=source)
        for shard, source in zip(shards, sources, strict=True)
    ]
    languages = dataclasses.replace(parts[0], num_records=64, shards=tuple(shards))
    return {"all": languages, "other": write_records(str(folder / "other"), 12)}


def rows_of(phase: Phase, data: dict[str, Packed]) -> np.ndarray:
    batches = Batches(phase, data, seed=1)
    return np.concatenate([batches.sequence_ids(k) for k in range(phase.num_steps)])


def test_a_language_is_drawn_as_often_as_its_weight_says(data: dict[str, Packed]) -> None:
    # Natural 20 : 4 : 40; weighted 20 : 0 : 80, of 10 x 8 sequences.
    part = Part("all", repeat=4, language_weights={"Python": 2.0, "Go": 0})
    phase = make_phase(tokens=10 * STEP, data=(part,))
    (resolved,) = resolve_mixture(phase, data)
    assert resolved.by_language == {"C": 16, "Python": 64}
    assert (resolved.num_sequences, resolved.num_records) == (80, 60)
    rows = rows_of(phase, data)
    assert Counter(rows[:, 0].tolist()) == {0: 16, 1: 64}
    # Spread evenly: no batch has more than its share of one, to within a row.
    for batch in rows.reshape(10, 8, 3):
        assert 1 <= (batch[:, 0] == 0).sum() <= 2
    # Within an epoch of a language every sequence once.
    python = rows[rows[:, 0] == 1]
    assert python[:, 1].tolist() == [0] * 40 + [1] * 24
    assert sorted(python[:40, 2].tolist()) == list(range(40))
    assert len(set(python[40:, 2].tolist())) == 24


def test_equal_weights_keep_the_natural_mix(data: dict[str, Packed]) -> None:
    phase = make_phase(tokens=8 * STEP, data=(Part("all", language_weights={"C": 1.0}),))
    (resolved,) = resolve_mixture(phase, data)
    assert resolved.by_language == {"C": 20, "Go": 4, "Python": 40}
    assert resolved.epochs == 1.0


def test_a_language_that_runs_short_holds_the_whole_part_back(data: dict[str, Packed]) -> None:
    """The mixture that the recipe names is kept, or refused; never bent."""
    weights = {"Go": 4.0}  # natural 20 : 4 : 40, weighted 20 : 16 : 40
    few = Part("all", language_weights=weights)
    with pytest.raises(InputError, match=r"of 64 sequences are short .*all 19 x 1"):
        resolve_mixture(make_phase(tokens=8 * STEP, data=(few,)), data)
    phase = make_phase(tokens=4 * STEP, data=(few, Part("other", repeat=2, weight=0, fill=True)))
    first, rest = resolve_mixture(phase, data)
    assert first.by_language == {"C": 5, "Go": 4, "Python": 10}
    assert (first.shortfall, rest.num_sequences) == (13, 13)


def test_hosts_together_read_the_weighted_rows_of_one(data: dict[str, Packed]) -> None:
    part = Part("all", repeat=4, language_weights={"C": 2.0})
    phase = make_phase(tokens=6 * STEP, data=(part, Part("other", weight=0.2)))
    alone, hosts = Batches(phase, data, 0), [Batches(phase, data, 0, h, 4) for h in range(4)]
    for k in (0, 5):
        together = [host(k) for host in hosts]
        for name, array in alone(k).items():
            np.testing.assert_array_equal(np.concatenate([b[name] for b in together]), array)
    assert sum(alone.counts_until(6).values()) == 48


def test_each_source_and_language_is_counted_as_it_was_read(data: dict[str, Packed]) -> None:
    part = Part("all", repeat=4, language_weights={"Python": 2.0})
    phase = make_phase(tokens=13 * STEP, data=(part, Part("other", weight=0.3, repeat=3)))
    batches = Batches(phase, data, seed=1)
    counted: Counter[tuple[str, str, str]] = Counter()
    for stream, _, number in np.concatenate([batches.sequence_ids(k) for k in range(13)]).tolist():
        sequences = batches._streams[stream].sequences
        shard = sequences.shards[int(sequences.shard_of(number))]
        selection = "all" if "/all/" in shard.path else "other"
        counted[selection, shard.source, shard.language] += 1
    seen = seen_by_source(phase, data, seed=1)
    assert {(s.selection, s.source, s.language): s.num_sequences for s in seen} == counted
    assert len(seen) == 5
    assert sum(s.num_sequences for s in seen) == 13 * 8


def test_tokens_of_whole_epochs_are_exact(data: dict[str, Packed]) -> None:
    phase = make_phase(tokens=16 * STEP, data=(Part("all", repeat=2),))
    for seen in seen_by_source(phase, data, seed=1):
        shards = [
            s for s in data["all"].shards if (s.source, s.language) == (seen.source, seen.language)
        ]
        held = sum(s.tokens_by_language[seen.language] for s in shards)
        assert seen.tokens_by_language == {seen.language: 2 * held}


def test_another_length_reads_each_token_as_often(data: dict[str, Packed]) -> None:
    for length in (SEQUENCE_LENGTH // 2, 3 * SEQUENCE_LENGTH):
        held = sum(-(-s.num_records * SEQUENCE_LENGTH // length) for s in data["all"].shards)
        tokens = held * length
        phase = make_phase(tokens=tokens, batch_size=1, sequence_length=length, data=(Part("all"),))
        batches = Batches(phase, data, seed=1)
        assert batches.batch(0)["ids"].shape == (1, length + 1)
        rows = np.concatenate([batches.sequence_ids(k) for k in range(phase.num_steps)])
        assert sorted(rows[:, 2].tolist()) == list(range(held))
        (part,) = batches.mixture
        assert (part.num_records, part.epochs) == (held, 1.0)
