"""What Beam costs: the judging stages and tokens through Beam, and as a plain loop.

    python -m corpus_parts.plain_loop INPUT TOKENIZER OUTPUT NUM_TIMES

The loop calls the same functions on the same batches and writes the same attribute files; only
duplicates, which shuffle, become their pure functions over all documents in one list. Prints one
JSON object: seconds of both, alternated, in this one process.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from beam_pipelines import contamination, documents, ingest, rules, secrets, select, tokens
from beam_pipelines.options import local_options
from corpus_parts import ours
from corpus_parts.ours import KEY, SEED, Job
from snowcoder_jax import recipe_corpus
from snowcoder_jax.text import components
from snowcoder_jax.text import duplicates as text_duplicates

Judge = Callable[..., pa.Table]


def judge_and_encode(job: Job) -> None:
    """`ours.judge_and_encode` without Beam."""
    config = job.corpus
    _shard_loop(job, "rules", rules.RULES_SCHEMA, lambda t: rules.judge_batch(t, config.rules))
    _shard_loop(
        job,
        "contamination",
        contamination.CONTAMINATION_SCHEMA,
        lambda t: contamination.judge_batch(t, config.contamination),
    )
    _find_duplicates(job)
    _shard_loop(job, "secrets", secrets.SECRETS_SCHEMA, secrets.find_batch)

    def policy(table: pa.Table, *verdicts: pa.Table) -> pa.Table:
        stages = ("rules", "contamination")
        return select.apply_policy(
            table, *verdicts, stages=stages, permissive_only=True, seed=SEED, heldout_share=0.0
        )

    _shard_loop(job, "policy", select.POLICY_SCHEMA, policy, ("rules", "contamination"))

    def encode(table: pa.Table, spans: pa.Table) -> pa.Table:
        return tokens.encode_documents(table, spans, tokenizer_folder=job.tokenizer)

    _shard_loop(job, "tokens", tokens.SCHEMA, encode, ("secrets",))


def _shard_loop(
    job: Job, stage: str, schema: pa.Schema, judge: Judge, besides: tuple[str, ...] = ()
) -> None:
    for shard in documents.list_shards(job.folder("corpus")):
        others = [
            documents.read_table(documents.attribute_path(job.folder(name), shard))
            for name in besides
        ]
        documents.write_batches(
            documents.attribute_path(job.folder(stage), shard),
            schema,
            _judged(shard, judge, others),
            KEY,
        )


def _judged(shard: documents.Shard, judge: Judge, others: list[pa.Table]) -> Iterator[pa.Table]:
    start = 0
    for batch in _batches(shard):
        yield judge(batch, *(table.slice(start, batch.num_rows) for table in others))
        start += batch.num_rows


def _batches(shard: documents.Shard) -> Iterator[pa.Table]:
    path = documents.storage.join(shard.documents, shard.relative)
    with documents.storage.open_read(path) as f:
        for batch in documents.pq.ParquetFile(f).iter_batches(documents.ROW_GROUP_ROWS):
            yield pa.Table.from_batches([batch])


def _find_duplicates(job: Job) -> None:
    config = job.corpus.duplicates
    sets: list[Any] = []
    keys: list[Any] = []
    for shard in documents.list_shards(job.folder("corpus")):
        for batch in _batches(shard):
            texts = batch["content"].to_pylist()
            keys += [text_duplicates.exact_key(text) for text in texts]
            sets += [text_duplicates.shingles(text, config.ngram_words) for text in texts]
    numbers = np.array([i for i, s in enumerate(sets) if len(s)], np.int64)
    bands = text_duplicates.band_keys([sets[i] for i in numbers], config.bands, config.rows)
    pairs = text_duplicates.candidate_pairs(bands.ravel(), np.repeat(numbers, config.bands))
    near = [p for p in pairs if text_duplicates.jaccard(sets[p[0]], sets[p[1]]) >= config.threshold]
    components.connected_components(np.array(near, np.int64).reshape(-1, 2))


def main() -> None:
    source, tokenizer, output, num_times = sys.argv[1:]
    job = ours.job_of([source, tokenizer, output, "1", "records"])
    shared: dict[str, Any] = {"key": KEY, "options": local_options(1)}
    corpus = recipe_corpus.ParquetSource("input", job.source)
    ingest.run((corpus,), job.corpus, seed=SEED, output=job.folder("corpus"), **shared)
    stages = ("rules", "contamination", "duplicates", "secrets", "policy", "tokens")
    seconds: dict[str, list[float]] = {"beam": [], "plain_loop": []}
    for number in range(int(num_times) + 1):
        for name in seconds:
            for stage in stages:
                shutil.rmtree(job.folder(stage), ignore_errors=True)
            start = time.monotonic()
            if name == "beam":
                ours.judge_and_encode(job, shared)
            else:
                judge_and_encode(job)
            if number:  # the first time warms both up
                seconds[name].append(time.monotonic() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
