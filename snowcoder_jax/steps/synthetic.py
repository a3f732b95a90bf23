"""Steps of phase 3's data: the teacher writes, the result becomes a corpus like any other."""

from __future__ import annotations

from typing import Any

from snowcoder_jax import storage
from snowcoder_jax.progress import Progress
from snowcoder_jax.recipe import CheckpointTeacher
from snowcoder_jax.run import Facts
from snowcoder_jax.steps import corpus as corpus_steps
from snowcoder_jax.steps.builder import Builder

_SYNTHESIS = (
    "snowcoder_jax/synthesis",
    "snowcoder_jax/text/contamination.py",
    "snowcoder_jax/text/words.py",
    *corpus_steps.CONTAMINATION_CODE,
    "snowcoder_jax/problems/evaluation",
)


def add_steps(b: Builder) -> None:
    if "synthesize" in b.named:
        return
    _add_synthesis(b)
    corpus = b.named["synthesize"]
    columns = storage.join(corpus, "attributes", "synthesis")
    b.named["synthesis columns"] = columns
    b.keys[columns] = b.keys[corpus]
    secrets = corpus_steps.add_secrets(b, "synthetic secrets", corpus)
    _add_policy(b, corpus, columns)
    corpus_steps.add_tokens(b, "synthetic tokens", corpus, secrets)


def _add_synthesis(b: Builder) -> None:
    recipe = b.recipe
    synthesis = recipe.synthesis
    assert synthesis is not None, "recipe_checks lets no synthetic selection pass without one"
    seeds = corpus_steps.add_selection(b, synthesis.seeds)
    corpus, secrets = b.named["ingest"], b.named["secrets"]
    quality = b.named.get("quality")
    teacher = synthesis.teacher
    reads = [corpus, secrets, seeds, b.named["tokenizer"]]
    if isinstance(teacher, CheckpointTeacher):
        reads.append(b.named[f"train {teacher.phase}"])

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import texts
        from snowcoder_jax.synthesis.generate import synthesize
        from snowcoder_jax.synthesis.seeds import SeedDocument
        from snowcoder_jax.synthesis.teachers import make_teacher
        from snowcoder_jax.text.contamination import ContaminationIndex
        from snowcoder_jax.tokenizer import Tokenizer
        from snowcoder_jax.training.checkpoints import load_params

        scores = texts.values_by_id(quality, corpus, "score") if quality else {}
        documents = [
            SeedDocument(d.id, d.repo, d.path, d.language, d.text, scores.get(d.id, 0.0), d.license)
            for d in texts.read_texts(corpus, secrets, texts.selected(seeds))
        ]

        def load_checkpoint(phase: str) -> tuple[dict[str, Any], str]:
            checkpoint = b.named[f"train {phase}"]
            return load_params(checkpoint), b.keys[checkpoint]

        tokenizer = Tokenizer.load(b.named["tokenizer"])
        config = recipe.corpus.contamination
        return synthesize(
            recipe,
            seed_documents=documents,
            teacher=make_teacher(recipe, tokenizer, load_checkpoint),
            tokenizer=tokenizer,
            contamination=ContaminationIndex.from_benchmarks(config.benchmarks, config.ngram_words),
            folder=folder,
            key=key,
            on_progress=progress.update,
        )

    b.add(
        "synthesize",
        inside=b.path("synthetic"),
        params=(synthesis, recipe.corpus.contamination, recipe.seed),
        reads=tuple(reads),
        code=_SYNTHESIS,
        work=work,
    )


def _add_policy(b: Builder, corpus: str, columns: str) -> None:
    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import select

        # Its seeds' licences were judged already, and nothing of it is held out.
        rows = select.run_policy(
            corpus,
            verdicts={"synthesis": columns},
            permissive_only=False,
            seed=b.recipe.seed,
            heldout_share=0.0,
            output=folder,
            key=key,
            options=corpus_steps.options(b),
        )
        return {"rows": rows}

    b.add(
        "synthetic policy",
        inside=storage.join(corpus, "attributes"),
        prefix="policy-",
        params=None,
        reads=(corpus, columns),
        code=("beam_pipelines/select.py", "beam_pipelines/documents.py"),
        work=work,
    )
