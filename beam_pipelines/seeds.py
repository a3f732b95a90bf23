"""Seeds of a synthesis: drawn from a selection by language shares, their texts side by side.

Of a document its hash alone leaves its shard, to where its language's last seed is found; the
texts of those drawn are then written shard by shard, one part of seeds for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents, workers
from beam_pipelines.documents import Shard
from beam_pipelines.texts import column, readable_text
from snowcoder_jax import parquet, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.synthesis import seeds
from snowcoder_jax.synthesis.seeds import SEED_SCHEMA, Drawn

FILE_NAME = "seeds.json"

Hashes = npt.NDArray[np.uint64]


@dataclasses.dataclass(frozen=True)
class SeedJob:
    """What seeds are drawn from, and how.

    Attributes:
      corpus, secrets, selection, quality: folders; without `quality` scores are 0.
      usable_languages: those whose answers can be judged.
      num_seeds, language_shares: as in the recipe's `synthesis`. seed: the recipe's.
    """

    corpus: str
    secrets: str
    selection: str
    quality: str | None
    usable_languages: tuple[str, ...]
    num_seeds: int | None
    language_shares: dict[str, float]
    seed: int


@dataclasses.dataclass(frozen=True)
class Cut:
    """What is drawn of a language; `last`: the largest hash drawn, -1 where none is."""

    drawn: Drawn
    last: int


def run(job: SeedJob, *, output: str, key: str, options: PipelineOptions) -> dict[str, Any]:
    """Draw the seeds and write their parts; returns `seeds.json`.

    `part-NNNNN.parquet` (`SEED_SCHEMA`) has the seeds of the corpus's shard of that number, in its
    order. `seeds.json` tells by language how many were `available`, `wanted` and `drawn`, and of
    how many the language is `unusable`.

    Raises:
      InputError: no document can be a seed.
    """
    shards = documents.list_shards(job.corpus)
    sizes = documents.sizes_bytes(shards)
    cuts_path = storage.join(output, "cuts.json")
    with workers.pipeline(options) as pipeline:
        hashes = workers.spread(pipeline, shards, sizes, options) | beam.ParDo(_hash_rows, job)
        available = hashes | beam.MapTuple(_count) | beam.CombinePerKey(sum)
        _ = (
            hashes
            | beam.GroupByKey()
            | beam.Map(_cut, beam.pvalue.AsDict(available), job)
            | beam.combiners.ToList()
            | beam.Map(_write_cuts, cuts_path)
        )
    cuts = {
        language: Cut(Drawn(**cut["drawn"]), cut["last"])
        for language, cut in storage.read_json(cuts_path).items()
    }
    usable = {language: c for language, c in cuts.items() if language in job.usable_languages}
    if not any(cut.drawn.drawn for cut in usable.values()):
        raise InputError(_no_seeds(job.usable_languages, cuts))
    paths = [storage.join(output, f"part-{n:05d}.parquet") for n in range(len(shards))]
    before = storage.read_manifests(output, paths)
    todo = [n for n, m in enumerate(before) if m is None or m["key"] != key]
    if todo:
        parts = [(paths[n], shards[n]) for n in todo]
        with workers.pipeline(options) as pipeline:
            _ = workers.spread(pipeline, parts, [sizes[n] for n in todo], options) | beam.ParDo(
                _WriteFn(job, usable, key)
            )
    after = storage.read_manifests(output, paths)
    facts = {
        "seeds": sum(m["rows"] for m in after if m is not None),
        **{
            name: {language: getattr(cut.drawn, name) for language, cut in sorted(usable.items())}
            for name in ("available", "wanted", "drawn")
        },
        "unusable": {
            language: cut.drawn.available
            for language, cut in sorted(cuts.items())
            if language not in job.usable_languages
        },
    }
    storage.write_json(storage.join(output, FILE_NAME), facts)
    return facts


def _no_seeds(usable: Collection[str], cuts: Mapping[str, Cut]) -> str:
    others = sum(cut.drawn.available for name, cut in cuts.items() if name not in usable)
    return (
        f"synthesis.seeds: no document of the selection can be a seed ({others} are in languages "
        f"that cannot be judged; of usable ones: {', '.join(usable)}). Name another selection, or "
        "give one of its languages a share in synthesis.language_shares."
    )


def _small_columns(job: SeedJob, shard: Shard) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Ids and languages of a shard's rows, and which are of the selection."""
    path = storage.join(shard.documents, shard.relative)
    table = parquet.read_table(path, ["id", "language"])
    selected = np.asarray(column(job.selection, shard, "selected").to_numpy(), np.bool_)
    return table, selected


