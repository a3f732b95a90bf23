"""Decontamination over a corpus: documents that repeat a benchmark, with what they repeat."""

from __future__ import annotations

import functools

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import documents
from beam_pipelines.documents import VERDICT_FIELDS
from snowcoder_jax import recipe_corpus
from snowcoder_jax.text import benchmarks, reader
from snowcoder_jax.text import contamination as text_contamination
from snowcoder_jax.text.contamination import Match

CONTAMINATION_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        *VERDICT_FIELDS,
        pa.field("benchmark", pa.string()),
        pa.field("item", pa.string()),
        pa.field("match", pa.string()),  # the repeated part, as it stands in the document
        pa.field("method", pa.string()),  # "exact", "ngram" or "function"
    ]
)

RULE = "contaminated"
_UNREADABLE = {"verdict": "error", "rule": "notebook"}


def judge_batch(table: pa.Table, config: recipe_corpus.Contamination) -> pa.Table:
    """`id`, verdict and the first match of each document; a notebook is judged as a script."""
    index = text_contamination.cached_index(config.benchmarks, config.ngram_words)
    languages = table["language"].to_pylist()
    texts = [
        _script(content, language)
        for content, language in zip(table["content"].to_pylist(), languages, strict=True)
    ]
    matches = index.find_all([text or "" for text in texts], languages)
    rows = [
        {"id": identity, **(_UNREADABLE if text is None else _columns(match))}
        for identity, text, match in zip(table["id"].to_pylist(), texts, matches, strict=True)
    ]
    return pa.Table.from_pylist(rows, CONTAMINATION_SCHEMA)


def _script(content: str, language: str) -> str | None:
    """The text, of a notebook its script; None where that cannot be had."""
    try:
        return reader.clean_text(content, language, ())
    except ValueError:
        return None


def _columns(match: Match | None) -> dict[str, str]:
    """The columns that are not null."""
    if match is None:
        return {"verdict": "pass"}
    return {
        "verdict": "drop",
        "rule": RULE,
        "benchmark": match.benchmark,
        "item": match.item,
        "match": reader.clean_name(match.text),  # shown by `why` and `inspect`
        "method": match.method,
    }


def run(
    corpus: str,
    config: recipe_corpus.Contamination,
    *,
    output: str,
    key: str,
    options: PipelineOptions,
) -> int:
    """Judge every document of a corpus; returns the number of rows.

    Raises:
      InputError: a benchmark file is missing or in no known format.
    """
    # Read here first, so that a faulty file is a message before any work.
    benchmarks.read_benchmarks(config.benchmarks)
    return documents.run_on_shards(
        functools.partial(judge_batch, config=config),
        CONTAMINATION_SCHEMA,
        corpus=corpus,
        output=output,
        key=key,
        options=options,
        columns=("id", "language", "content"),
    )


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("contamination")
