"""Sequences of another length than the packed one: as if they had been packed so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import (
    Packed,
    PackedShard,
    Piece,
    Record,
    cut_records,
    decode_record,
    encode_record,
)
from snowcoder_jax.training.batches import first_keys, target_weights
from snowcoder_jax.training.sequences import Sequences

VOCAB, END = 50, 49


def pieces_of(sizes: list[tuple[int, int]], seed: int) -> list[Piece]:
    """Texts of so many tokens, of which so many bear no loss; each ends with END."""
    rng = np.random.default_rng(seed)
    return [
        Piece(np.append(rng.integers(0, END, size), END).astype(np.int32), True, min(masked, size))
        for size, masked in sizes
    ]


def write(folder: str, shards: list[list[Piece]], sequence_length: int) -> Packed:
    made = []
    for i, pieces in enumerate(shards):
        path = storage.join(folder, f"part-{i:05d}.array_record")
        writer = ArrayRecordWriter(path, "group_size:1")
        records = list(cut_records(pieces, sequence_length, END))
        for record in records:
            writer.write(encode_record(record))
        writer.close()
        storage.write_manifest(path, key="k")
        num_tokens = sum(len(piece.ids) for piece in pieces)
        made.append(
            PackedShard(
                path,
                "Python",
                len(records),
                storage.sha256_file(path),
                num_tokens=num_tokens,
                source="s",
                tokens_by_language={"Python": num_tokens},
            )
        )
    return Packed(
        folder,
        sequence_length,
        VOCAB,
        sum(s.num_records for s in made),
        sum(s.num_tokens for s in made),
        0,
        {},
        tuple(made),
    )


def assert_same(ours: Record, want: Record) -> None:
    np.testing.assert_array_equal(ours.ids, want.ids)
    np.testing.assert_array_equal(ours.starts, want.starts)
    np.testing.assert_array_equal(target_weights(ours), target_weights(want))
    np.testing.assert_array_equal(first_keys(ours), first_keys(want))
    assert (ours.ids.dtype, ours.starts.dtype) == (np.int32, np.int32)
    assert decode_record(encode_record(ours)).masked.tolist() == ours.masked.tolist()


texts = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(
    shards=st.lists(texts, min_size=1, max_size=3),
    packed_length=st.integers(1, 24),
    read_length=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_what_is_read_is_what_packing_at_that_length_makes(
    tmp_path_factory: pytest.TempPathFactory,
    shards: list[list[tuple[int, int]]],
    packed_length: int,
    read_length: int,
    seed: int,
) -> None:
    pieces = [pieces_of(sizes, seed + i) for i, sizes in enumerate(shards)]
    packed = write(str(tmp_path_factory.mktemp("packed")), pieces, packed_length)
    sequences = Sequences(packed, read_length)
    sequences.open()
    wanted = [list(cut_records(shard, read_length, END)) for shard in pieces]
    assert len(sequences) == sum(len(shard) for shard in wanted)
    assert sequences.num_in_shards().tolist() == [len(shard) for shard in wanted]
    number = 0
    for i, records in enumerate(wanted):
        for record in records:
            assert sequences.shard_of(number) == i
            assert_same(sequences[number], record)
            number += 1


@pytest.mark.parametrize("read_length", [4, 8, 12, 64])
def test_every_token_is_a_target_once_at_any_length(tmp_path: Path, read_length: int) -> None:
    sizes = [(20, 0), (3, 2), (31, 5)]
    pieces = pieces_of(sizes, 0)
    sequences = Sequences(write(str(tmp_path), [pieces], 8), read_length)
    sequences.open()
    records = [sequences[i] for i in range(len(sequences))]
    targets = np.concatenate([r.ids[1:][target_weights(r) > 0] for r in records])
    # All but the first token, which has none before it, and the heads.
    stream = [piece.ids[piece.num_masked :] for piece in pieces]
    assert targets.tolist() == np.concatenate(stream).tolist()[1:]


def test_an_id_outside_the_vocabulary_is_named(tmp_path: Path) -> None:
    ids = np.arange(40, dtype=np.int32)
    ids[30] = VOCAB
    packed = write(str(tmp_path), [[Piece(ids[:9])], [Piece(ids)]], 8)
    sequences = Sequences(packed, 8)
    sequences.open()
    assert len(sequences) == 6
    assert sequences[3].ids.max() == 24
    with pytest.raises(InputError, match=r"part-00001.*: record 3 holds the id 50, and .* has 50"):
        sequences[4]
    with pytest.raises(InputError, match=r"record 3"):
        Sequences.__getitem__(_opened(Sequences(packed, 16)), 2)


def _opened(sequences: Sequences) -> Sequences:
    sequences.open()
    return sequences


def test_only_the_shards_of_a_language_are_opened(tmp_path: Path) -> None:
    packed = write(str(tmp_path), [pieces_of([(20, 0)], 0), pieces_of([(50, 0)], 1)], 8)
    first, second = packed.shards
    object.__setattr__(second, "language", "C")
    Path(first.path).unlink()
    sequences = Sequences(packed, 8, "C")
    sequences.open()
    assert len(sequences) == second.num_records
    assert sequences[0].ids.tolist() == pieces_of([(50, 0)], 1)[0].ids[:9].tolist()
