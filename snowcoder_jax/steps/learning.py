"""Steps that learn and measure: pack, train, evaluate, compare, baseline, report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from snowcoder_jax import base_model, storage, strict
from snowcoder_jax import packed as packed_format
from snowcoder_jax.evaluation import sandbox
from snowcoder_jax.progress import Progress
from snowcoder_jax.recipe import Phase, Recipe
from snowcoder_jax.run import Facts
from snowcoder_jax.steps import corpus as corpus_steps
from snowcoder_jax.steps.builder import Builder

if TYPE_CHECKING:
    from snowcoder_jax.evaluation.evaluate import HeldoutDocument

# Raised by hand when a change of the step makes earlier results incomparable. The code itself is
# not part of a training key: a commit must not throw away weeks of a run.
TRAIN_VERSION = 1


def add_phase(b: Builder, phase: Phase) -> None:
    """Pack, train and evaluate one phase; compare it if it is a control arm."""
    packs = {part.selection: _add_pack(b, part.selection) for part in phase.data}
    _add_train(b, phase, packs)
    _add_evaluation(b, phase)
    for control in b.recipe.controls:
        if control.name == phase.name:
            _add_comparison(b, control.of, control.name)


def _pack_name(b: Builder, selection: str) -> str:
    return f"pack {selection} {b.recipe.packed_length(selection)}"


def _add_pack(b: Builder, selection_name: str) -> str:
    step = _pack_name(b, selection_name)
    if step in b.named:
        return b.named[step]
    sequence_length = b.recipe.packed_length(selection_name)
    recipe, selection = b.recipe, b.recipe.selection(selection_name)
    selected = corpus_steps.add_selection(b, selection_name)
    synthetic = selection.source == "synthetic"
    corpus = b.named["synthesize" if synthetic else "ingest"]
    tokens = b.named["synthetic tokens" if synthetic else "tokens"]
    heads = b.named["synthesis columns"] if synthetic else None

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from beam_pipelines import pack

        job = pack.PackJob(
            corpus=corpus,
            tokens=tokens,
            selection=selected,
            tokenizer=b.named["tokenizer"],
            grouping=selection.grouping,
            metadata_share=selection.metadata_share,
            sequence_length=sequence_length,
            seed=recipe.seed,
            heads=heads,
            fim_share=selection.fim_share,
        )
        result = pack.run(job, output=folder, key=key, options=corpus_steps.options(b))
        return {
            "records": result.num_records,
            "tokens": result.num_tokens,
            "documents": result.num_documents,
            "documents_turned": result.num_turned,
            "tokens_by_language": result.tokens_by_language,
        }

    return b.add(
        step,
        inside=b.path("packed"),
        prefix=f"{selection_name}-",
        params=(
            selection.grouping,
            selection.metadata_share,
            selection.fim_share,
            sequence_length,
            recipe.seed,
        ),
        reads=(corpus, tokens, selected, b.named["tokenizer"]),
        code=(
            "beam_pipelines/pack.py",
            "snowcoder_jax/packed.py",
            "snowcoder_jax/text/grouping.py",
            "snowcoder_jax/text/fim.py",
            *corpus_steps.READER_CODE,
        ),
        work=work,
    )


def _add_train(b: Builder, phase: Phase, packs: dict[str, str]) -> None:
    recipe = b.recipe
    start = b.named[f"train {phase.starts_from}"] if phase.starts_from else None
    base = base_model.fingerprint(recipe.base_model) if recipe.base_model and not start else None

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from snowcoder_jax.training import distributed
        from snowcoder_jax.training.loop import train_phase

        corpus_steps.end_workers()
        prepared = f"folder of {phase.name}"
        distributed.agreed(prepared, lambda: _prepare_folder(b, phase, folder, key))
        result = train_phase(
            recipe,
            phase,
            {name: packed_format.read_packed(path) for name, path in packs.items()},
            b.run_folder,
            start,
            on_progress=progress.update,
        )
        return dataclasses.asdict(result)

    b.add(
        f"train {phase.name}",
        inside=storage.join(b.run_folder, "checkpoints", phase.name),
        keyed=False,
        params=(
            TRAIN_VERSION,
            recipe.model,
            recipe.tokenizer.vocab_size,
            dataclasses.replace(phase, name="", checkpoint_every_steps=1),
            # When a run gives up changes nothing of what it has learnt until then.
            dataclasses.replace(recipe.optimizer, max_skipped_in_a_row=1),
            recipe.seed,
            recipe.hardware.compute_dtype,
            *((base,) if base else ()),
        ),
        reads=(*packs.values(), *((start,) if start else ())),
        work=work,
        together=True,
    )


def _prepare_folder(b: Builder, phase: Phase, folder: str, key: str) -> None:
    """Make sure that `folder` holds checkpoints of these settings, or none.

    Those of other settings are moved out of the way with their metrics, and back when the
    settings come back; nothing trained is ever deleted. `key.json` also says what is needed to
    use a checkpoint, whatever becomes of the recipe.
    """
    mark = storage.join(folder, "key.json")
    metrics = storage.join(b.run_folder, "metrics.jsonl")
    if storage.exists(mark) and (old_key := storage.read_json(mark)["key"]) != key:
        _move_metrics(metrics, storage.join(folder, "metrics.jsonl"), phase.name)
        storage.rename(folder, _aside(folder, old_key))
    if not storage.exists(mark) and storage.exists(_aside(folder, key)):
        storage.remove(folder)  # without its mark nothing was trained in it
        storage.rename(_aside(folder, key), folder)
        _move_metrics(storage.join(folder, "metrics.jsonl"), metrics, phase.name)
    facts = {
        "key": key,
        "model": strict.to_plain(b.recipe.model),
        "vocab_size": b.recipe.tokenizer.vocab_size,
        "tokenizer": storage.relative(b.named["tokenizer"], folder),
    }
    storage.write_json(mark, facts)


def _move_metrics(source: str, target: str, phase: str) -> None:
    """Move a phase's lines from one metrics file to the end of another."""
    if not storage.exists(source):
        return
    lines = storage.read_json_lines(source)
    own = [line for line in lines if line["phase"] == phase]
    _write_lines(target, [*storage.read_json_lines(target), *own])
    _write_lines(source, [line for line in lines if line["phase"] != phase])


