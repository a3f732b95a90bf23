"""Which documents are used: the recipe's policy over all verdicts, then ranked selections.

Two stages. `run_policy` joins the verdicts of the stages before it and says of each document
whether it may be used and on which side of the split it stands ("train" or "heldout", by
repository). `run_selection` then takes documents of the train side: all, the best of each
language by score, or a seeded draw, until the token budget is met (paper section 3.2).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents, workers
from beam_pipelines.documents import VERDICT_FIELDS, Shard
from snowcoder_jax import parquet, storage
from snowcoder_jax.recipe import Selection
from snowcoder_jax.text import licenses

POLICY_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        *VERDICT_FIELDS,
        ("stage", pa.string()),  # the stage whose verdict dropped it; null where kept
        ("split", pa.string()),  # "train" or "heldout"; null where dropped
        ("num_bytes", pa.int64()),
    ]
)

SELECTION_SCHEMA = pa.schema([("id", pa.string()), ("selected", pa.bool_())])


def is_heldout(repo: str, seed: int, share: float) -> bool:
    """Whole repositories are held out, so that no file's sibling is trained on."""
    return storage.seeded_share(seed, "heldout", repo) < share


def apply_policy(
    table: pa.Table,
    *verdicts: pa.Table,
    stages: tuple[str, ...],
    permissive_only: bool,
    seed: int,
    heldout_share: float,
) -> pa.Table:
    """The first verdict that is not a pass drops the document, licence first."""
    rows: list[tuple[Any, ...]] = []
    columns = [zip(*(t[n].to_pylist() for n in _VERDICT_NAMES), strict=True) for t in verdicts]
    contents = pc.binary_length(table["content"].cast(pa.large_binary())).to_pylist()
    documents_rows = zip(table["repo"].to_pylist(), table["license"].to_pylist(), strict=True)
    for (repo, license_id), *judged in zip(documents_rows, *columns, strict=True):
        if permissive_only and not licenses.is_permissive(license_id):
            rows.append(("drop", license_id or "unknown", None, None, "license", None))
            continue
        failed = next((i for i, v in enumerate(judged) if v[0] != "pass"), None)
        if failed is None:
            split = "heldout" if is_heldout(repo, seed, heldout_share) else "train"
            rows.append(("pass", None, None, None, None, split))
            continue
        verdict, rule, value, threshold = judged[failed]
        rows.append((verdict or "error", rule or "missing", value, threshold, stages[failed], None))
    names = [*_VERDICT_NAMES, "stage", "split"]
    arrays = [
        pa.array([r[i] for r in rows], POLICY_SCHEMA.field(n).type) for i, n in enumerate(names)
    ]
    return pa.table([table["id"], *arrays, pa.array(contents, pa.int64())], schema=POLICY_SCHEMA)


_VERDICT_NAMES = [field.name for field in VERDICT_FIELDS]


def run_policy(
    corpus: str,
    *,
    verdicts: dict[str, str],
    permissive_only: bool,
    seed: int,
    heldout_share: float,
    output: str,
    key: str,
    options: PipelineOptions,
) -> int:
    """Judge every document; `verdicts` maps each stage's name to its folder, in order."""
    function = functools.partial(
        apply_policy,
        stages=tuple(verdicts),
        permissive_only=permissive_only,
        seed=seed,
        heldout_share=heldout_share,
    )
    return documents.run_on_shards(
        function,
        POLICY_SCHEMA,
        corpus=corpus,
        output=output,
        key=key,
        options=options,
        columns=("id", "repo", "license", "content"),
        attributes=tuple(verdicts.values()),
    )


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a selection reads: folders of the corpus and of its stages."""

    corpus: str
    policy: str
    tokens: str
    quality: str | None = None


@dataclasses.dataclass(frozen=True)
class Ranking:
    """How documents are ordered and how much is taken.

    Attributes:
      order: as in `recipe.Selection`.
      budget: in tokens, or in documents where `count_documents`.
    """

    order: str
    budget: int | None
    language_shares: dict[str, float]
    seed: int
    purpose: str
    count_documents: bool = False


def ranking_of(selection: Selection, seed: int) -> Ranking:
    return Ranking(
        selection.order,
        selection.tokens,
        selection.language_shares,
        seed,
        f"selection {selection.name}",
    )


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Eligible documents of one language, n of them in all shards or in one.

    16 bytes a document, which is what the ranking of a language costs to carry; in the one place
    where they are ranked they cost about 50.

    Attributes:
      ranks: float32 [n], smaller is better: minus the score, or 0 where there is no score.
      ties: uint64 [n], seeded hashes of the ids.
      sizes: int32 [n], tokens, or 1 where documents are counted.
    """

    ranks: npt.NDArray[np.float32]
    ties: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.int32]

    def taken(self, rows: npt.NDArray[Any]) -> Candidates:
        return Candidates(self.ranks[rows], self.ties[rows], self.sizes[rows])


