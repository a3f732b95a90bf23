"""Sources -> documents: the one place where files are read and put into shards.

A source is cut into pieces (`sources.parts`), and one piece is one Beam element: its files are
read where they lie, and written once as sorted runs (`exchange.py`). A shard is one element too:
the merge of its part of every run. Nothing goes through Beam but the names of pieces and shards.

Where a file goes: hash(repository) picks the shard. A repository that holds more than an even
share of its source's bytes (1 / num_shards) is too big for one shard: hash(repository, path)
spreads it over all of them. Inside a shard rows are sorted by (repository, language, path). All
of it depends on the sources alone, so any number of workers writes the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents, exchange, workers
from beam_pipelines.documents import DOCUMENT_SCHEMA
from beam_pipelines.exchange import LEDGER_SCHEMA, Dealing, PieceFiles, document_id
from snowcoder_jax import parquet, recipe, recipe_corpus, sources, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_corpus import Source
from snowcoder_jax.sources import Limits, Part
from snowcoder_jax.sources.check import check_opt_out, check_source

__all__ = ["SUMMARY", "document_id", "run"]

SUMMARY = "ingest.json"


@dataclass(frozen=True)
class _Piece:
    source: Source
    number: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class _Shard:
    source: str
    index: int
    num_pieces: int
    spread: frozenset[str]


def run(
    recipe_sources: tuple[Source, ...],
    corpus_config: recipe_corpus.Corpus,
    *,
    seed: int,
    output: str,
    key: str,
    options: PipelineOptions,
) -> dict[str, Any]:
    """Write `documents/<source>/part-*.parquet`, `ledger/<source>.parquet` and `ingest.json`.

    Returns:
      the counts of `ingest.json`: `files`, `documents`, `bytes` (of documents), `ledger` by
      reason ("language" counts files in none of the 18), `languages` and `sources`. A folder that
      was not entered counts as one file.

    Raises:
      InputError: a source is missing, or no document came out of it.
    """
    summary_path = storage.join(output, SUMMARY)
    faults = [fault for source in recipe_sources for fault in check_source(source)]
    faults += check_opt_out(corpus_config.opt_out)
    if faults:
        raise InputError("\n".join(str(fault) for fault in faults))

    num_shards = corpus_config.num_shards
    paths = [_document_path(output, s.name, i) for s in recipe_sources for i in range(num_shards)]
    is_whole = all(storage.is_done(path, key) for path in paths) and all(
        storage.exists(_ledger_path(output, source.name)) for source in recipe_sources
    )
    if is_whole and documents.stage_done(output, key) and storage.exists(summary_path):
        storage.remove(_exchange_folder(output))
        return dict(storage.read_json(summary_path))

    limits = Limits(corpus_config.max_file_bytes, sources.load_opt_out(corpus_config.opt_out))
    pieces = [
        _Piece(source, number, parts)
        for source in recipe_sources
        for number, parts in enumerate(sources.parts(source, seed=seed))
    ]
    deal = Dealing(num_shards, seed)
    todo = [p for p in pieces if not _piece_files(output, p.source.name, p.number).is_done(key)]
    # How much a piece holds is not known before it is read.
    _run_each(todo, [0] * len(todo), _WritePieceFn(output, key, limits, deal), options)

    num_pieces = Counter(p.source.name for p in pieces)
    shards: list[_Shard] = []
    sizes_bytes: list[int] = []
    for name in [s.name for s in recipe_sources]:
        repos = _repositories(output, name, num_pieces[name])
        spread = exchange.too_big(repos["repo"], repos["bytes_sum"], num_shards)
        sizes = exchange.shard_bytes(repos["repo"], repos["bytes_sum"], deal, spread)
        for i in range(num_shards):
            if not storage.is_done(_document_path(output, name, i), key):
                shards.append(_Shard(name, i, num_pieces[name], spread))
                sizes_bytes.append(sizes[i])
    _run_each(shards, sizes_bytes, _WriteShardFn(output, key, deal), options)

    summary = _summarise(output, key, num_pieces, [s.name for s in recipe_sources], num_shards)
    storage.write_json(summary_path, summary)
    storage.write_json(
        storage.join(output, "stage.json"), {"key": key, "rows": summary["documents"]}
    )
    storage.remove(_exchange_folder(output))
    return summary


def _run_each(
    elements: Sequence[Any],
    sizes_bytes: Sequence[int],
    function: beam.DoFn,
    options: PipelineOptions,
) -> None:
    if not elements:
        return
    with workers.pipeline(options) as pipeline:
        _ = workers.spread(pipeline, elements, sizes_bytes, options) | beam.ParDo(function)


def _document_path(output: str, source: str, index: int) -> str:
    return storage.join(output, "documents", source, f"part-{index:05d}.parquet")


def _exchange_folder(output: str) -> str:
    """What lies here between the two halves is removed at the end."""
    return storage.join(output, "exchange")


def _piece_files(output: str, source: str, number: int) -> PieceFiles:
    return PieceFiles(storage.join(_exchange_folder(output), source, f"piece-{number:05d}"))


def _repositories(output: str, source: str, num_pieces: int) -> pa.Table:
    """`repo` and `bytes_sum` of every repository of a source."""
    tables = [parquet.read_table(_piece_files(output, source, n).repos) for n in range(num_pieces)]
    whole = pa.concat_tables([exchange.REPOS_SCHEMA.empty_table(), *tables])
    return whole.group_by("repo").aggregate([("bytes", "sum")])


class _WritePieceFn(beam.DoFn):
    """Reads one piece of a source."""

    def __init__(self, output: str, key: str, limits: Limits, deal: Dealing) -> None:
        self._output = output
        self._key = key
        self._limits = limits
        self._deal = deal

    def process(self, piece: _Piece) -> Iterator[int]:
        items = (
            item for part in piece.parts for item in sources.read(piece.source, part, self._limits)
        )
        files = _piece_files(self._output, piece.source.name, piece.number)
        exchange.write_piece(items, files, self._deal, self._key)
        yield piece.number


class _WriteShardFn(beam.DoFn):
    """Merges one shard out of all pieces of its source."""

    def __init__(self, output: str, key: str, deal: Dealing) -> None:
        self._output = output
        self._key = key
        self._deal = deal

    def process(self, shard: _Shard) -> Iterator[int]:
        deal = Dealing(self._deal.num_shards, self._deal.seed, shard.spread)
        pieces = [_piece_files(self._output, shard.source, n) for n in range(shard.num_pieces)]
        tables, counts = exchange.merge(pieces, shard.index, deal)
        path = _document_path(self._output, shard.source, shard.index)
        yield documents.write_batches(path, DOCUMENT_SCHEMA, tables, self._key, languages=counts)


def _summarise(
    output: str, key: str, num_pieces: Counter[str], names: Sequence[str], num_shards: int
) -> dict[str, Any]:
    """Join the ledgers of the pieces and the counts of the shards.

    Raises:
      InputError: a source gave no document.
    """
    by_source: dict[str, Any] = {}
    for name in names:
        pieces = [_piece_files(output, name, n) for n in range(num_pieces[name])]
        ledgers = [parquet.read_table(piece.ledger) for piece in pieces]
        ledger = pa.concat_tables([LEDGER_SCHEMA.empty_table(), *ledgers])
        ledger = ledger.sort_by([(n, "ascending") for n in LEDGER_SCHEMA.names])
        path = _ledger_path(output, name)
        exchange.write_table(path, ledger)

        num_other = sum(storage.read_json(piece.done)["other"] for piece in pieces)
        manifests = [
            storage.read_manifest(_document_path(output, name, i)) for i in range(num_shards)
        ]
        facts = [m["languages"] for m in manifests if m is not None]
        assert len(facts) == num_shards, f"{name}: a shard is not done"
        by_source[name] = _counts(num_other, ledger, facts)
        if by_source[name]["documents"] == 0:
            raise InputError(
                f"sources.{name}: none of its {by_source[name]['files']} files became a document "
                f"({_reasons(by_source[name]['ledger'])}). Name a source with code in one of the "
                f"{len(recipe.known_languages())} languages; {path} lists what was refused."
            )
    return {"key": key, **_total(list(by_source.values())), "sources": by_source}


def _ledger_path(output: str, source: str) -> str:
    return storage.join(output, "ledger", f"{source}.parquet")


def _counts(num_other: int, ledger: pa.Table, shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counted = ledger.group_by("reason").aggregate([("reason", "count")]).to_pylist()
    reasons = {row["reason"]: row["reason_count"] for row in counted}
    reasons["language"] = num_other
    languages: dict[str, Counter[str]] = {}
    for shard in shards:
        for name, counts in shard.items():
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


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("ingest")
