"""Reads a source whole, for the tests of sources."""

from __future__ import annotations

from pathlib import Path

from snowcoder_jax import sources
from snowcoder_jax.recipe_corpus import Source
from snowcoder_jax.sources import Limits
from snowcoder_jax.sources.documents import Item, LedgerRow, SourceDocument

LIMIT = 10_000
LIMITS = Limits(LIMIT)


def read_all(source: Source, limits: Limits = LIMITS) -> list[Item]:
    parts = [part for piece in sources.parts(source, seed=0) for part in piece]
    return [item for part in parts for item in sources.read(source, part, limits)]


def read(
    source: Source, limits: Limits = LIMITS
) -> tuple[dict[tuple[str, str], SourceDocument], dict[tuple[str, str], str]]:
    """Documents, and reasons of ledger rows, by (repository, path)."""
    found = read_all(source, limits)
    documents = [x for x in found if isinstance(x, SourceDocument)]
    rows = [x for x in found if isinstance(x, LedgerRow)]
    by_path = {(d.repo, d.path): d for d in documents}
    assert len(by_path) == len(documents)
    return by_path, {(r.repo, r.path): r.reason for r in rows}


def licenses(source: Source) -> dict[str, str]:
    return {path: d.license for (_, path), d in read(source)[0].items()}


def write(root: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


MIT = "Permission is hereby granted, free of charge ... The above copyright notice and this"
GPL = "GNU GENERAL PUBLIC LICENSE\nVersion 3"
