"""How a phase's sequences divide over its parts, their languages and their sources.

A part is one stream of sequences, or one for each language where it weighs languages. A stream is
put in order by grain (a seeded shuffle for each epoch, repeated), so what a phase reads, and how
much of each source that is, are pure functions of the recipe and the packed folders.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import grain
import numpy as np
import numpy.typing as npt

from snowcoder_jax import recipe, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed
from snowcoder_jax.training.sequences import Sequences

# Without a part that fills, rounding of budgets may send a part over its repeat limit by this
# share of it or by one batch, whichever is larger.
_OVERRUN_SHARE = 0.02

# Sequences whose shards are looked up at once when a phase's reads are counted.
_COUNTED_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class ResolvedPart:
    """What a phase reads of a mixture part.

    Attributes:
      num_sequences: read in the whole phase.
      num_records: sequences that the part holds, at the phase's length.
      epochs: num_sequences / num_records (0 where it holds none).
      shortfall: sequences that its weight asks for and another part fills.
      by_language: of num_sequences, where the part weighs languages; else empty.
    """

    selection: str
    num_sequences: int
    num_records: int
    epochs: float
    shortfall: int
    by_language: dict[str, int]


@dataclass(frozen=True)
class SeenSource:
    """What a phase has read of one source.

    Attributes:
      language: that its shards hold; "all" where the grouping does not part languages.
      num_sequences: counted one by one: exact.
      tokens_by_language: tokens of files read. A shard's are exact for each whole epoch; of an
        epoch that was not ended they are taken in proportion to the shard's sequences.
    """

    selection: str
    source: str
    language: str
    num_sequences: int
    tokens_by_language: dict[str, int]


@dataclass(frozen=True)
class Stream:
    """Sequences of one kind, in the order in which the phase reads them.

    Attributes:
      part: index in the phase's data.
      num_sequences: read in the whole phase.
      order: number of the sequence in `sequences` of the first, second, ... that is read; every
        epoch is a shuffle of its own, in which each stands once.
    """

    part: int
    sequences: Sequences
    num_sequences: int
    order: grain.MapDataset


def resolve_mixture(phase: recipe.Phase, packed: dict[str, Packed]) -> tuple[ResolvedPart, ...]:
    """How many sequences of each part the phase reads; they add up to its steps x batch.

    A part that weighs languages is held to the mixture it names: it holds as many sequences as
    can be read without any language going over its repetitions.

    Raises:
      InputError: the parts hold too little, even with their repetitions.
    """
    num_wanted = phase.num_steps * phase.batch_size
    wanted = _split_by_weight(num_wanted, [part.weight for part in phase.data])
    held = [_held(part, packed[part.selection], phase.sequence_length) for part in phase.data]
    usable = [_usable(part, h) for part, h in zip(phase.data, held, strict=True)]
    fill = next((i for i, part in enumerate(phase.data) if part.fill), None)
    taken = []
    for i, part in enumerate(phase.data):
        limit = usable[i] * part.repeat
        if fill is None:
            limit = _with_overrun(limit, phase.batch_size)
        taken.append(wanted[i] if i == fill else min(wanted[i], limit))
    num_short = num_wanted - sum(taken)
    if fill is not None:
        limit = _with_overrun(usable[fill] * phase.data[fill].repeat, phase.batch_size)
        taken[fill] = min(taken[fill] + num_short, limit)
        num_short = num_wanted - sum(taken)
    if num_short:
        holds = ", ".join(
            f"{part.selection} {n} x {part.repeat}"
            for part, n in zip(phase.data, usable, strict=True)
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
            num_records=sum(held[i].values()),
            epochs=taken[i] / sum(held[i].values()) if taken[i] else 0.0,
            shortfall=max(0, wanted[i] - taken[i]),
            by_language=_by_language(part, held[i], taken[i]),
        )
        for i, part in enumerate(phase.data)
    )


def _held(part: recipe.Part, packed: Packed, sequence_length: int) -> dict[str, int]:
    """Sequences by language of those that have a weight; all under "" where none has."""
    if not part.language_weights:
        return {"": len(Sequences(packed, sequence_length))}
    languages = sorted({shard.language for shard in packed.shards})
    return {
        language: len(Sequences(packed, sequence_length, language))
        for language in languages
        if _weight(part, language) > 0
    }


def _weight(part: recipe.Part, language: str) -> float:
    return part.language_weights.get(language, 1.0)


def _usable(part: recipe.Part, held: dict[str, int]) -> int:
    """Sequences until the first language has been read once, with the others in proportion.

    Of n sequences a language gets n N w / sum(N w), of N that it holds at weight w; that is N
    at n = sum(N w) / w, and the language of the largest weight is the first.
    """
    if not held:
        return 0
    total = sum(num * _weight(part, language) for language, num in held.items())
    return math.floor(total / max(_weight(part, language) for language in held))


def _by_language(part: recipe.Part, held: dict[str, int], num_sequences: int) -> dict[str, int]:
    if not part.language_weights or not num_sequences:
        return {}
    shares = [num * _weight(part, language) for language, num in held.items()]
    return dict(zip(held, _split_by_weight(num_sequences, shares), strict=True))


def _with_overrun(limit: int, batch_size: int) -> int:
    return limit + max(int(limit * _OVERRUN_SHARE), batch_size) if limit else 0


def _split_by_weight(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the weights that add up to `total` (largest remainders)."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [math.floor(x) for x in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def counts_before(index: int, sizes: Sequence[int]) -> list[int]:
    """How many of the first `index` sequences of a mixture come from each stream.

    The streams are spread evenly: each count follows its share of `sizes` to within one for each
    stream before it, and at the end is exactly its size.
    """
    counts, left, remaining = [], index, sum(sizes)
    for size in sizes:
        # Of `left` sequences, these fall to the streams that come after this one.
        after = left * (remaining - size) // remaining if remaining else 0
        counts.append(left - after)
        left, remaining = after, remaining - size
    return counts


def make_streams(
    phase: recipe.Phase,
    packed: dict[str, Packed],
    mixture: Sequence[ResolvedPart],
    seed: int,
) -> list[Stream]:
    """The streams of a phase, part by part, languages in order of their names."""
    streams = []
    for i, (part, resolved) in enumerate(zip(phase.data, mixture, strict=True)):
        folder = packed[part.selection]
        sizes: list[tuple[str | None, int]] = [(None, resolved.num_sequences)]
        if resolved.by_language:
            sizes = [*resolved.by_language.items()]
        for language, num_sequences in sizes:
            sequences = Sequences(folder, phase.sequence_length, language)
            name = f"{phase.name}/{i}" if language is None else f"{phase.name}/{i}/{language}"
            order = _order(len(sequences), storage.seeded_hash(seed, "batches", name))
            streams.append(Stream(i, sequences, num_sequences, order))
    return streams


def _order(num_sequences: int, seed: int) -> grain.MapDataset:
    return grain.MapDataset.range(num_sequences).shuffle(seed=seed % 2**32).repeat(None)


def seen_by_source(
    phase: recipe.Phase, packed: dict[str, Packed], seed: int
) -> tuple[SeenSource, ...]:
    """What the whole phase reads, by selection, source and language.

    Computed from the order and not from what was read, so it needs no state. It costs about 6
    microseconds for each sequence of an epoch that is not ended, and next to nothing for the rest.
    """
    mixture = resolve_mixture(phase, packed)
    seen: dict[tuple[str, str, str], SeenSource] = {}
    for stream in make_streams(phase, packed, mixture, seed):
        selection = phase.data[stream.part].selection
        held, reads = stream.sequences.num_in_shards(), _reads_of_shards(stream)
        for shard, num_held, num_read in zip(stream.sequences.shards, held, reads, strict=True):
            if not num_read:
                continue
            key = (selection, shard.source, shard.language)
            before = seen.get(key) or SeenSource(*key, num_sequences=0, tokens_by_language={})
            tokens = dict(before.tokens_by_language)
            for language, count in shard.tokens_by_language.items():
                read = round(count * int(num_read) / int(num_held))
                tokens[language] = tokens.get(language, 0) + read
            seen[key] = dataclasses.replace(
                before,
                num_sequences=before.num_sequences + int(num_read),
                tokens_by_language=dict(sorted(tokens.items())),
            )
    return tuple(seen[key] for key in sorted(seen))


def _reads_of_shards(stream: Stream) -> npt.NDArray[np.int64]:
    """int64 [shards]: how many sequences the phase reads of each shard."""
    num_held = len(stream.sequences)
    num_whole = stream.num_sequences // num_held if num_held else 0
    reads = num_whole * stream.sequences.num_in_shards()
    for begin in range(num_whole * num_held, stream.num_sequences, _COUNTED_AT_ONCE):
        end = min(begin + _COUNTED_AT_ONCE, stream.num_sequences)
        shards = stream.sequences.shard_of([stream.order[i] for i in range(begin, end)])
        reads += np.bincount(shards, minlength=len(reads))
    return reads
