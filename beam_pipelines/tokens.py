"""The tokens stage: each document's ids, stored once; packing only joins them."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents
from beam_pipelines.documents import VERDICT_FIELDS
from beam_pipelines.texts import readable_text
from snowcoder_jax.tokenizer import Tokenizer

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        *VERDICT_FIELDS,
        ("num_tokens", pa.int32()),
        ("ids", pa.list_(pa.int32())),
    ]
)

# Each batch begins by holding the fast encoder against the Hugging Face one, on so much text of
# so many of its documents: that one is ten times slower, and all of a batch is some megabytes.
NUM_CHECKED_DOCUMENTS = 4
NUM_CHECKED_CHARACTERS = 1024


def encode_documents(table: pa.Table, secrets: pa.Table, *, tokenizer_folder: str) -> pa.Table:
    """Ids of cleaned text; a document that cannot be read gets the verdict "error" and no ids."""
    tokenizer = Tokenizer.load(tokenizer_folder)
    columns = (table["content"], table["language"], secrets["spans"])
    rows = zip(*(c.to_pylist() for c in columns), strict=True)
    texts = [readable_text(*row) for row in rows]
    readable = [text for text in texts if text is not None]
    tokenizer.check_agreement(
        [text[:NUM_CHECKED_CHARACTERS] for text in readable[:NUM_CHECKED_DOCUMENTS]]
    )
    nothing = np.zeros(0, np.int32)
    ids = [nothing if text is None else tokenizer.encode_array(text) for text in texts]
    unreadable = np.array([text is None for text in texts], np.bool_)
    num_tokens = np.array([len(i) for i in ids], np.int32)
    null = pa.nulls(len(ids), pa.float64())
    return pa.table(
        [
            table["id"],
            pa.array(np.where(unreadable, "error", "pass")),
            pa.array(np.where(unreadable, "unreadable", ""), pa.string(), mask=~unreadable),
            null,
            null,
            pa.array(num_tokens),
            _lists(ids, num_tokens, unreadable),
        ],
        schema=SCHEMA,
    )


def _lists(
    ids: list[npt.NDArray[np.int32]],
    num_tokens: npt.NDArray[np.int32],
    is_null: npt.NDArray[np.bool_],
) -> pa.ListArray:
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(num_tokens, dtype=np.int32)])
    flat = np.concatenate([np.zeros(0, np.int32), *ids])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=pa.array(is_null))


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
        attribute_columns=("id", "spans"),
    )


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("tokens")
