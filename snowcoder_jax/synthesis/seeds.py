"""Which high-scoring files become seeds: by language shares, drawn without replacement."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

from snowcoder_jax import storage


@dataclasses.dataclass(frozen=True)
class SeedDocument:
    """A document of the seed selection, its text read through the one reader.

    Attributes:
      score: the annotator's, kept for provenance.
      license: SPDX expression; what is written from the seed inherits it.
    """

    id: str
    repo: str
    path: str
    language: str
    text: str
    score: float
    license: str = ""


@dataclasses.dataclass(frozen=True)
class SeedChoice:
    """The seeds drawn, and what the draw could not do.

    Attributes:
      seeds: in drawing order, languages mixed.
      wanted: seeds by language as the shares ask for; `drawn` differs where a language ran out
        and the others took its place.
      unusable: documents by language that no check of the result exists for.
    """

    seeds: tuple[SeedDocument, ...]
    wanted: dict[str, int]
    drawn: dict[str, int]
    unusable: dict[str, int]


def choose_seeds(
    documents: Sequence[SeedDocument],
    *,
    num_seeds: int,
    language_shares: Mapping[str, float],
    seed: int,
    usable_languages: Collection[str] | None = None,
) -> SeedChoice:
    """Draw up to `num_seeds` seeds, each document at most once.

    A language named in `language_shares` gets its share; the others keep their proportions (by
    number of documents) in what is left. Shares of languages without documents go to those that
    have some, in proportion; so does the lack of one that runs out. The draw inside a language
    is uniform by hash of (seed, id), so it does not depend on the order of `documents`.

    Args:
      usable_languages: those whose result can be checked; None: all.
    """
    assert len({d.id for d in documents}) == len(documents), "a document stands there twice"
    by_language: dict[str, list[SeedDocument]] = {}
    unusable: dict[str, int] = {}
    for document in documents:
        if usable_languages is not None and document.language not in usable_languages:
            unusable[document.language] = unusable.get(document.language, 0) + 1
        else:
            by_language.setdefault(document.language, []).append(document)

    def order(document: SeedDocument) -> tuple[int, str]:
        return storage.seeded_hash(seed, "synthesis seeds", document.id), document.id

    available = {language: len(found) for language, found in sorted(by_language.items())}
    shares = target_shares(available, language_shares)
    wanted = _apportion(num_seeds, shares)
    drawn = _fill(num_seeds, shares, available)
    chosen = [d for name, n in drawn.items() for d in sorted(by_language[name], key=order)[:n]]
    return SeedChoice(
        tuple(sorted(chosen, key=order)), wanted, drawn, dict(sorted(unusable.items()))
    )


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