def _hash_rows(shard: Shard, job: SeedJob) -> Iterator[tuple[str, Hashes]]:
    """Hashes of a shard's documents of the selection, by language."""
    table, selected = _small_columns(job, shard)
    table = table.filter(pa.array(selected))
    ids = table["id"].to_pylist()
    hashed = np.fromiter((seeds.seed_hash(job.seed, i) for i in ids), np.uint64, len(ids))
    languages = np.array(table["language"].to_pylist(), object)
    for language in sorted(set(languages.tolist())):
        yield language, hashed[languages == language]


def _count(language: str, hashes: Hashes) -> tuple[str, int]:
    return language, len(hashes)


def _cut(
    hashes: tuple[str, Iterable[Hashes]], available: Mapping[str, int], job: SeedJob
) -> tuple[str, Cut]:
    """Where a language ends; all of its hashes are held in one place, 8 bytes a document."""
    language, parts = hashes
    usable = {name: n for name, n in available.items() if name in job.usable_languages}
    if language not in usable:
        return language, Cut(Drawn(available[language], 0, 0, 1.0), -1)
    drawn = seeds.plan(usable, job.num_seeds, job.language_shares)[language]
    if drawn.drawn == 0:
        return language, Cut(drawn, -1)
    flat = np.concatenate(list(parts))
    return language, Cut(drawn, int(np.partition(flat, drawn.drawn - 1)[drawn.drawn - 1]))


def _write_cuts(cuts: list[tuple[str, Cut]], path: str) -> None:
    storage.write_json(path, {language: dataclasses.asdict(cut) for language, cut in sorted(cuts)})


class _WriteFn(beam.DoFn):
    """Writes the part of a shard."""

    def __init__(self, job: SeedJob, cuts: dict[str, Cut], key: str) -> None:
        self._job = job
        self._cuts = cuts
        self._key = key

    def process(self, part: tuple[str, Shard]) -> Iterator[int]:
        path, shard = part
        yield documents.write_batches(path, SEED_SCHEMA, self._tables(shard), self._key)

    def _tables(self, shard: Shard) -> Iterator[pa.Table]:
        """The drawn rows, some at a time."""
        table, selected = _small_columns(self._job, shard)
        draws = self._draws(table, selected)
        drawn = np.array([draw is not None for draw in draws], np.bool_)
        if not drawn.any():
            return
        spans = column(self._job.secrets, shard, "spans")
        quality = self._job.quality
        scores = column(quality, shard, "score") if quality else pa.nulls(len(draws))
        start = 0
        names = ["id", "repo", "path", "language", "license", "content"]
        for batch in documents.iter_batches(storage.join(shard.documents, shard.relative), names):
            size = batch.num_rows
            mask = pa.array(drawn[start : start + size])
            rows = batch.filter(mask).to_pylist()
            besides = zip(
                spans.slice(start, size).filter(mask).to_pylist(),
                scores.slice(start, size).filter(mask).to_pylist(),
                [draw for draw in draws[start : start + size] if draw is not None],
                strict=True,
            )
            start += size
            yield pa.Table.from_pylist(
                [
                    {**row, "text": text, "score": score or 0.0, "draw": draw}
                    for row, (row_spans, score, draw) in zip(rows, besides, strict=True)
                    # What the reader cannot read has no tokens, so no selection has it.
                    if (text := readable_text(row["content"], row["language"], row_spans))
                    is not None
                ],
                schema=SEED_SCHEMA,
            )

    def _draws(self, table: pa.Table, selected: npt.NDArray[np.bool_]) -> list[int | None]:
        """The `draw` of each row; None of those that are not drawn."""
        draws: list[int | None] = []
        rows = zip(table["id"].to_pylist(), table["language"].to_pylist(), selected, strict=True)
        for identity, language, is_selected in rows:
            cut = self._cuts.get(language) if is_selected else None
            hashed = seeds.seed_hash(self._job.seed, identity) if cut is not None else 0
            if cut is None or hashed > cut.last:
                draws.append(None)
            else:
                draws.append(seeds.draw_of(hashed, cut.last, cut.drawn.pace))
        return draws


def read_facts(folder: str) -> dict[str, Any]:
    """`seeds.json` of a folder of seeds."""
    facts: dict[str, Any] = storage.read_json(storage.join(folder, FILE_NAME))
    return facts


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("seeds")
