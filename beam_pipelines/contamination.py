"""Decontamination over a corpus: documents that repeat a benchmark, with what they repeat."""

from __future__ import annotations

import functools

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents
from beam_pipelines.documents import VERDICT_FIELDS
from snowcoder_jax import recipe
from snowcoder_jax.text import contamination as text_contamination

CONTAMINATION_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        *VERDICT_FIELDS,
        pa.field("benchmark", pa.string()),
        pa.field("item", pa.string()),
        pa.field("match", pa.string()),  # the repeated part, as it stands in the document
    ]
)

RULE = "contaminated"


def judge_batch(table: pa.Table, config: recipe.Contamination) -> pa.Table:
    """`id`, verdict and the first match of each document."""
    index = text_contamination.cached_index(config.benchmarks, config.ngram_words)
    rows = []
    columns = (table[name].to_pylist() for name in ("id", "content"))
    for identity, content in zip(*columns, strict=True):
        match = index.find(content)
        rows.append(
            {
                "id": identity,
                "verdict": "pass" if match is None else "drop",
                "rule": None if match is None else RULE,
                "benchmark": None if match is None else match.benchmark,
                "item": None if match is None else match.item,
                "match": None if match is None else match.text,
            }
        )
    return pa.Table.from_pylist(rows, CONTAMINATION_SCHEMA)


def run(
    corpus: str,
    config: recipe.Contamination,
    *,
    output: str,
    key: str,
    options: PipelineOptions,
) -> int:
    """Judge every document of a corpus; returns the number of rows.

    Raises:
      InputError: a benchmark file is missing or in no known format.
    """
    # Built here first, so that a faulty file is a message and not a worker's traceback.
    text_contamination.cached_index(config.benchmarks, config.ngram_words)
    return documents.run_on_shards(
        functools.partial(judge_batch, config=config),
        CONTAMINATION_SCHEMA,
        corpus=corpus,
        output=output,
        key=key,
        options=options,
        columns=("id", "content"),
    )