def _write_lines(path: str, lines: Sequence[Facts]) -> None:
    storage.write_bytes(path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())


def _aside(folder: str, key: str) -> str:
    parent, name = folder.rsplit("/", 1)
    return storage.join(parent, ".stale", f"{name}-{key}")


def heldout_documents(b: Builder) -> list[HeldoutDocument]:
    """The held-out sample, the same for every evaluation of a run."""
    from beam_pipelines import texts
    from snowcoder_jax.evaluation.evaluate import HeldoutDocument

    recipe = b.recipe
    corpus, secrets, policy = (b.named[n] for n in ("ingest", "secrets", "policy"))
    total = texts.total_bytes(corpus, policy, "heldout")
    choose = texts.sampled(
        texts.in_split(policy, "heldout"),
        corpus,
        # `evaluate` draws exactly; this only keeps what it draws from small.
        share=min(1.0, 4 * recipe.evaluation.max_heldout_bytes / max(1, total)),
        seed=recipe.seed,
        purpose="heldout sample",
    )
    return [
        HeldoutDocument(d.id, d.repo, d.language, d.text)
        for d in texts.read_texts(corpus, secrets, choose)
    ]


_EVALUATION = (
    "snowcoder_jax/evaluation",
    "snowcoder_jax/problems/evaluation",
    "beam_pipelines/texts.py",
)


