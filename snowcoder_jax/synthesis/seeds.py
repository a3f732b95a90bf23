"""Which documents of a selection become seeds: by language shares, drawn without replacement.

The draw inside a language is uniform, by the seeded hash of a document's id: the documents of the
smallest hashes are taken, so shards need send no more than hashes to decide where each language
ends. `draw` then puts all seeds in one order in which every beginning has the shares as well.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import pyarrow as pa

from snowcoder_jax import storage

SEED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("repo", pa.string()),
        ("path", pa.string()),
        ("language", pa.string()),
        ("license", pa.string()),
        ("score", pa.float64()),  # the annotator's, 0 where it gave none
        ("draw", pa.uint64()),  # its place in the order of all seeds
        ("text", pa.large_string()),  # read through the one reader
    ]
)

_NUM_HASHES = 2**64


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What is drawn of one language.

    Attributes:
      available: documents of the selection; `wanted`: seeds as the shares ask for; `drawn`: as
        many as there are, where a language runs out and the others take its place.
      pace: where the last of its seeds stands in the order of all seeds, in (0, 1]; languages
        that go on for longer than others have more.
    """

    available: int
    wanted: int
    drawn: int
    pace: float


def seed_hash(run_seed: int, document_id: str) -> int:
    """In [0, 2^64): the smallest of a language are drawn."""
    return storage.seeded_hash(run_seed, "synthesis seeds", document_id)


def draw_of(hashed: int, last: int, pace: float) -> int:
    """The place of a seed in the order of all, in [0, 2^64).

    Args:
      hashed: its `seed_hash`. last: of its language, the largest that is drawn.
    """
    return min(int(hashed / (last + 1) * pace * _NUM_HASHES), _NUM_HASHES - 1)


def plan(
    available: Mapping[str, int], num_seeds: int | None, language_shares: Mapping[str, float]
) -> dict[str, Drawn]:
    """How many seeds each language gives.

    A language named in `language_shares` gets its share; the others keep their proportions (by
    number of documents) in what is left. Shares of languages without documents go to those that
    have some, in proportion; so does the lack of one that runs out.

    Args:
      available: documents of the selection by language.
      num_seeds: None: all there are, of languages whose share is not 0.
    """
    available = {language: n for language, n in sorted(available.items()) if n > 0}
    shares = target_shares(available, language_shares)
    if num_seeds is None:
        drawn = {language: available[language] for language, share in shares.items() if share > 0}
        wanted = drawn
    else:
        drawn = _fill(num_seeds, shares, available)
        wanted = _apportion(num_seeds, shares)
    # Were seeds taken at a rate of the shares, each language would last for so long.
    lasts = {language: drawn[language] / shares[language] for language in drawn if drawn[language]}
    longest = max(lasts.values(), default=1.0)
    return {
        language: Drawn(
            n, wanted.get(language, 0), drawn.get(language, 0), lasts.get(language, 1.0) / longest
        )
        for language, n in available.items()
    }


def target_shares(
    available: Mapping[str, int], language_shares: Mapping[str, float]
) -> dict[str, float]:
    """The share of each language that has documents; they sum to 1 (or there are none)."""
    present = {name: n for name, n in available.items() if n > 0}
    num_unnamed = sum(n for name, n in present.items() if name not in language_shares)
    left = max(0.0, 1.0 - sum(language_shares.values()))
    raw = {
        name: language_shares[name] if name in language_shares else left * n / num_unnamed
        for name, n in present.items()
    }
    total = sum(raw.values())
    return {name: share / total for name, share in raw.items()} if total > 0 else {}


def _fill(
    num_seeds: int, shares: Mapping[str, float], available: Mapping[str, int]
) -> dict[str, int]:
    """Seeds by language, never more than are there; the lack of one goes to the others."""
    exhausted: dict[str, int] = {}
    while True:
        rest = {name: s for name, s in shares.items() if name not in exhausted}
        total = sum(rest.values())
        left = num_seeds - sum(exhausted.values())
        counts = _apportion(left, {name: s / total for name, s in rest.items() if s > 0})
        over = {name: available[name] for name, n in counts.items() if n > available[name]}
        if not over:
            return dict(sorted({**counts, **exhausted}.items()))
        exhausted.update(over)


def _apportion(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that sum to `total`, by largest remainder; ties go to the first name."""
    exact = {name: total * share for name, share in sorted(shares.items())}
    counts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
