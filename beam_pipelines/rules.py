"""The file rules over a corpus: signals and verdict beside every document."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents
from beam_pipelines.documents import VERDICT_FIELDS
from snowcoder_jax import recipe_corpus
from snowcoder_jax.text import rules as text_rules
from snowcoder_jax.text.rule_table import SIGNALS

_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
SIGNAL_FIELDS = [pa.field(name, _TYPES[kind]) for name, (kind, _) in SIGNALS.items()]
RULES_SCHEMA = pa.schema([pa.field("id", pa.string()), *VERDICT_FIELDS, *SIGNAL_FIELDS])


def judge_batch(table: pa.Table, rules: recipe_corpus.Rules) -> pa.Table:
    """`id`, verdict and signals (null where not measured) of each document."""
    contents = table["content"].cast(pa.large_binary()).to_pylist()
    languages, paths = table["language"].to_pylist(), table["path"].to_pylist()
    judged = text_rules.judge_documents(contents, languages, paths, rules)
    columns = [table["id"]]
    for field in VERDICT_FIELDS:
        columns.append(pa.array([getattr(v, field.name) for v in judged.verdicts], field.type))
    for field in SIGNAL_FIELDS:
        values = judged.signals[field.name]
        columns.append(pa.array(values, mask=np.isnan(values)).cast(field.type))
    return pa.table(columns, RULES_SCHEMA)


def run(
    corpus: str, rules: recipe_corpus.Rules, *, output: str, key: str, options: PipelineOptions
) -> int:
    """Judge every document of a corpus; returns the number of rows."""
    return documents.run_on_shards(
        functools.partial(judge_batch, rules=rules),
        RULES_SCHEMA,
        corpus=corpus,
        output=output,
        key=key,
        options=options,
        columns=("id", "path", "language", "content"),
    )


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("rules")
