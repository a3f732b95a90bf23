"""Our side: the corpus stages as `snowcoder` runs them, from Parquet to tokens or to records.

    python -m corpus_parts.ours INPUT TOKENIZER OUTPUT NUM_WORKERS JOB

JOB is `tokens` (the peer's: rules, duplicates, tokens; secrets and policy too, which ours cannot do
without) or `records`, `records-parsed` (decontamination, selection and packing as well), or
`records-shipped` (against the shipped problems only: the index of all benchmarks would hide how
memory grows), `records-even` (in 16 shards: of 4 one has half of the bytes, and two workers would
not have even shares). Prints one JSON object.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import resource
import sys
from typing import Any

from beam_pipelines import (
    contamination,
    documents,
    duplicates,
    ingest,
    pack,
    rules,
    secrets,
    select,
    tokens,
)
from beam_pipelines.options import local_options
from corpus_parts.inputs import BANDS, NGRAM_WORDS, ROWS
from snowcoder_jax import parquet, recipe_corpus
from snowcoder_jax.recipe import Selection

SEED = 0
KEY = "benchmark"
SEQUENCE_LENGTH = 8_192


@dataclasses.dataclass(frozen=True)
class Job:
    """What to do, and with which settings."""

    source: str
    tokenizer: str
    output: str
    num_workers: int
    corpus: recipe_corpus.Corpus
    to_records: bool

    def folder(self, name: str) -> str:
        return os.path.join(self.output, name)


def job_of(arguments: list[str]) -> Job:
    source, tokenizer, output, num_workers, name = arguments
    corpus = recipe_corpus.Corpus(num_shards=16 if name == "records-even" else 4, heldout_share=0.0)
    if name == "tokens":
        corpus = dataclasses.replace(
            corpus, duplicates=recipe_corpus.Duplicates(NGRAM_WORDS, BANDS, ROWS)
        )
    elif name != "records-shipped":
        benchmarks = recipe_corpus.Contamination(benchmark_files())
        corpus = dataclasses.replace(corpus, contamination=benchmarks)
    if name == "records-parsed":
        corpus = dataclasses.replace(corpus, rules=recipe_corpus.Rules(parse=True))
    to_records = name.startswith("records")
    return Job(source, tokenizer, output, int(num_workers), corpus, to_records)


def benchmark_files() -> tuple[str, ...]:
    """Every benchmark file at hand.

    Raises:
      FileNotFoundError: there are none.
    """
    root = os.environ.get("SNOWCODER_BENCHMARKS", "../shared/data")
    patterns = ("human*/*.jsonl.gz", "mbpp*/*.json*", "bigcodebench/*.jsonl.gz")
    files = sorted(f for p in patterns for f in glob.glob(os.path.join(root, p)))
    if not files:
        raise FileNotFoundError(f"{root} holds no benchmark file: set SNOWCODER_BENCHMARKS")
    return tuple(files)


def run(job: Job) -> dict[str, Any]:
    """Do the job stage by stage; returns the counts that are compared."""
    shared: dict[str, Any] = {"key": KEY, "options": local_options(job.num_workers)}
    source = recipe_corpus.ParquetSource("input", job.source)
    ingest.run((source,), job.corpus, seed=SEED, output=job.folder("corpus"), **shared)
    judge_and_encode(job, shared)
    if job.to_records:
        inputs = select.Inputs(job.folder("corpus"), job.folder("policy"), job.folder("tokens"))
        ranking = select.ranking_of(Selection("all"), SEED)
        select.run_selection(inputs, ranking, output=job.folder("selection"), **shared)
        pack.run(_pack_job(job), output=job.folder("packed"), **shared)
    return _counts(job)


def judge_and_encode(job: Job, shared: dict[str, Any]) -> None:
    """The stages between the documents and their selection."""
    corpus = job.folder("corpus")
    rules.run(corpus, job.corpus.rules, output=job.folder("rules"), **shared)
    judges = {"rules": job.folder("rules")}
    if job.to_records:
        config = job.corpus.contamination
        contamination.run(corpus, config, output=job.folder("contamination"), **shared)
        judges["contamination"] = job.folder("contamination")
    duplicates.run(
        corpus,
        job.corpus.duplicates,
        output=job.folder("duplicates"),
        verdicts=tuple(judges.values()),
        **shared,
    )
    judges["duplicates"] = job.folder("duplicates")
    secrets.run(corpus, output=job.folder("secrets"), **shared)
    select.run_policy(
        corpus,
        verdicts=judges,
        permissive_only=True,
        seed=SEED,
        heldout_share=0.0,
        output=job.folder("policy"),
        **shared,
    )
    tokens.run(
        corpus,
        secrets=job.folder("secrets"),
        tokenizer=job.tokenizer,
        output=job.folder("tokens"),
        **shared,
    )


def _pack_job(job: Job) -> pack.PackJob:
    return pack.PackJob(
        corpus=job.folder("corpus"),
        tokens=job.folder("tokens"),
        selection=job.folder("selection"),
        tokenizer=job.tokenizer,
        grouping="language_then_repository",
        metadata_share=0.5,
        sequence_length=SEQUENCE_LENGTH,
        seed=SEED,
    )


def _counts(job: Job) -> dict[str, Any]:
    passed, kept = [], 0
    for shard in documents.list_shards(job.folder("corpus")):
        names = parquet.read_table(
            os.path.join(shard.documents, shard.relative), ["repo", "path"]
        ).to_pylist()
        verdict = parquet.read_table(
            documents.attribute_path(job.folder("rules"), shard), ["verdict"]
        )["verdict"].to_pylist()
        policy = parquet.read_table(
            documents.attribute_path(job.folder("policy"), shard), ["verdict"]
        )["verdict"].to_pylist()
        passed += [
            f"{n['repo']}/{n['path']}" for n, v in zip(names, verdict, strict=True) if v == "pass"
        ]
        kept += policy.count("pass")
    return {"passed": sorted(passed), "kept": kept}


def main() -> None:
    result = run(job_of(sys.argv[1:]))
    usage = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result["peak_memory_bytes"] = max(u.ru_maxrss for u in usage) * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
