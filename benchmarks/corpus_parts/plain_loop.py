"""What Beam costs: the judging stages and tokens through Beam, and as a plain loop.

    python -m corpus_parts.plain_loop INPUT TOKENIZER OUTPUT NUM_TIMES

The loop calls the same functions on the same batches and writes attribute files as the stages do;
only duplicates, which shuffle, become their pure functions with all keys in one place. Prints one
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

from beam_pipelines import (
    contamination,
    documents,
    duplicates,
    ingest,
    rules,
    secrets,
    select,
    tokens,
)
from beam_pipelines.options import local_options
from corpus_parts import ours
from corpus_parts.ours import KEY, SEED, Job
from snowcoder_jax import parquet, recipe_corpus
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

    judges = ("rules", "contamination", "duplicates")

    def policy(table: pa.Table, *verdicts: pa.Table) -> pa.Table:
        return select.apply_policy(
            table, *verdicts, stages=judges, permissive_only=True, seed=SEED, heldout_share=0.0
        )

    _shard_loop(
        job, "policy", select.POLICY_SCHEMA, policy, ("rules", "contamination", "duplicates")
    )

    def encode(table: pa.Table, spans: pa.Table) -> pa.Table:
        return tokens.encode_documents(table, spans, tokenizer_folder=job.tokenizer)

    _shard_loop(job, "tokens", tokens.SCHEMA, encode, ("secrets",))


def _shard_loop(
    job: Job, stage: str, schema: pa.Schema, judge: Judge, besides: tuple[str, ...] = ()
) -> None:
    for shard in documents.list_shards(job.folder("corpus")):
        others = [
            parquet.read_table(documents.attribute_path(job.folder(name), shard))
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
    for batch in documents.iter_batches(path, documents.DOCUMENT_SCHEMA.names):
        yield pa.Table.from_batches([batch])


def _find_duplicates(job: Job) -> None:
    """What the stage does, with all keys of the corpus in one place: the text is read for its keys,
    and the candidates' text again for their shingles; the kept of a cluster is the longest."""
    config, num_before = job.corpus.duplicates, 0
    keys, numbers, sizes = [], [], []
    for shard in documents.list_shards(job.folder("corpus")):
        for batch in _batches(shard):
            texts = batch["content"].to_pylist()
            text_duplicates.exact_rows(texts)
            grams = [text_duplicates.word_ngrams(text, config.ngram_words) for text in texts]
            with_words = [i for i, g in enumerate(grams) if len(g)]
            bands = text_duplicates.band_keys(
                [grams[i] for i in with_words], config.bands, config.rows
            )
            keys.append(bands.ravel())
            numbers.append(np.repeat(num_before + np.array(with_words, np.int64), config.bands))
            sizes += [len(text) for text in texts]
            num_before += len(texts)
    pairs = text_duplicates.candidate_pairs(np.concatenate(keys), np.concatenate(numbers))
    sets = _shingles_of(job, set(pairs.ravel().tolist()))
    similarity = [text_duplicates.jaccard(sets[a], sets[b]) for a, b in pairs.tolist()]
    near = pairs[np.array(similarity) >= config.threshold]
    cluster_of = np.arange(num_before)
    labels = components.connected_components(near)
    cluster_of[labels[:, 0]] = labels[:, 1]
    best: dict[int, int] = {}
    for number, cluster in enumerate(cluster_of.tolist()):
        if cluster not in best or sizes[number] > sizes[best[cluster]]:
            best[cluster] = number
    _write_duplicates(job, [number == best[c] for number, c in enumerate(cluster_of.tolist())])


def _shingles_of(job: Job, wanted: set[int]) -> dict[int, Any]:
    sets, number = {}, 0
    for shard in documents.list_shards(job.folder("corpus")):
        for batch in _batches(shard):
            rows = [i for i in range(batch.num_rows) if number + i in wanted]
            texts = batch["content"].take(pa.array(rows, pa.int64())).to_pylist()
            for row, text in zip(rows, texts, strict=True):
                sets[number + row] = text_duplicates.shingles(
                    text, job.corpus.duplicates.ngram_words
                )
            number += batch.num_rows
    return sets


def _write_duplicates(job: Job, kept: list[bool]) -> None:
    start = 0

    def judge(table: pa.Table) -> pa.Table:
        nonlocal start
        is_kept = kept[start : start + table.num_rows]
        start += table.num_rows
        columns = {name: pa.nulls(table.num_rows) for name in duplicates.DUPLICATES_SCHEMA.names}
        columns |= {"id": table["id"], "kept": pa.array(is_kept)}
        columns["verdict"] = pa.array(["pass" if k else "drop" for k in is_kept])
        return pa.table(columns)

    _shard_loop(job, "duplicates", duplicates.DUPLICATES_SCHEMA, judge)


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
