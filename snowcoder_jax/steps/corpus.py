"""Steps from sources to token ids: ingest, the judging stages, policy, tokenizer, tokens."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from snowcoder_jax import base_model, sources, storage
from snowcoder_jax.progress import Progress
from snowcoder_jax.recipe_corpus import Duplicates
from snowcoder_jax.run import Facts
from snowcoder_jax.steps.builder import Builder, Work
from snowcoder_jax.text.contamination import fingerprint

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

READER_CODE = tuple(
    f"snowcoder_jax/text/{name}.py"
    for name in (
        "reader",
        "secrets",
        "secret_shapes",
        "secret_values",
        "personal_data",
        "json_strings",
    )
)
DOCUMENTS = ("beam_pipelines/documents.py", "snowcoder_jax/parquet.py")
CONTAMINATION_CODE = tuple(
    f"snowcoder_jax/text/{name}.py"
    for name in ("benchmarks", "boilerplate", "functions", "function_anchors")
)
_RULES_CODE = tuple(
    f"snowcoder_jax/text/{name}.py"
    for name in (
        "rule_table",
        "signals",
        "encoded",
        "generated",
        "lexing",
        "code_signals",
        "word_signals",
        "grammars",
        "parsing",
        "parse_worker",
    )
)
_DUPLICATES_CODE = (
    "beam_pipelines/duplicate_candidates.py",
    "beam_pipelines/duplicate_pairs.py",
    "beam_pipelines/duplicate_clusters.py",
    "beam_pipelines/int_rows.py",
    "snowcoder_jax/text/components.py",
    "snowcoder_jax/text/licenses.py",
)
# Of a cluster a document that passes these is kept before others.
_JUDGES_BEFORE_DUPLICATES = ("rules", "contamination")
_SHARD = storage.MANIFEST_SUFFIX
# Documents whose ids are compared with Hugging Face's, and whose bytes a token are told.
_NUM_PROBED = 200


def options(b: Builder) -> PipelineOptions:
    """How the recipe runs its corpus stages; no result, and no key, depends on it."""
    from beam_pipelines.options import stage_options

    return stage_options(b.recipe.hardware.beam_options, b.recipe.hardware.beam_workers)


def end_workers() -> None:
    """End the processes that corpus stages have kept: training may need their memory."""
    if workers := sys.modules.get("beam_pipelines.workers"):
        workers.close()


def add_steps(b: Builder) -> None:
    _add_ingest(b)
    add_judges(b, "", b.named["ingest"], b.recipe.corpus.duplicates)
    add_secrets(b, "secrets", b.named["ingest"])
    _add_policy(b)
    _add_tokenizer(b)
    add_tokens(b, "tokens", b.named["ingest"], b.named["secrets"])


def _num_shards(b: Builder) -> int:
    return b.recipe.corpus.num_shards * len(b.recipe.sources)


def _add_ingest(b: Builder) -> None:
    recipe, config = b.recipe, b.recipe.corpus

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import ingest

        return ingest.run(
            recipe.sources,
            config,
            seed=recipe.seed,
            output=folder,
            key=key,
            options=options(b),
        )

    opted_out = sources.load_opt_out(config.opt_out)
    limits = sources.Limits(config.max_file_bytes, opted_out)
    fingerprints = [sources.fingerprint(s, limits, seed=recipe.seed) for s in recipe.sources]
    shape = (
        config.num_shards,
        config.max_file_bytes,
        sorted(opted_out),
        recipe.seed,
        recipe.sources,
        fingerprints,
    )
    b.add(
        "ingest",
        inside=b.path("corpora"),
        params=shape,
        code=(
            "beam_pipelines/ingest.py",
            "beam_pipelines/exchange.py",
            "snowcoder_jax/sources",
            "snowcoder_jax/languages.py",
            "snowcoder_jax/text/license_names.py",
            "snowcoder_jax/text/licenses.py",
            "snowcoder_jax/text/license_headers.py",
            "snowcoder_jax/text/license_notices.py",
            *DOCUMENTS,
        ),
        work=work,
        watch_suffix=_SHARD,
        total=_num_shards(b),
    )


def add_judges(
    b: Builder,
    prefix: str,
    corpus: str,
    compared: Duplicates,
    references: tuple[str, ...] = (),
    heads: str | None = None,
) -> None:
    """The judging stages over any corpus (the synthetic one too).

    Args:
      prefix: of the steps' names.
      compared: what is a duplicate. references, heads: of `beam_pipelines.duplicates.run`.
    """
    config = b.recipe.corpus
    inside = storage.join(corpus, "attributes")
    before_duplicates = [f"{prefix}{name}" for name in _JUDGES_BEFORE_DUPLICATES]

    def rules(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import rules as stage

        rows = stage.run(corpus, config.rules, output=folder, key=key, options=options(b))
        return {"rows": rows}

    def duplicates(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import duplicates as stage

        rows = stage.run(
            corpus,
            compared,
            output=folder,
            key=key,
            options=options(b),
            verdicts=[b.named[name] for name in before_duplicates],
            references=references,
            heads=heads,
        )
        return {"rows": rows}

    def contamination(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import contamination as stage

        rows = stage.run(corpus, config.contamination, output=folder, key=key, options=options(b))
        return {"rows": rows}

    benchmarks = fingerprint(config.contamination.benchmarks)
    judges: dict[str, tuple[Work, object]] = {
        "rules": (rules, config.rules),
        "contamination": (contamination, (config.contamination, benchmarks)),
        "duplicates": (duplicates, compared),
    }
    for name, (work, params) in judges.items():
        code: tuple[str, ...] = (f"beam_pipelines/{name}.py", f"snowcoder_jax/text/{name}.py")
        code += ("snowcoder_jax/text/words.py",)
        if name == "rules":
            code += _RULES_CODE
        if name == "contamination":
            code += (*CONTAMINATION_CODE, "snowcoder_jax/problems/evaluation")
        reads = [corpus]
        if name == "duplicates":
            code += _DUPLICATES_CODE
            reads += [b.named[judge] for judge in before_duplicates]
            reads += [folder for folder in (*references, heads) if folder]
        b.add(
            f"{prefix}{name}",
            inside=inside,
            prefix=f"{name}-",
            params=params,
            reads=tuple(reads),
            code=(*code, *READER_CODE, *DOCUMENTS),
            work=work,
            watch_suffix=_SHARD,
            total=_num_shards(b),
        )


def add_secrets(b: Builder, name: str, corpus: str) -> str:
    """The secrets stage over any corpus (the synthetic one too)."""

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import secrets as stage

        rows = stage.run(corpus, output=folder, key=key, options=options(b))
        return {"rows": rows}

    return b.add(
        name,
        inside=storage.join(corpus, "attributes"),
        prefix="secrets-",
        params=None,
        reads=(corpus,),
        code=("beam_pipelines/secrets.py", *READER_CODE, *DOCUMENTS),
        work=work,
        watch_suffix=_SHARD,
        total=_num_shards(b),
    )


def _add_policy(b: Builder) -> None:
    recipe = b.recipe
    corpus = b.named["ingest"]
    verdicts = {name: b.named[name] for name in ("rules", "duplicates", "contamination")}

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import select

        rows = select.run_policy(
            corpus,
            verdicts=verdicts,
            permissive_only=recipe.corpus.licenses == "permissive",
            seed=recipe.seed,
            heldout_share=recipe.corpus.heldout_share,
            output=folder,
            key=key,
            options=options(b),
        )
        return {"rows": rows}

    b.add(
        "policy",
        inside=storage.join(corpus, "attributes"),
        prefix="policy-",
        params=(recipe.corpus.licenses, recipe.seed, recipe.corpus.heldout_share),
        reads=(corpus, *verdicts.values()),
        code=("beam_pipelines/select.py", "snowcoder_jax/text/licenses.py", *DOCUMENTS),
        work=work,
        watch_suffix=_SHARD,
        total=_num_shards(b),
    )


def _add_tokenizer(b: Builder) -> None:
    recipe = b.recipe
    corpus, secrets, policy = (b.named[n] for n in ("ingest", "secrets", "policy"))

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import texts
        from snowcoder_jax import tokenizer

        total = texts.total_bytes(corpus, policy, "train")
        share = min(1.0, recipe.tokenizer.sample_bytes / max(1, total))
        choose = texts.sampled(
            texts.in_split(policy, "train"),
            corpus,
            share=share,
            seed=recipe.seed,
            purpose="tokenizer",
        )
        probe: list[str] = []
        num_documents = 0

        def sample() -> Iterator[str]:
            nonlocal num_documents
            for document in texts.read_texts(corpus, secrets, choose):
                num_documents += 1
                if len(probe) < _NUM_PROBED:
                    probe.append(document.text)
                yield document.text

        if recipe.base_model is None:
            tokenizer.train(sample(), recipe.tokenizer.vocab_size, folder)
        else:
            tokenizer.copy_files(recipe.base_model, folder)
            deque(itertools.islice(sample(), _NUM_PROBED), maxlen=0)
        trained = tokenizer.Tokenizer.load(folder)
        trained.check_agreement(probe)
        num_tokens = sum(len(ids) for ids in trained.encode_batch(probe))
        return {
            "vocab_size": trained.vocab_size,
            "sample_documents": num_documents,
            "bytes_per_token": sum(len(t.encode()) for t in probe) / max(1, num_tokens),
        }

    taken = (base_model.tokenizer_fingerprint(recipe.base_model),) if recipe.base_model else ()
    b.add(
        "tokenizer",
        inside=b.path("tokenizers"),
        params=(recipe.tokenizer, recipe.seed, *taken),
        reads=(corpus, secrets, policy),
        code=("snowcoder_jax/tokenizer.py", "beam_pipelines/texts.py", *READER_CODE),
        work=work,
    )


def add_tokens(b: Builder, name: str, corpus: str, secrets: str) -> str:
    """The tokens stage over any corpus (the synthetic one too)."""
    tokenizer = b.named["tokenizer"]

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import tokens as stage

        rows = stage.run(
            corpus,
            secrets=secrets,
            tokenizer=tokenizer,
            output=folder,
            key=key,
            options=options(b),
        )
        return {"rows": rows}

    return b.add(
        name,
        inside=storage.join(corpus, "attributes"),
        prefix="tokens-",
        params=None,
        reads=(corpus, secrets, tokenizer),
        code=(
            "beam_pipelines/tokens.py",
            "beam_pipelines/texts.py",
            "snowcoder_jax/tokenizer.py",
            *READER_CODE,
            *DOCUMENTS,
        ),
        work=work,
        watch_suffix=_SHARD,
        total=_num_shards(b),
    )


def add_selection(b: Builder, name: str) -> str:
    """Select by the recipe's selection `name`; adds the step once."""
    step = f"select {name}"
    if step in b.named:
        return b.named[step]
    recipe, selection = b.recipe, b.recipe.selection(name)
    synthetic = selection.source == "synthetic"
    prefix = "synthetic " if synthetic else ""
    corpus = b.named["synthesize" if synthetic else "ingest"]
    policy, tokens = b.named[f"{prefix}policy"], b.named[f"{prefix}tokens"]
    quality = b.named["quality"] if selection.order == "quality" else None

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import select

        inputs = select.Inputs(corpus, policy, tokens, quality)
        ranking = select.ranking_of(selection, recipe.seed)
        cutoffs = select.run_selection(inputs, ranking, output=folder, key=key, options=options(b))
        return {"cutoffs": {k: dataclasses.asdict(c) for k, c in cutoffs.items()}}

    return b.add(
        step,
        inside=b.path("selections"),
        params=(
            selection.order,
            selection.tokens,
            selection.language_shares,
            recipe.seed,
            name if selection.order == "random" else None,
        ),
        reads=tuple(f for f in (corpus, policy, tokens, quality) if f),
        code=("beam_pipelines/select.py", *DOCUMENTS),
        work=work,
    )