def params_for_inference(checkpoints: str, recipe: Recipe) -> Any:
    """The last parameters of a phase, over the devices of this process."""
    from snowcoder_jax.model import decoder
    from snowcoder_jax.training.checkpoints import load_params
    from snowcoder_jax.training.mesh import over_local_devices

    return over_local_devices(load_params(checkpoints), decoder.logical_axes(recipe.model))


def evaluation_path(b: Builder, name: str) -> str:
    return storage.join(b.run_folder, "evaluations", name, "evaluation.json")


def _add_evaluation(b: Builder, phase: Phase) -> None:
    recipe = b.recipe
    checkpoints = b.named[f"train {phase.name}"]

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from snowcoder_jax.evaluation.evaluate import evaluate

        evaluate(
            recipe,
            params_for_inference(checkpoints, recipe),
            tokenizer_folder=b.named["tokenizer"],
            heldout=heldout_documents(b),
            output=evaluation_path(b, phase.name),
            on_progress=progress.update,
        )
        return {}

    b.add(
        f"evaluate {phase.name}",
        inside=storage.join(b.run_folder, "evaluations", phase.name),
        keyed=False,
        # Where no sandbox was to be had, pass@1 is measured once there is one.
        params=(recipe.evaluation, recipe.seed, sandbox.availability() is None),
        reads=(checkpoints, b.named["policy"], b.named["secrets"]),
        code=_EVALUATION,
        work=work,
    )


def _add_comparison(b: Builder, phase: str, control: str) -> None:
    recipe = b.recipe

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from snowcoder_jax.evaluation.evaluate import compare

        return compare(
            storage.read_json(evaluation_path(b, phase)),
            storage.read_json(evaluation_path(b, control)),
            samples=recipe.evaluation.bootstrap_samples,
            seed=recipe.seed,
        )

    b.add(
        f"compare {control}",
        inside=storage.join(b.run_folder, "evaluations", f"{phase}-against-{control}"),
        keyed=False,
        params=(recipe.evaluation.bootstrap_samples, recipe.seed),
        reads=(b.named[f"evaluate {phase}"], b.named[f"evaluate {control}"]),
        code=_EVALUATION,
        work=work,
    )


def add_baseline(b: Builder) -> None:
    """A byte n-gram trained on exactly the bytes that the last phase's model saw."""
    recipe = b.recipe
    lineage = _lineage(b)
    packs = {
        p.name: {part.selection: b.named[_pack_name(b, part.selection)] for part in p.data}
        for p in lineage
    }

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from snowcoder_jax.steps import baseline

        output = storage.join(folder, "evaluation.json")
        return baseline.measure(b, lineage, packs, output, progress)

    b.add(
        "baseline",
        inside=storage.join(b.run_folder, "evaluations", "baseline"),
        keyed=False,
        params=(recipe.evaluation, recipe.seed),
        reads=(*(b.named[f"train {p.name}"] for p in lineage), b.named["policy"]),
        code=(*_EVALUATION, "snowcoder_jax/steps/baseline.py"),
        work=work,
    )


def _lineage(b: Builder) -> list[Phase]:
    """The last phase and those it was started from, first to last."""
    phases = [b.recipe.phases[-1]]
    while phases[0].starts_from is not None:
        phases.insert(0, b.recipe.phase(phases[0].starts_from))
    return phases


def add_report(b: Builder) -> None:
    names = [step.name for step in b.steps]
    report = [storage.join(b.run_folder, f"report.{ending}") for ending in ("json", "html")]

    def work(folder: str, key: str, progress: Progress) -> Facts:
        from snowcoder_jax.reports.collect import collect
        from snowcoder_jax.reports.page import write_report

        write_report(collect(b), b.run_folder)
        return {"steps": names}

    b.add(
        "report",
        inside=storage.join(b.run_folder, "evaluations", "report"),
        keyed=False,
        params=names,
        reads=tuple(b.keys),
        code=("snowcoder_jax/reports",),
        work=work,
        outputs=tuple(report),
    )
