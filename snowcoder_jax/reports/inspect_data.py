"""What `inspect` shows of a corpus, gathered shard by shard.

Only counts, bins and a few samples are held: memory grows with the number of repositories and of
duplicate clusters, not with that of documents. A sample is the documents of the smallest seeded
hashes, so the same run gives the same ones, however its shards lie.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from snowcoder_jax import packed as packed_format
from snowcoder_jax import storage
from snowcoder_jax.reports.inspect_rules import RuleFigures
from snowcoder_jax.reports.inspect_run import Run
from snowcoder_jax.reports.inspect_samples import Bucket, Facts, Smallest

NUM_LARGEST_CLUSTERS = 10
NUM_SCORE_BINS = 20

_DOCUMENT = ("id", "repo", "path", "language", "license")
# Columns of other stages beside those of the documents.
_BESIDES = {
    "policy": {
        "verdict": pa.string(),
        "stage": pa.string(),
        "rule": pa.string(),
        "split": pa.string(),
        "num_bytes": pa.int64(),
    },
    "tokens": {"num_tokens": pa.int64()},
}
_GROUP_KEYS = ["source", "language", "license", "verdict", "stage", "rule", "split"]


@dataclasses.dataclass
class Corpus:
    """The figures of one run; what a stage that was not run would tell is empty.

    Attributes:
      ingest: `ingest.json`: files, documents, bytes, reasons of the ledger.
      ledger: reason -> `files`, `bytes`, `samples` (rows of the ledger), the commonest first.
      rules: of the rules stage.
      groups: documents by source, language, license, verdict, stage, rule and split of the
        policy, with `files`, `bytes`, `tokens`.
      verdicts: (stage, verdict, rule, language) -> documents, as each stage's own columns say.
      repositories: table of repo, language, files, bytes, kept_files, kept_bytes.
      cluster_sizes: documents in a cluster of duplicates -> such clusters.
      largest_clusters: (documents, id of the kept one), the largest first.
      matches: (benchmark, method) -> documents; matched_items: benchmark -> its items met.
      secrets: kind -> `documents` and `secrets`; secret_languages: language -> documents with any.
      selections: name -> `files`, `bytes`, `tokens`; packed: step -> what was packed.
      scores: language -> documents in each bin of the annotator's score, 0 to 1.
      samples: bucket -> entries.
    """

    ingest: Facts
    ledger: dict[str, Facts]
    rules: RuleFigures
    groups: list[Facts] = dataclasses.field(default_factory=list)
    verdicts: Counter[Bucket] = dataclasses.field(default_factory=Counter)
    repositories: pa.Table | None = None
    cluster_sizes: Counter[int] = dataclasses.field(default_factory=Counter)
    largest_clusters: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    matches: Counter[Bucket] = dataclasses.field(default_factory=Counter)
    matched_items: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    secrets: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    secret_languages: Counter[str] = dataclasses.field(default_factory=Counter)
    selections: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    packed: dict[str, packed_format.Packed] = dataclasses.field(default_factory=dict)
    scores: dict[str, npt.NDArray[np.int64]] = dataclasses.field(default_factory=dict)
    samples: dict[Bucket, list[Facts]] = dataclasses.field(default_factory=dict)

    def languages(self) -> list[str]:
        """The languages, those of the most documents first."""
        counts: Counter[str] = Counter()
        for group in self.groups:
            counts[group["language"]] += group["files"]
        return [name for name, _ in sorted(counts.items(), key=lambda i: (-i[1], i[0]))]


def collect(run: Run, num_samples: int) -> Corpus:
    """Read every finished stage of a run once.

    Args:
      run: with at least its documents.
      num_samples: documents in a sample.
    """
    ingest = storage.read_json(storage.join(run.folders["ingest"], "ingest.json"))
    rules = RuleFigures(run.recipe.corpus.rules)
    corpus = Corpus(ingest, _ledger(run, num_samples), rules)
    gatherer = _Gatherer(run, corpus, num_samples)
    for relative in run.shards():
        gatherer.add_shard(relative)
    gatherer.finish()
    for step in sorted(run.folders):
        if step.startswith("pack ") and run.is_done(step):
            corpus.packed[step] = packed_format.read_packed(run.folders[step])
    return corpus


def _ledger(run: Run, num_samples: int) -> dict[str, Facts]:
    smallest = Smallest(num_samples)
    files: Counter[str] = Counter()
    num_bytes: Counter[str] = Counter()
    for _, batch in run.ledger_batches():
        for row in batch.to_pylist():
            files[row["reason"]] += 1
            num_bytes[row["reason"]] += row["bytes"] or 0
            whole = f"{row['repo']}/{row['path']}"
            key = storage.seeded_share(run.recipe.seed, "inspect", whole)
            smallest.add((row["reason"],), {**row, "id": whole}, key)
    samples = smallest.buckets()
    return {
        reason: {"files": n, "bytes": num_bytes[reason], "samples": samples[reason,]}
        for reason, n in sorted(files.items(), key=lambda i: (-i[1], i[0]))
    }


class _Gatherer:
    def __init__(self, run: Run, corpus: Corpus, num_samples: int) -> None:
        self._run, self._corpus = run, corpus
        self._seed = run.recipe.seed
        self._smallest = Smallest(num_samples)
        self._groups: list[pa.Table] = []
        self._repositories: list[pa.Table] = []
        self._clusters: Counter[str] = Counter()

    def add_shard(self, relative: str) -> None:
        run, corpus = self._run, self._corpus
        table = self._base(relative)
        languages = np.array(table["language"].to_pylist(), dtype=object)
        entries = table.select([*_DOCUMENT, "num_bytes", "num_tokens"]).to_pylist()
        for entry in entries:
            entry["key"] = storage.seeded_share(self._seed, "inspect", entry["id"])
        sizes = [("id", "count"), ("num_bytes", "sum"), ("num_tokens", "sum")]
        self._groups.append(table.group_by(_GROUP_KEYS).aggregate(sizes))
        self._add_repositories(table)
        for entry, verdict in zip(entries, table["verdict"].to_pylist(), strict=True):
            if verdict == "pass":
                self._smallest.add(("kept", entry["language"]), entry)
        if run.is_done("rules"):
            stage = run.table("rules", relative)
            self._add_verdicts("rules", stage, languages)
            corpus.rules.add(stage, entries, languages, self._smallest)
        if run.is_done("duplicates"):
            stage = run.table("duplicates", relative)
            self._add_verdicts("duplicates", stage, languages)
            self._add_duplicates(stage, entries)
        if run.is_done("contamination"):
            stage = run.table("contamination", relative)
            self._add_verdicts("contamination", stage, languages)
            self._add_contamination(stage, entries)
        if run.is_done("secrets"):
            self._add_secrets(run.table("secrets", relative, ["spans"]), entries)
        self._add_selections(relative, table)
        if run.is_done("quality"):
            score = run.table("quality", relative, ["score"])["score"]
            self._add_scores(score, languages)

    def finish(self) -> None:
        corpus = self._corpus
        names = {"id_count": "files", "num_bytes_sum": "bytes", "num_tokens_sum": "tokens"}
        grouped = pa.concat_tables(self._groups).group_by(_GROUP_KEYS)
        for row in grouped.aggregate([(name, "sum") for name in names]).to_pylist():
            sizes = {new: row[f"{old}_sum"] for old, new in names.items()}
            corpus.groups.append({**{k: row[k] for k in _GROUP_KEYS}, **sizes})
        corpus.groups.sort(key=lambda g: [str(g[k]) for k in _GROUP_KEYS])
        # A large repository lies in several shards.
        corpus.repositories = _summed(pa.concat_tables(self._repositories)).sort_by(
            [("language", "ascending"), ("bytes", "descending"), ("repo", "ascending")]
        )
        corpus.cluster_sizes = Counter(n + 1 for n in self._clusters.values())
        largest = sorted(self._clusters.items(), key=lambda c: (-c[1], c[0]))
        corpus.largest_clusters = [(n + 1, i) for i, n in largest[:NUM_LARGEST_CLUSTERS]]
        corpus.samples = self._smallest.buckets()

    def _base(self, relative: str) -> pa.Table:
        """Documents with policy and tokens, null where these were not run."""
        table = self._run.table("ingest", relative, _DOCUMENT)
        for step, columns in _BESIDES.items():
            stage = self._run.table(step, relative, [*columns]) if self._run.is_done(step) else None
            for name, type_ in columns.items():
                nulls = pa.nulls(table.num_rows, type_)
                table = table.append_column(
                    name, nulls if stage is None else stage[name].cast(type_)
                )
        source = relative.split("/", 1)[0]
        return table.append_column("source", pa.array([source] * table.num_rows, pa.string()))

    def _add_repositories(self, table: pa.Table) -> None:
        is_kept = pc.equal(table["verdict"], "pass").fill_null(False).cast(pa.int64())
        num_bytes = table["num_bytes"].fill_null(0)
        sizes = {
            "files": pa.array(np.ones(table.num_rows, np.int64)),
            "bytes": num_bytes,
            "kept_files": is_kept,
            "kept_bytes": pc.multiply(num_bytes, is_kept),
        }
        named = {"repo": table["repo"], "language": table["language"]}
        self._repositories.append(_summed(pa.table({**named, **sizes})))

    def _add_verdicts(self, step: str, stage: pa.Table, languages: npt.NDArray[Any]) -> None:
        columns = (stage["verdict"].to_pylist(), stage["rule"].to_pylist(), languages)
        for verdict, rule, language in zip(*columns, strict=True):
            self._corpus.verdicts[step, str(verdict), rule or "", language] += 1

    def _add_duplicates(self, stage: pa.Table, entries: list[Facts]) -> None:
        columns = (stage[n].to_pylist() for n in ("verdict", "rule", "value", "cluster"))
        for entry, (verdict, rule, value, cluster) in zip(
            entries, zip(*columns, strict=True), strict=True
        ):
            if verdict != "pass":
                self._clusters[cluster] += 1
                dropped = {**entry, "rule": rule, "value": value, "cluster": cluster}
                self._smallest.add(("duplicates", rule), dropped)
                if value is not None and value < 1:
                    self._smallest.add(("least alike",), dropped, value)

    def _add_contamination(self, stage: pa.Table, entries: list[Facts]) -> None:
        names = [n for n in ("benchmark", "item", "match", "method") if n in stage.column_names]
        hits = pc.not_equal(stage["verdict"], "pass").fill_null(True)
        chosen = np.flatnonzero(hits.to_numpy()).tolist()
        for i, row in zip(chosen, stage.select(names).filter(hits).to_pylist(), strict=True):
            benchmark = str(row["benchmark"])
            self._corpus.matches[benchmark, str(row.get("method") or "")] += 1
            self._corpus.matched_items.setdefault(benchmark, set()).add(str(row["item"]))
            self._smallest.add(("contamination", benchmark), {**entries[i], **row})

    def _add_secrets(self, stage: pa.Table, entries: list[Facts]) -> None:
        counts = pc.list_value_length(stage["spans"]).fill_null(0).to_numpy()
        for i in np.flatnonzero(counts).tolist():
            kinds = Counter(str(span["kind"]) for span in stage["spans"][i].as_py())
            self._corpus.secret_languages[entries[i]["language"]] += 1
            for kind, n in kinds.items():
                of_kind = self._corpus.secrets.setdefault(kind, Counter())
                of_kind.update(documents=1, secrets=n)
                self._smallest.add(("secrets", kind), {**entries[i], "value": n})

    def _add_selections(self, relative: str, table: pa.Table) -> None:
        for selection in self._run.recipe.selections:
            step = f"select {selection.name}"
            if selection.source == "corpus" and self._run.is_done(step):
                taken = table.filter(self._run.table(step, relative, ["selected"])["selected"])
                self._corpus.selections.setdefault(selection.name, Counter()).update(
                    files=taken.num_rows,
                    bytes=pc.sum(taken["num_bytes"]).as_py() or 0,
                    tokens=pc.sum(taken["num_tokens"]).as_py() or 0,
                )

    def _add_scores(self, score: pa.ChunkedArray, languages: npt.NDArray[Any]) -> None:
        known = score.is_valid().to_numpy()
        values = score.drop_null().to_numpy()
        for language in sorted(set(languages[known])):
            counts, _ = np.histogram(
                values[languages[known] == language], NUM_SCORE_BINS, (0.0, 1.0)
            )
            scores = self._corpus.scores
            scores[language] = scores.get(language, np.zeros(NUM_SCORE_BINS, np.int64)) + counts


def _summed(table: pa.Table) -> pa.Table:
    """Sizes by repository and language."""
    sizes = table.column_names[2:]
    summed = table.group_by(["repo", "language"]).aggregate([(n, "sum") for n in sizes])
    return summed.rename_columns([n.removesuffix("_sum") for n in summed.column_names])