def rank_rows(
    ranking: Ranking,
    ids: pa.ChunkedArray,
    policy: pa.Table,
    tokens: pa.Table,
    quality: pa.Table | None,
) -> tuple[npt.NDArray[np.bool_], Candidates]:
    """Of all rows: whether they may be taken, and what ranks them."""
    eligible = pc.and_(pc.equal(policy["split"], "train"), pc.equal(tokens["verdict"], "pass"))
    mask = np.asarray(eligible.fill_null(False).to_numpy(), np.bool_)
    ranks = np.zeros(len(ids), np.float32)
    if ranking.order == "quality":
        assert quality is not None
        scores = np.asarray(quality["score"].to_numpy(), np.float32)  # null becomes NaN
        # A file that was not scored is never taken for a good one.
        mask &= np.isfinite(scores)
        ranks = -scores
    hashes = (storage.seeded_hash(ranking.seed, ranking.purpose, i) for i in ids.to_pylist())
    ties = np.fromiter(hashes, np.uint64, len(ids))
    if ranking.count_documents:
        sizes = np.ones(len(ids), np.int32)
    else:
        sizes = np.asarray(tokens["num_tokens"].to_numpy(), np.int32)
    return mask, Candidates(ranks, ties, sizes)


def rank_shard(inputs: Inputs, shard: Shard, ranking: Ranking) -> dict[str, Candidates]:
    """The eligible documents of a shard, by language."""

    def read(folder: str, *columns: str) -> pa.Table:
        return parquet.read_table(storage.join(folder, shard.relative), columns)

    table = read(shard.documents, "id", "language")
    mask, rows = rank_rows(
        ranking,
        table["id"],
        read(inputs.policy, "split"),
        read(inputs.tokens, "verdict", "num_tokens"),
        read(inputs.quality, "score") if inputs.quality else None,
    )
    languages = table["language"].combine_chunks().dictionary_encode()
    codes = languages.indices.to_numpy()
    names = languages.dictionary.to_pylist()
    return {
        names[code]: rows.taken(mask & (codes == code)) for code in np.unique(codes[mask]).tolist()
    }


@dataclasses.dataclass(frozen=True)
class Cutoff:
    """The last document taken of a language, and what that came to.

    Attributes:
      rank, tie: of the last document taken; nothing is taken where `num_documents` is 0.
      threshold: its score; None where files are not ranked by score, or none is taken.
      size: tokens taken, or documents where these are counted; `available_size`: of all.
      percent_taken: 100 size / available_size, the effective top share.
    """

    language: str
    rank: float
    tie: int
    threshold: float | None
    num_documents: int
    size: int
    percent_taken: float
    available_documents: int
    available_size: int
    budget: float


def language_budgets(
    available: dict[str, int], budget: int | None, shares: dict[str, float]
) -> dict[str, float]:
    """Split a budget: named languages get their share, the others keep their proportions.

    Where there are no others, the named ones divide all of it in proportion to their shares.

    Args:
      available: tokens (or documents) of each language that may be used.
      budget: None takes as much as there is; with named shares, as much as keeps them.
      shares: language -> share of the whole.
    """
    present = {language: shares[language] for language in shares if available.get(language)}
    rest = {k: v for k, v in available.items() if k not in present}
    if budget is None and not present:
        return {k: float(v) for k, v in available.items()}
    named = sum(present.values())
    num_rest = sum(rest.values())
    whole = 1.0 if num_rest else named or 1.0  # what the shares come to
    if budget is None:
        limits = [
            available[language] * whole / share for language, share in present.items() if share
        ]
        if num_rest and named < 1:
            limits.append(num_rest / (1 - named))
        total = min(limits, default=0.0) / whole
    else:
        total = budget / whole
    result = {language: total * share for language, share in present.items()}
    for language, amount in rest.items():
        result[language] = total * (1 - named) * amount / max(1, num_rest)
    return result


