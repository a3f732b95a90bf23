"""The quality stage: the annotator's score of every candidate document.

Columns: `id`; `score` (float32 from 0 to 1; null where the document is no candidate or has no
text); `sections` (the scores of its windows, top to bottom, of which it is the mean; null too).
"""

from __future__ import annotations

import contextlib
import functools

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.documents import run_on_shards
from snowcoder_jax import progress
from snowcoder_jax.annotation.score import Scorer
from snowcoder_jax.text.reader import clean_text

QUALITY_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("sections", pa.list_(pa.float32())),
    ]
)

_scorer = functools.lru_cache(maxsize=1)(Scorer)


def score_rows(
    annotator: str, documents: pa.Table, secrets: pa.Table, candidates: pa.Table
) -> pa.Table:
    """The stage's columns for some rows; secrets are redacted before anything is scored."""
    texts = _texts(documents, secrets["spans"], candidates["selected"].to_pylist())
    scores: list[float | None] = [None] * documents.num_rows
    sections: list[list[float] | None] = [None] * documents.num_rows
    if texts:
        found = _scorer(annotator).score(list(texts.values()), on_documents=progress.advance)
        for i, score, parts in zip(texts, *found, strict=True):
            scores[i], sections[i] = float(score), parts.tolist()
    return pa.table(
        {
            "id": documents["id"],
            "score": pa.array(scores, pa.float32()),
            "sections": pa.array(sections, pa.list_(pa.float32())),
        }
    )


def _texts(
    documents: pa.Table, spans: pa.ChunkedArray, selected: list[bool | None]
) -> dict[int, str]:
    """The text of each selected row. One whose secrets are not known, or that cannot be read
    (a broken notebook), has none: it stays without a score, which is never a high one."""
    texts: dict[int, str] = {}
    for i, chosen in enumerate(selected):
        if chosen and spans[i].is_valid:
            content, language = documents["content"][i].as_py(), documents["language"][i].as_py()
            with contextlib.suppress(ValueError):
                texts[i] = clean_text(content, language, spans[i].as_py())
    return texts


def run(
    corpus: str,
    *,
    secrets: str,
    candidates: str,
    annotator: str,
    output: str,
    key: str,
    options: PipelineOptions,
) -> int:
    """Score the candidates of every shard that is not done under `key`; returns the rows in all.

    Args:
      secrets: folder of the secrets stage, for its `spans`.
      candidates: folder with the corpus's rows and a bool column `selected`; a null is no.
      annotator: `annotators/<hash>/`; output: this stage's folder.
    """
    return run_on_shards(
        functools.partial(score_rows, annotator),
        QUALITY_SCHEMA,
        corpus=corpus,
        output=output,
        key=key,
        options=options,
        columns=("id", "language", "content"),
        attributes=(secrets, candidates),
    )


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("quality")
