"""The file rules over a corpus: signals and verdict beside every document."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents
from beam_pipelines.documents import VERDICT_FIELDS
from snowcoder_jax import recipe
from snowcoder_jax.text import rules as text_rules
from snowcoder_jax.text.rules import Signals

_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
SIGNAL_FIELDS = [
    pa.field(f.name, _TYPES[str(f.type)])  # annotations are strings in that module
    for f in dataclasses.fields(Signals)
]
RULES_SCHEMA = pa.schema([pa.field("id", pa.string()), *VERDICT_FIELDS, *SIGNAL_FIELDS])

_NO_SIGNALS: dict[str, Any] = {f.name: None for f in dataclasses.fields(Signals)}


def judge_batch(table: pa.Table, rules: recipe.Rules) -> pa.Table:
    """`id`, verdict and signals (null on an error) of each document."""
    rows = []
    columns = (table[name].to_pylist() for name in ("id", "language", "content"))
    for identity, language, content in zip(*columns, strict=True):
        signals, verdict = text_rules.judge_document(content, language, rules)
        measured = dataclasses.asdict(signals) if signals is not None else _NO_SIGNALS
        rows.append({"id": identity, **dataclasses.asdict(verdict), **measured})
    return pa.Table.from_pylist(rows, RULES_SCHEMA)


def run(
    corpus: str, rules: recipe.Rules, *, output: str, key: str, options: PipelineOptions
) -> int:
    """Judge every document of a corpus; returns the number of rows."""
    return documents.run_on_shards(
        functools.partial(judge_batch, rules=rules),
        RULES_SCHEMA,
        corpus=corpus,
        output=output,
        key=key,
        options=options,
        columns=("id", "language", "content"),
    )
