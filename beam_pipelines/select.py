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

from beam_pipelines import documents
from beam_pipelines.documents import VERDICT_FIELDS, Shard
from snowcoder_jax import storage
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


# The candidates of one language in one shard: rank (smaller is better), a tie-break hash, size.
Candidates = tuple[str, npt.NDArray[np.float64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]


def rank_shard(inputs: Inputs, shard: Shard, ranking: Ranking) -> dict[str, Candidates]:
    """The eligible documents of a shard, by language."""
    table = _joined(inputs, shard)
    eligible = _eligible(table, ranking)
    result: dict[str, Candidates] = {}
    languages = np.array(table["language"].to_pylist(), dtype=object)
    rank, ties = _rank(table, ranking)
    sizes = np.asarray(table["num_tokens"].to_numpy(), np.int64)
    if ranking.count_documents:
        sizes = np.ones_like(sizes)
    for language in sorted(set(languages[eligible])):
        mask = eligible & (languages == language)
        result[language] = (language, rank[mask], ties[mask], sizes[mask])
    return result


def _joined(inputs: Inputs, shard: Shard) -> pa.Table:
    path = storage.join(shard.documents, shard.relative)
    table = documents.read_table(path, ["id", "language"])
    policy = documents.read_table(storage.join(inputs.policy, shard.relative), ["split"])
    tokens = documents.read_table(
        storage.join(inputs.tokens, shard.relative), ["verdict", "num_tokens"]
    )
    table = table.append_column("split", policy["split"])
    table = table.append_column("readable", pc.equal(tokens["verdict"], "pass"))
    table = table.append_column("num_tokens", tokens["num_tokens"])
    if inputs.quality is not None:
        quality = documents.read_table(storage.join(inputs.quality, shard.relative), ["score"])
        table = table.append_column("score", quality["score"])
    return table


def _eligible(table: pa.Table, ranking: Ranking) -> npt.NDArray[np.bool_]:
    train = pc.equal(table["split"], "train").fill_null(False)
    mask = np.asarray(pc.and_(train, table["readable"]).to_numpy(), np.bool_)
    if ranking.order == "quality":
        # A file that was not scored is never taken for a good one.
        mask &= np.asarray(table["score"].is_valid().to_numpy(), np.bool_)
    return mask


def _rank(
    table: pa.Table, ranking: Ranking
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint64]]:
    ids = table["id"].to_pylist()
    ties = np.array([storage.seeded_hash(ranking.seed, ranking.purpose, i) for i in ids], np.uint64)
    if ranking.order == "quality":
        score = np.asarray(table["score"].fill_null(-1.0).to_numpy(), np.float64)
        return -score, ties
    return np.zeros(len(ids)), ties


@dataclasses.dataclass(frozen=True)
class Cutoff:
    """The last document taken of a language, and what that came to."""

    language: str
    rank: float
    tie: int
    num_documents: int
    size: int
    available_documents: int
    available_size: int
    budget: float


def language_budgets(
    available: dict[str, int], budget: int | None, shares: dict[str, float]
) -> dict[str, float]:
    """Split a budget: named languages get their share, the others keep their proportions.

    Args:
      available: tokens (or documents) of each language that may be used.
      budget: None takes everything, and the named shares then bound the others.
      shares: language -> share of the whole.
    """
    present = {language: shares[language] for language in shares if available.get(language)}
    rest = {k: v for k, v in available.items() if k not in present}
    if budget is None and not present:
        return {k: float(v) for k, v in available.items()}
    total = float(budget if budget is not None else sum(available.values()))
    left = total * (1 - sum(present.values()))
    result = {language: total * share for language, share in present.items()}
    for language, amount in rest.items():
        result[language] = left * amount / max(1, sum(rest.values()))
    return result


def find_cutoff(parts: Iterable[Candidates], budget: float) -> Cutoff:
    """Rank one language's candidates and take from the top until the budget is met.

    A file is taken if that brings the sum closer to the budget: else a language with a small
    share would get a whole large file, many times what is its due.
    """
    parts = list(parts)
    rank = np.concatenate([p[1] for p in parts])
    ties = np.concatenate([p[2] for p in parts])
    sizes = np.concatenate([p[3] for p in parts])
    order = np.lexsort((ties, rank))
    halfway = np.cumsum(sizes[order]) - sizes[order] / 2
    num_taken = int(np.searchsorted(halfway, budget, side="right"))
    last = order[num_taken - 1] if num_taken else None
    return Cutoff(
        language=parts[0][0],
        rank=float(rank[last]) if last is not None else -np.inf,
        tie=int(ties[last]) if last is not None else 0,
        num_documents=num_taken,
        size=int(sizes[order[:num_taken]].sum()),
        available_documents=len(rank),
        available_size=int(sizes.sum()),
        budget=budget,
    )


class _RankFn(beam.DoFn):
    def __init__(self, inputs: Inputs, ranking: Ranking) -> None:
        self._inputs = inputs
        self._ranking = ranking

    def process(self, shard: Shard) -> Iterator[tuple[str, Candidates]]:
        yield from rank_shard(self._inputs, shard, self._ranking).items()


def _available(parts: tuple[str, Iterable[Candidates]]) -> tuple[str, int]:
    language, candidates = parts
    return language, sum(int(c[3].sum()) for c in candidates)


def _cut(
    parts: tuple[str, Iterable[Candidates]],
    available: dict[str, int],
    budget: int | None,
    shares: dict[str, float],
) -> Cutoff:
    language, candidates = parts
    return find_cutoff(candidates, language_budgets(available, budget, shares)[language])


def run_selection(
    inputs: Inputs, ranking: Ranking, *, output: str, key: str, options: PipelineOptions
) -> dict[str, Cutoff]:
    """Rank, cut and mark; returns the cut of each language, also kept in `selection.json`."""
    shards = documents.list_shards(inputs.corpus)
    cutoffs_path = storage.join(output, "cutoffs.json")
    with beam.Pipeline(options=options) as pipeline:
        ranked = (
            pipeline
            | beam.Create(shards, reshuffle=False)
            | beam.ParDo(_RankFn(inputs, ranking))
            | beam.GroupByKey()
        )
        available = beam.pvalue.AsDict(ranked | beam.Map(_available))
        _ = (
            ranked
            | beam.Map(_cut, available, ranking.budget, ranking.language_shares)
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
    table = table.append_column("split", policy["split"])
    table = table.append_column("readable", pc.equal(tokens["verdict"], "pass"))
    if quality is not None:
        table = table.append_column("score", quality["score"])
    eligible = _eligible(table, ranking)
    rank, ties = _rank(table, ranking)
    selected = []
    for i, language in enumerate(table["language"].to_pylist()):
        cutoff = cutoffs.get(language)
        selected.append(
            bool(eligible[i])
            and cutoff is not None
            and cutoff.num_documents > 0
            and (rank[i], int(ties[i])) <= (cutoff.rank, cutoff.tie)
        )
    return pa.table([table["id"], pa.array(selected)], schema=SELECTION_SCHEMA)
