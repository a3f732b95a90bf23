"""The corpus half of a report: funnel, sizes, annotator, selections."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from snowcoder_jax import parquet, storage
from snowcoder_jax.text.reader import clean_name

if TYPE_CHECKING:
    from snowcoder_jax.steps.builder import Builder

Facts = dict[str, Any]

NUM_EXAMPLES = 5
NUM_EXAMPLE_LINES = 60
NUM_BINS = 20


def corpus(b: Builder, facts: dict[str, Facts]) -> Facts | None:
    """Documents, what dropped them, and sizes by language, licence and repository."""
    if "policy" not in facts:
        return None
    rows = _grouped(b)
    return {
        "documents": sum(r["documents"] for r in rows),
        "bytes": sum(r["bytes"] for r in rows),
        "kept_documents": sum(r["documents"] for r in rows if r["split"]),
        "kept_bytes": sum(r["bytes"] for r in rows if r["split"]),
        "ledger": facts["ingest"].get("ledger", {}),
        "dropped": _dropped(rows),
        "funnel": _funnel(rows),
        "languages": _sizes(rows, "language"),
        "licenses": _sizes(rows, "license"),
        "repositories": _repositories(rows),
    }


def _grouped(b: Builder) -> list[Facts]:
    """Documents and bytes of each (repo, language, licence, stage, rule, split)."""
    from beam_pipelines import documents

    tables = []
    for shard in documents.list_shards(b.named["ingest"]):
        path = storage.join(shard.documents, shard.relative)
        table = parquet.read_table(path, ["repo", "language", "license"])
        names = ["stage", "rule", "split", "num_bytes"]
        policy = parquet.read_table(storage.join(b.named["policy"], shard.relative), names)
        for name in names:
            table = table.append_column(name, policy[name])
        keys = ["repo", "language", "license", "stage", "rule", "split"]
        tables.append(
            table.group_by(keys).aggregate([("num_bytes", "sum"), ("num_bytes", "count")])
        )
    rows = pa.concat_tables(tables).to_pylist()
    return [{**r, "documents": r["num_bytes_count"], "bytes": r["num_bytes_sum"]} for r in rows]


def _dropped(rows: list[Facts]) -> dict[str, int]:
    counter: Counter[str] = Counter()
    for row in rows:
        if row["stage"] is not None:
            counter[_reason(row)] += row["documents"]
    return dict(counter.most_common())


def _reason(row: Facts) -> str:
    # A licence's "rule" is the licence itself; the others name what failed.
    return f"license: {row['rule']}" if row["stage"] == "license" else str(row["rule"])


def _funnel(rows: list[Facts]) -> list[Facts]:
    """What is left after each stage, and what it took away."""
    left_documents = sum(r["documents"] for r in rows)
    left_bytes = sum(r["bytes"] for r in rows)
    result = [{"stage": "ingest", "documents": left_documents, "bytes": left_bytes, "reasons": {}}]
    for stage in ("license", "rules", "duplicates", "contamination"):
        gone = [r for r in rows if r["stage"] == stage]
        left_documents -= sum(r["documents"] for r in gone)
        left_bytes -= sum(r["bytes"] for r in gone)
        result.append(
            {
                "stage": stage,
                "documents": left_documents,
                "bytes": left_bytes,
                "reasons": _dropped(gone),
            }
        )
    heldout = [r for r in rows if r["split"] == "heldout"]
    result.append(
        {
            "stage": "heldout",
            "documents": left_documents - sum(r["documents"] for r in heldout),
            "bytes": left_bytes - sum(r["bytes"] for r in heldout),
            "reasons": {"held out for evaluation": sum(r["documents"] for r in heldout)},
        }
    )
    return result


def _sizes(rows: list[Facts], name: str) -> dict[str, Facts]:
    sizes: dict[str, Facts] = defaultdict(
        lambda: {"documents": 0, "bytes": 0, "kept_documents": 0, "kept_bytes": 0}
    )
    for row in rows:
        entry = sizes[row[name] or "unknown"]
        entry["documents"] += row["documents"]
        entry["bytes"] += row["bytes"]
        if row["split"]:
            entry["kept_documents"] += row["documents"]
            entry["kept_bytes"] += row["bytes"]
    return dict(sorted(sizes.items(), key=lambda item: -item[1]["bytes"]))


def _repositories(rows: list[Facts]) -> list[Facts]:
    repos: dict[str, Facts] = {}
    for row in rows:
        if row["repo"] not in repos:
            repos[row["repo"]] = {
                "repo": clean_name(row["repo"]),
                "documents": 0,
                "bytes": 0,
                "license": "",
                "heldout": False,
            }
        entry = repos[row["repo"]]
        entry["documents"] += row["documents"]
        entry["bytes"] += row["bytes"]
        entry["license"] = row["license"] or entry["license"]
        entry["heldout"] = entry["heldout"] or row["split"] == "heldout"
    return sorted(repos.values(), key=lambda r: -int(r["bytes"]))


def annotator(b: Builder, facts: dict[str, Facts]) -> Facts | None:
    """The annotator's own figures, the scores' histogram, the best and the worst files."""
    if "quality" not in facts:
        return None
    from beam_pipelines import documents, texts

    corpus_folder, scores = b.named["ingest"], b.named["quality"]
    languages: dict[str, str] = {}
    for shard in documents.list_shards(corpus_folder):
        path = storage.join(shard.documents, shard.relative)
        table = parquet.read_table(path, ["id", "language"])
        pairs = zip(table["id"].to_pylist(), table["language"].to_pylist(), strict=True)
        languages.update(pairs)
    by_id: dict[str, float] = texts.values_by_id(scores, corpus_folder, "score")
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    by_language: dict[str, list[float]] = defaultdict(list)
    for document, score in by_id.items():
        by_language[languages[document]].append(score)
    ranked = sorted(by_id, key=lambda i: (-by_id[i], i))
    trained = facts["annotator"]
    return {
        "encoder": b.recipe.annotator.encoder,
        "positives": trained["positives_by_origin"],
        "negatives": trained["num_negatives"],
        "auc": trained["auc"],
        "auc_by_epoch": trained["auc_by_epoch"],
        "auc_by_language": trained["auc_by_language"],
        "scored_files": len(by_id),
        "histogram": {
            "edges": edges.tolist(),
            "counts_by_language": {
                language: np.histogram(values, edges)[0].tolist()
                for language, values in sorted(by_language.items())
            },
        },
        "best": _examples(b, ranked[:NUM_EXAMPLES], by_id),
        "worst": _examples(b, ranked[::-1][:NUM_EXAMPLES], by_id),
    }


def _examples(b: Builder, ids: list[str], scores: dict[str, float]) -> list[Facts]:
    from beam_pipelines import documents, texts

    wanted = set(ids)

    def choose(shard: documents.Shard) -> texts.Mask:
        path = storage.join(shard.documents, shard.relative)
        column = parquet.read_table(path, ["id"])["id"].to_pylist()
        return np.array([i in wanted for i in column], np.bool_)

    found = {
        d.id: {
            "id": d.id,
            "repo": clean_name(d.repo),
            "path": clean_name(d.path),
            "language": d.language,
            "score": scores[d.id],
            "code": "\n".join(d.text.splitlines()[:NUM_EXAMPLE_LINES]),
        }
        for d in texts.read_texts(b.named["ingest"], b.named["secrets"], choose)
    }
    return [found[i] for i in ids]


def selection(folder: str) -> Facts:
    """What the selection in a folder took of each language; a score threshold where files were
    ranked by it."""
    cutoffs = storage.read_json(storage.join(folder, "cutoffs.json"))
    tokens = sum(c["size"] for c in cutoffs)
    return {
        "documents": sum(c["num_documents"] for c in cutoffs),
        "tokens": tokens,
        "thresholds": {c["language"]: c["threshold"] for c in cutoffs},
        "share": {c["language"]: c["size"] / max(1, tokens) for c in cutoffs},
        "effective_percent": {c["language"]: c["percent_taken"] for c in cutoffs},
    }