def find_cutoff(
    language: str, parts: Iterable[Candidates], budget: float, *, by_score: bool
) -> Cutoff:
    """Rank one language's candidates and take from the top until the budget is met.

    A file is taken if that brings the sum closer to the budget: else a language with a small
    share would get a whole large file, many times what is its due. What cannot be told from the
    last one taken (the same document twice) is taken with it.
    """
    shards = list(parts)
    ranks = np.concatenate([p.ranks for p in shards])
    ties = np.concatenate([p.ties for p in shards])
    sizes = np.concatenate([p.sizes for p in shards])
    del shards
    order = np.lexsort((ties, ranks))
    ranks, ties, sizes = ranks[order], ties[order], sizes[order]
    total = np.cumsum(sizes, dtype=np.int64)
    num_taken = int(np.searchsorted(total - sizes / 2, budget, side="right"))
    if num_taken:
        last = num_taken - 1
        same = (ranks[num_taken:] == ranks[last]) & (ties[num_taken:] == ties[last])
        num_taken += int(same.sum())
    size, available = (int(total[n - 1]) if n else 0 for n in (num_taken, len(total)))
    rank = float(ranks[num_taken - 1]) if num_taken else 0.0
    return Cutoff(
        language=language,
        rank=rank,
        tie=int(ties[num_taken - 1]) if num_taken else 0,
        threshold=-rank if by_score and num_taken else None,
        num_documents=num_taken,
        size=size,
        percent_taken=100 * size / max(1, available),
        available_documents=len(total),
        available_size=available,
        budget=budget,
    )


class _RankFn(beam.DoFn):
    def __init__(self, inputs: Inputs, ranking: Ranking) -> None:
        self._inputs = inputs
        self._ranking = ranking

    def process(self, shard: Shard) -> Iterator[tuple[str, Candidates]]:
        yield from rank_shard(self._inputs, shard, self._ranking).items()


def _size(part: tuple[str, Candidates]) -> tuple[str, int]:
    language, candidates = part
    return language, int(candidates.sizes.sum(dtype=np.int64))


def _cut(
    parts: tuple[str, Iterable[Candidates]], available: dict[str, int], ranking: Ranking
) -> Cutoff:
    language, candidates = parts
    budgets = language_budgets(available, ranking.budget, ranking.language_shares)
    by_score = ranking.order == "quality"
    return find_cutoff(language, candidates, budgets[language], by_score=by_score)


def run_selection(
    inputs: Inputs, ranking: Ranking, *, output: str, key: str, options: PipelineOptions
) -> dict[str, Cutoff]:
    """Rank, cut and mark; returns the cut of each language, also kept in `cutoffs.json`."""
    shards = documents.list_shards(inputs.corpus)
    cutoffs_path = storage.join(output, "cutoffs.json")
    with workers.pipeline(options) as pipeline:
        spread = workers.spread(pipeline, shards, documents.sizes_bytes(shards), options)
        ranked = spread | beam.ParDo(_RankFn(inputs, ranking))
        available = ranked | beam.Map(_size) | beam.CombinePerKey(sum)
        _ = (
            ranked
            | beam.GroupByKey()
            | beam.Map(_cut, beam.pvalue.AsDict(available), ranking)
            | beam.combiners.ToList()
            | beam.Map(_write_cutoffs, cutoffs_path)
        )
    cutoffs = {c["language"]: Cutoff(**c) for c in storage.read_json(cutoffs_path)}
    documents.run_on_shards(
        functools.partial(mark, ranking=ranking, cutoffs=cutoffs),
        SELECTION_SCHEMA,
        corpus=inputs.corpus,
        output=output,
        key=key,
        options=options,
        columns=("id", "language"),
        attributes=tuple(a for a in (inputs.policy, inputs.tokens, inputs.quality) if a),
        attribute_columns=("id", "split", "verdict", "num_tokens", "score"),
    )
    return cutoffs


def _write_cutoffs(cutoffs: list[Cutoff], path: str) -> None:
    cutoffs = sorted(cutoffs, key=lambda c: c.language)
    storage.write_json(path, [dataclasses.asdict(c) for c in cutoffs])


def mark(
    table: pa.Table,
    policy: pa.Table,
    tokens: pa.Table,
    quality: pa.Table | None = None,
    *,
    ranking: Ranking,
    cutoffs: dict[str, Cutoff],
) -> pa.Table:
    """Say of each row whether it stands at or above its language's cut."""
    eligible, rows = rank_rows(ranking, table["id"], policy, tokens, quality)
    languages = table["language"].combine_chunks().dictionary_encode()
    selected = np.zeros(table.num_rows, np.bool_)
    for code, language in enumerate(languages.dictionary.to_pylist()):
        cutoff = cutoffs.get(language)
        if cutoff is not None and cutoff.num_documents:
            above = rows.ranks < cutoff.rank
            level = (rows.ranks == cutoff.rank) & (rows.ties <= np.uint64(cutoff.tie))
            selected |= eligible & (languages.indices.to_numpy() == code) & (above | level)
    return pa.table([table["id"], pa.array(selected)], schema=SELECTION_SCHEMA)


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("select")
