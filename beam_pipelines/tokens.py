"""The tokens stage: each document's ids, stored once; packing only joins them."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents
from beam_pipelines.documents import VERDICT_FIELDS
from snowcoder_jax.text.reader import clean_text
from snowcoder_jax.tokenizer import Tokenizer

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        *VERDICT_FIELDS,
        ("num_tokens", pa.int32()),
        ("ids", pa.list_(pa.int32())),
    ]
)

# Documents per batch on which the fast encoder is held against the Hugging Face one.
NUM_CHECKED = 2


def encode_documents(table: pa.Table, secrets: pa.Table, *, tokenizer_folder: str) -> pa.Table:
    """Ids of cleaned text; a document that cannot be read gets the verdict "error" and no ids."""
    tokenizer = Tokenizer.load(tokenizer_folder)
    texts: list[str | None] = []
    columns = (table["content"], table["language"], secrets["spans"])
    for content, language, spans in zip(*(c.to_pylist() for c in columns), strict=True):
        try:
            texts.append(clean_text(content, language, spans))
        except ValueError:
            texts.append(None)
    tokenizer.check_agreement([t for t in texts if t is not None][:NUM_CHECKED])
    ids = [None if text is None else tokenizer.encode_array(text) for text in texts]
    num_tokens = np.array([0 if i is None else len(i) for i in ids], np.int32)
    unreadable = np.array([i is None for i in ids], np.bool_)
    flat = np.concatenate([np.zeros(0, np.int32), *(i for i in ids if i is not None)])
    nothing = pa.nulls(len(ids), pa.float64())
    return pa.table(
        [
            table["id"],
            pa.array(np.where(unreadable, "error", "pass")),
            pa.array(np.where(unreadable, "unreadable", ""), pa.string(), mask=~unreadable),
            nothing,
            nothing,
            pa.array(num_tokens),
            pa.ListArray.from_arrays(
                pa.array(np.concatenate([[0], np.cumsum(num_tokens)]), pa.int32()),
                pa.array(flat),
                mask=pa.array(unreadable),
            ),
        ],
        schema=SCHEMA,
    )


def run(
    corpus: str,
    *,
    secrets: str,
    tokenizer: str,
    output: str,
    key: str,
    options: PipelineOptions,
) -> int:
    """Encode every document of `corpus`; returns the number of rows."""
    return documents.run_on_shards(
        functools.partial(encode_documents, tokenizer_folder=tokenizer),
        SCHEMA,
        corpus=corpus,
        output=output,
        key=key,
        options=options,
        columns=("id", "language", "content"),
        attributes=(secrets,),
    )
