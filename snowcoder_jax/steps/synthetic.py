"""Steps of phase 3's data: seeds, a teacher's answers, a corpus made of them like any other."""

from __future__ import annotations

import dataclasses

from snowcoder_jax import storage
from snowcoder_jax.progress import Progress
from snowcoder_jax.recipe_synthesis import Synthesis
from snowcoder_jax.run import Facts
from snowcoder_jax.steps import asking
from snowcoder_jax.steps import corpus as corpus_steps
from snowcoder_jax.steps.builder import Builder

PREFIX = "synthetic "

_SEEDS_CODE = (
    "beam_pipelines/seeds.py",
    "snowcoder_jax/synthesis/seeds.py",
    "beam_pipelines/texts.py",
    *corpus_steps.READER_CODE,
    *corpus_steps.DOCUMENTS,
)
_ACCEPT_CODE = (
    "beam_pipelines/accept.py",
    *(
        f"snowcoder_jax/synthesis/{name}.py"
        for name in ("accept", "completion", "execution", "replies")
    ),
    *(
        f"snowcoder_jax/text/{name}.py"
        for name in ("grammars", "parsing", "parse_worker", "reader", "words")
    ),
    *corpus_steps.DOCUMENTS,
)


def add_steps(b: Builder) -> None:
    """Add all steps up to the token ids of the synthetic corpus, once."""
    if "synthesize" in b.named:
        return
    synthesis = b.recipe.synthesis
    assert synthesis is not None, "recipe_checks lets no synthetic selection pass without one"
    _add_seeds(b, synthesis)
    asking.add_step(b)
    corpus = _add_corpus(b, synthesis)
    columns = storage.join(corpus, "attributes", "synthesis")
    b.named["synthesis columns"] = columns
    b.keys[columns] = b.keys[corpus]
    corpus_steps.add_judges(
        b,
        PREFIX,
        corpus,
        dataclasses.replace(b.recipe.corpus.duplicates, threshold=synthesis.max_similarity),
        references=(b.named["ingest"],),
        heads=columns,
    )
    secrets = corpus_steps.add_secrets(b, f"{PREFIX}secrets", corpus)
    _add_policy(b, corpus)
    corpus_steps.add_tokens(b, f"{PREFIX}tokens", corpus, secrets)


def _add_seeds(b: Builder, synthesis: Synthesis) -> None:
    from snowcoder_jax.synthesis.accept import usable_languages

    selection = corpus_steps.add_selection(b, synthesis.seeds)
    corpus, secrets, quality = b.named["ingest"], b.named["secrets"], b.named.get("quality")
    languages = usable_languages(synthesis.teacher.mode)

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import seeds as stage

        job = stage.SeedJob(
            corpus=corpus,
            secrets=secrets,
            selection=selection,
            quality=quality,
            usable_languages=languages,
            num_seeds=synthesis.num_seeds,
            language_shares=synthesis.language_shares,
            seed=b.recipe.seed,
        )
        return stage.run(job, output=folder, key=key, options=corpus_steps.options(b))

    b.add(
        "synthesize seeds",
        inside=b.path("synthetic"),
        prefix="seeds-",
        params=(synthesis.num_seeds, synthesis.language_shares, languages, b.recipe.seed),
        reads=tuple(folder for folder in (corpus, secrets, selection, quality) if folder),
        code=_SEEDS_CODE,
        work=work,
    )


def _add_corpus(b: Builder, synthesis: Synthesis) -> str:
    ask, seeds, tokenizer = (b.named[n] for n in (asking.STEP, "synthesize seeds", "tokenizer"))
    sandbox = b.recipe.evaluation.sandbox

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import accept as stage
        from beam_pipelines.seeds import read_facts

        return stage.run(
            ask,
            tokenizer=tokenizer,
            sandbox=sandbox,
            seed_facts=read_facts(seeds),
            output=folder,
            key=key,
            options=corpus_steps.options(b),
        )

    return b.add(
        "synthesize",
        inside=b.path("synthetic"),
        params=sandbox if synthesis.run_python else None,
        reads=(ask, tokenizer),
        code=_ACCEPT_CODE,
        work=work,
    )


def _add_policy(b: Builder, corpus: str) -> None:
    verdicts = {
        "synthesis": b.named["synthesis columns"],
        **{n: b.named[f"{PREFIX}{n}"] for n in ("rules", "duplicates", "contamination")},
    }

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import select

        # Its seeds' licences were judged already, and nothing of it is held out.
        rows = select.run_policy(
            corpus,
            verdicts=verdicts,
            permissive_only=False,
            seed=b.recipe.seed,
            heldout_share=0.0,
            output=folder,
            key=key,
            options=corpus_steps.options(b),
        )
        return {"rows": rows}

    b.add(
        f"{PREFIX}policy",
        inside=storage.join(corpus, "attributes"),
        prefix="policy-",
        params=None,
        reads=(corpus, *verdicts.values()),
        code=("beam_pipelines/select.py", *corpus_steps.DOCUMENTS),
        work=work,
    )
