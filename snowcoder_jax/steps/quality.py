"""Steps of the quality annotator: the files to score, the annotator, the scores."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from snowcoder_jax import storage
from snowcoder_jax.model.encoder import resolve_encoder
from snowcoder_jax.progress import Progress
from snowcoder_jax.run import Facts
from snowcoder_jax.steps import corpus as corpus_steps
from snowcoder_jax.steps.builder import Builder

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_ANNOTATION = (
    "snowcoder_jax/annotation",
    "snowcoder_jax/model/bert.py",
    "snowcoder_jax/model/encoder.py",
    "snowcoder_jax/problems/positives",
)


def add_steps(b: Builder) -> None:
    """Nothing is scored where no selection asks for it."""
    if not any(s.order == "quality" for s in b.recipe.selections):
        return
    config = b.recipe.annotator
    _add_sample(b, "candidates", config.max_files)
    _add_sample(b, "negatives", config.num_negatives)
    _add_annotator(b)
    _add_scores(b)


def _add_sample(b: Builder, name: str, num_documents: int | None) -> None:
    """A seeded draw of documents, each language in proportion; None takes all of them."""
    recipe = b.recipe
    corpus, policy, tokens = (b.named[n] for n in ("ingest", "policy", "tokens"))
    order = "natural" if num_documents is None else "random"

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import select

        ranking = select.Ranking(
            order, num_documents, {}, recipe.seed, f"annotator {name}", count_documents=True
        )
        cutoffs = select.run_selection(
            select.Inputs(corpus, policy, tokens),
            ranking,
            output=folder,
            key=key,
            options=corpus_steps.options(b),
        )
        return {"documents": sum(c.num_documents for c in cutoffs.values())}

    b.add(
        name,
        inside=b.path("selections"),
        params=(order, num_documents, recipe.seed),
        reads=(corpus, policy, tokens),
        code=("beam_pipelines/select.py", "beam_pipelines/documents.py"),
        work=work,
    )


def _add_annotator(b: Builder) -> None:
    recipe = b.recipe
    corpus, secrets, negatives = (b.named[n] for n in ("ingest", "secrets", "negatives"))

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import texts
        from snowcoder_jax.annotation.head import train_annotator

        documents = list(texts.read_texts(corpus, secrets, texts.selected(negatives)))
        result = train_annotator(
            recipe.annotator,
            seed=recipe.seed,
            negatives=[d.text for d in documents],
            negative_ids=[d.id for d in documents],
            negative_languages=[d.language for d in documents],
            folder=folder,
            on_progress=progress.update,
        )
        return dataclasses.asdict(result)

    files = [p for p in recipe.annotator.positives if p.endswith(".jsonl")]
    weights = storage.join(resolve_encoder(recipe.annotator.encoder), "model.safetensors")
    contents = [storage.sha256_file(path) for path in (weights, *files)]
    b.add(
        "annotator",
        inside=b.path("annotators"),
        params=(dataclasses.replace(recipe.annotator, max_files=None), contents, recipe.seed),
        reads=(corpus, secrets, negatives),
        code=(*_ANNOTATION, "beam_pipelines/texts.py"),
        work=work,
    )


def _add_scores(b: Builder) -> None:
    corpus, secrets, candidates, annotator = (
        b.named[n] for n in ("ingest", "secrets", "candidates", "annotator")
    )

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import quality as stage

        progress.total = _num_candidates(candidates)
        rows = stage.run(
            corpus,
            secrets=secrets,
            candidates=candidates,
            annotator=annotator,
            output=folder,
            key=key,
            options=_one_process(b),
        )
        return {"rows": rows, "scored": progress.total}

    b.add(
        "quality",
        inside=storage.join(corpus, "attributes"),
        prefix="quality-",
        params=None,
        reads=(corpus, secrets, candidates, annotator),
        code=("beam_pipelines/quality.py", *_ANNOTATION),
        work=work,
    )


def _num_candidates(folder: str) -> int:
    cutoffs = storage.read_json(storage.join(folder, "cutoffs.json"))
    return sum(c["num_documents"] for c in cutoffs)


def _one_process(b: Builder) -> PipelineOptions:
    # XLA itself uses all cores for the encoder: worker processes would only divide them.
    from beam_pipelines.options import stage_options

    return stage_options(b.recipe.hardware.beam_options, num_workers=1)
