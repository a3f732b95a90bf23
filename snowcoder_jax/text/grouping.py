"""The order in which files become training text (paper section 2; StarCoder2's document form).

Pure: from the rows of a shard to a list of texts to join, each a list of pieces.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import groupby

from snowcoder_jax.recipe import Grouping
from snowcoder_jax.storage import seeded_hash, seeded_share

ALL_LANGUAGES = "all"


@dataclasses.dataclass(frozen=True)
class File:
    """A selected document: its row in the shard and what orders it."""

    row: int
    id: str
    repo: str
    path: str
    language: str


@dataclasses.dataclass(frozen=True)
class Text:
    """Files that are joined into one document, end-of-text last.

    Attributes:
      files: in order.
      repo_name: given at the start, and each path before its file; None leaves both out.
    """

    files: tuple[File, ...]
    repo_name: str | None


def group(
    files: Sequence[File], grouping: Grouping, *, seed: int, metadata_share: float
) -> dict[str, list[Text]]:
    """Texts of a shard by partition (a language, or "all" where languages are not parted).

    `language_then_repository`: by language, then repository, files of a repository in random
    order (the paper's). `repository`: repositories whole, files in random order across languages.
    `repository_then_language`: repositories whole, files grouped by language inside (the
    reviewers' hybrid). `file`: every file by itself.

    All order comes from hashes of (seed, id), so it is the same for any number of workers.
    """

    def shuffled(items: Sequence[File]) -> list[File]:
        return sorted(items, key=lambda f: (seeded_hash(seed, "file order", f.id), f.id))

    def by_repo(items: Sequence[File]) -> Iterator[list[File]]:
        def order(f: File) -> tuple[int, str]:
            return seeded_hash(seed, "repository order", f.repo), f.repo

        for _, members in groupby(sorted(items, key=order), key=order):
            yield list(members)

    def text(members: Sequence[File]) -> Text:
        first = members[0]
        named = seeded_share(seed, "metadata", f"{first.repo}\x00{first.id}") < metadata_share
        return Text(tuple(members), first.repo if named else None)

    if grouping == "language_then_repository":
        return {
            language: [text(shuffled(m)) for m in by_repo(members)]
            for language, members in _by_language(files).items()
        }
    if grouping == "repository":
        return {ALL_LANGUAGES: [text(shuffled(m)) for m in by_repo(files)]}
    if grouping == "repository_then_language":
        texts = []
        for members in by_repo(files):
            parts = _by_language(members)
            texts.append(text([f for part in parts.values() for f in shuffled(part)]))
        return {ALL_LANGUAGES: texts}
    return {ALL_LANGUAGES: [text([f]) for f in shuffled(files)]}


def _by_language(files: Sequence[File]) -> dict[str, list[File]]:
    result: dict[str, list[File]] = {}
    for file in sorted(files, key=lambda f: f.language):
        result.setdefault(file.language, []).append(file)
    return result
