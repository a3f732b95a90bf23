"""Sources -> documents: the one place where files are read and put into shards.

Nothing is shuffled but file references. Each source is listed first (no file is opened), its
references are dealt to shards, and one shard is one Beam element that reads its own files.

Where a file goes: hash(repository) picks the shard. A repository that holds more than an even
share of its source's bytes (1 / num_shards) is too big for one shard: hash(repository, path)
spreads it over all of them. Inside a shard rows are sorted by (repository, language, path). All
of it depends on the listing alone, so any number of workers writes the same bytes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents
from beam_pipelines.documents import DOCUMENT_SCHEMA, ROW_GROUP_ROWS
from snowcoder_jax import recipe, sources, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Source
from snowcoder_jax.source_files import (
    FileReference,
    LedgerRow,
    Listing,
    SourceDocument,
    read_references,
)

_LEDGER_TYPES: dict[str, pa.DataType] = {
    "repo": pa.string(),
    "path": pa.string(),
    "reason": pa.string(),
    "bytes": pa.int64(),
}
LEDGER_SCHEMA = pa.schema(_LEDGER_TYPES)

SUMMARY = "ingest.json"


@dataclass(frozen=True)
class _ShardPlan:
    source: str
    index: int
    references: tuple[FileReference, ...]

    @property
    def relative(self) -> str:
        return f"{self.source}/part-{self.index:05d}.parquet"


def document_id(repo: str, path: str, content: str) -> str:
    """32 hex digits of xxh3_128 over repository, path and content, parted by NUL."""
    digest = xxhash.xxh3_128()
    digest.update(f"{repo}\0{path}\0".encode("utf-8", "surrogatepass"))
    digest.update(content.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def assign_shards(
    references: Sequence[FileReference], num_shards: int, seed: int
) -> list[list[FileReference]]:
    """Deal references to shards by the rule of the module's docstring; order is kept."""
    bytes_by_repo: Counter[str] = Counter()
    for reference in references:
        bytes_by_repo[reference.repo] += reference.size_bytes
    even_share = sum(bytes_by_repo.values()) / num_shards
    shards: list[list[FileReference]] = [[] for _ in range(num_shards)]
    for reference in references:
        identity = reference.repo
        if bytes_by_repo[reference.repo] > even_share:
            identity = f"{reference.repo}\0{reference.path}"
        shards[storage.seeded_hash(seed, "shard", identity) % num_shards].append(reference)
    return shards


def run(
    recipe_sources: tuple[Source, ...],
    corpus_config: recipe.Corpus,
    *,
    seed: int,
    output: str,
    key: str,
    options: PipelineOptions,
) -> dict[str, Any]:
    """Write `documents/<source>/part-*.parquet`, `ledger/<source>.parquet` and `ingest.json`.

    Returns:
      the counts of `ingest.json`: `files`, `documents`, `bytes` (of documents), `ledger` by
      reason ("language" counts files in none of the 18), `languages` and `sources`.

    Raises:
      InputError: a source is missing, or no document came out of it.
    """
    summary_path = storage.join(output, SUMMARY)
    faults = [fault for source in recipe_sources for fault in sources.check_source(source)]
    if faults:
        raise InputError("\n".join(str(fault) for fault in faults))

    listings: dict[str, Listing] = {}
    plans: list[_ShardPlan] = []
    for source in recipe_sources:
        listing = sources.list_source(
            source, seed=seed, max_file_bytes=corpus_config.max_file_bytes
        )
        listings[source.name] = listing
        shards = assign_shards(listing.references, corpus_config.num_shards, seed)
        plans += [_ShardPlan(source.name, i, tuple(s)) for i, s in enumerate(shards)]

    is_whole = all(storage.is_done(_document_path(output, p), key) for p in plans)
    if is_whole and documents.stage_done(output, key) and storage.exists(summary_path):
        return dict(storage.read_json(summary_path))
    todo = [
        p
        for p in plans
        if not storage.is_done(_document_path(output, p), key)
        or not storage.exists(_piece_path(output, p))
    ]
    if todo:
        with beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | beam.Create(todo, reshuffle=False)
                | beam.Reshuffle()
                | beam.ParDo(_ReadShardFn(output, key, corpus_config.max_file_bytes))
            )

    summary = _summarise(output, key, listings, plans)
    storage.write_json(summary_path, summary)
    storage.write_json(
        storage.join(output, "stage.json"), {"key": key, "rows": summary["documents"]}
    )
    storage.remove(_pieces_folder(output))
    return summary


def _document_path(output: str, plan: _ShardPlan) -> str:
    return storage.join(output, "documents", plan.relative)


def _pieces_folder(output: str) -> str:
    return storage.join(output, "ledger", "pieces")


def _piece_path(output: str, plan: _ShardPlan) -> str:
    """Where a shard leaves its part of the ledger until all are there."""
    return storage.join(_pieces_folder(output), plan.relative)


def _write_ledger(path: str, table: pa.Table) -> None:
    with storage.atomic_path(path) as temporary:
        pq.write_table(table, temporary)


