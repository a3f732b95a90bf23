"""Secrets and personal data over a corpus: byte spans beside every document, nothing else."""

from __future__ import annotations

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents
from beam_pipelines.documents import VERDICT_FIELDS
from snowcoder_jax.text import secrets as text_secrets

SPAN_TYPE = pa.struct(
    [
        pa.field("start", pa.int32()),  # bytes of the raw content in UTF-8
        pa.field("end", pa.int32()),
        pa.field("kind", pa.string()),
    ]
)
SECRETS_SCHEMA = pa.schema(
    [pa.field("id", pa.string()), *VERDICT_FIELDS, pa.field("spans", pa.list_(SPAN_TYPE))]
)


def find_batch(table: pa.Table) -> pa.Table:
    """`id`, a pass (secrets are redacted, no document is dropped for them) and the spans."""
    num_rows = table.num_rows
    columns = (table[name].to_pylist() for name in ("content", "language"))
    spans = [text_secrets.find_spans(*row) for row in zip(*columns, strict=True)]
    nothing = pa.nulls(num_rows)
    return pa.Table.from_arrays(
        [
            table["id"].combine_chunks(),
            pa.array(["pass"] * num_rows, pa.string()),
            nothing.cast(pa.string()),
            nothing.cast(pa.float64()),
            nothing.cast(pa.float64()),
            pa.array(spans, pa.list_(SPAN_TYPE)),
        ],
        schema=SECRETS_SCHEMA,
    )


def run(corpus: str, *, output: str, key: str, options: PipelineOptions) -> int:
    """Find the secrets of every document; returns the number of rows."""
    return documents.run_on_shards(
        find_batch,
        SECRETS_SCHEMA,
        corpus=corpus,
        output=output,
        key=key,
        options=options,
        columns=("id", "language", "content"),
    )


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("secrets")