class _ReadShardFn(beam.DoFn):
    """Reads one shard's files; the ledger's piece is whole before the shard's manifest is."""

    def __init__(self, output: str, key: str, max_file_bytes: int) -> None:
        self._output = output
        self._key = key
        self._max_file_bytes = max_file_bytes

    def process(self, plan: _ShardPlan) -> Iterator[int]:
        ledger: list[LedgerRow] = []
        counts: dict[str, Any] = {"other": 0, "languages": {}}

        def tables() -> Iterator[pa.Table]:
            rows = self._rows(plan, ledger, counts)
            while batch := list(itertools.islice(rows, ROW_GROUP_ROWS)):
                yield pa.Table.from_pylist(batch, DOCUMENT_SCHEMA)
            _write_ledger(_piece_path(self._output, plan), _ledger_table(ledger))

        path = _document_path(self._output, plan)
        # `counts` is filled while the tables are written, and read when the manifest is.
        yield documents.write_batches(path, DOCUMENT_SCHEMA, tables(), self._key, counts=counts)

    def _rows(
        self, plan: _ShardPlan, ledger: list[LedgerRow], counts: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        by_repo = itertools.groupby(plan.references, key=lambda r: r.repo)
        for _, references in by_repo:
            found: list[SourceDocument] = []
            for item in read_references(list(references), self._max_file_bytes):
                if isinstance(item, SourceDocument):
                    found.append(item)
                elif item is not None:
                    ledger.append(item)
                else:
                    counts["other"] += 1
            # The language of some files (`.h`, shebangs) is known only now.
            found.sort(key=lambda d: (d.language, d.reference.path))
            for document in found:
                num_bytes = len(document.content.encode())
                language = counts["languages"].setdefault(
                    document.language, {"documents": 0, "bytes": 0}
                )
                language["documents"] += 1
                language["bytes"] += num_bytes
                yield _row(document)


def _row(document: SourceDocument) -> dict[str, Any]:
    reference = document.reference
    return {
        "id": document_id(reference.repo, reference.path, document.content),
        "repo": reference.repo,
        "path": reference.path,
        "language": document.language,
        "license": reference.license,
        "stars": reference.stars,
        "content": document.content,
    }


def _ledger_table(rows: Sequence[LedgerRow]) -> pa.Table:
    ordered = sorted((r.repo, r.path, r.reason, r.size_bytes) for r in rows)
    columns = list(zip(*ordered, strict=True)) if ordered else [(), (), (), ()]
    return pa.table([list(c) for c in columns], schema=LEDGER_SCHEMA)


def _summarise(
    output: str, key: str, listings: dict[str, Listing], plans: Sequence[_ShardPlan]
) -> dict[str, Any]:
    """Join the pieces of the ledger and the counts of the shards.

    Raises:
      InputError: a source gave no document.
    """
    by_source: dict[str, Any] = {}
    for name, listing in listings.items():
        shards = [p for p in plans if p.source == name]
        pieces = [documents.read_table(_piece_path(output, p)) for p in shards]
        ledger = pa.concat_tables([_ledger_table(listing.ledger), *pieces])
        ledger = ledger.sort_by([(n, "ascending") for n in LEDGER_SCHEMA.names])
        path = storage.join(output, "ledger", f"{name}.parquet")
        _write_ledger(path, ledger)

        manifests = [storage.read_manifest(_document_path(output, p)) for p in shards]
        facts = [m["counts"] for m in manifests if m is not None]
        assert len(facts) == len(shards), f"{name}: a shard is not done"
        by_source[name] = _counts(listing, ledger, facts)
        if by_source[name]["documents"] == 0:
            raise InputError(
                f"sources.{name}: none of its {by_source[name]['files']} files became a document "
                f"({_reasons(by_source[name]['ledger'])}). Name a source with code in one of the "
                f"{len(recipe.known_languages())} languages; {path} lists what was refused."
            )
    return {"key": key, **_total(list(by_source.values())), "sources": by_source}


def _counts(listing: Listing, ledger: pa.Table, shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    reasons = Counter(ledger["reason"].to_pylist())
    reasons["language"] = listing.num_other + sum(s["other"] for s in shards)
    languages: dict[str, Counter[str]] = {}
    for shard in shards:
        for name, counts in shard["languages"].items():
            languages.setdefault(name, Counter()).update(counts)
    num_documents = sum(c["documents"] for c in languages.values())
    return {
        "files": num_documents + sum(reasons.values()),
        "documents": num_documents,
        "bytes": sum(c["bytes"] for c in languages.values()),
        "ledger": {k: v for k, v in sorted(reasons.items()) if v},
        "languages": {k: dict(v) for k, v in sorted(languages.items())},
    }


def _total(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ledger: Counter[str] = Counter()
    languages: dict[str, Counter[str]] = {}
    for part in parts:
        ledger.update(part["ledger"])
        for name, counts in part["languages"].items():
            languages.setdefault(name, Counter()).update(counts)
    return {
        **{name: sum(part[name] for part in parts) for name in ("files", "documents", "bytes")},
        "ledger": dict(sorted(ledger.items())),
        "languages": {k: dict(v) for k, v in sorted(languages.items())},
    }


def _reasons(ledger: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in ledger.items()) or "there are none"
