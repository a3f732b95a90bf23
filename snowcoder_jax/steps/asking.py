"""The step that asks a teacher, and what is asked of it in a given run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from snowcoder_jax import preflight, run, storage, strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.progress import Progress
from snowcoder_jax.recipe import fingerprint
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, VllmTeacher
from snowcoder_jax.run import Facts, Step
from snowcoder_jax.steps import corpus as corpus_steps
from snowcoder_jax.steps.builder import Builder
from snowcoder_jax.synthesis.ask import PROMPT_CODE, Ask
from snowcoder_jax.synthesis.prompt_templates import template_text
from snowcoder_jax.synthesis.teachers import identity
from snowcoder_jax.synthesis.teachers.identity import teacher_name

STEP = "synthesize ask"
# Prompts that a dry run shows where no limit is given.
NUM_SHOWN = 3
# For the fingerprint of a model whose folder was never on this machine: asks nothing.
UNKNOWN = "unknown"


def make_ask(b: Builder) -> Ask:
    """What the recipe asks; the step `synthesize seeds` must have been added."""
    recipe, synthesis = b.recipe, b.recipe.synthesis
    assert synthesis is not None, "recipe_checks lets no synthetic selection pass without one"
    of_teacher = _teacher_fingerprint(b)
    is_base = synthesis.teacher.mode == "completion"
    return Ask(
        synthesis,
        recipe.seed,
        of_teacher,
        seeds=b.named["synthesize seeds"],
        store=b.path("answers", of_teacher),
        tokenizer=b.named["tokenizer"] if is_base else "",
        template="" if is_base else template_text(synthesis.prompt),
    )


def _teacher_fingerprint(b: Builder) -> str:
    """Of a model whose folder is not on this machine: as it was noted where it was asked."""
    assert b.recipe.synthesis is not None
    teacher, checkpoint = b.recipe.synthesis.teacher, _checkpoint(b)
    if isinstance(teacher, VllmTeacher) and not identity.is_folder_here(teacher):
        noted = _fingerprint_note(b, teacher)
        if storage.exists(noted):
            return str(storage.read_json(noted)["fingerprint"])
        if identity.is_folder_name(teacher.model):
            return UNKNOWN
    return identity.teacher_fingerprint(
        teacher,
        checkpoint_key=b.keys[checkpoint] if checkpoint else "",
        compute_dtype=b.recipe.hardware.compute_dtype,
    )


def _fingerprint_note(b: Builder, teacher: VllmTeacher) -> str:
    return b.path("answers", f"teacher-{identity.settings_fingerprint(teacher)}.json")


def _make_and_note_ask(b: Builder) -> Ask:
    """The ask; the fingerprint of its model folder, for machines that do not have that."""
    ask = make_ask(b)
    teacher = ask.synthesis.teacher
    if isinstance(teacher, VllmTeacher) and identity.is_folder_here(teacher):
        storage.write_json(_fingerprint_note(b, teacher), {"fingerprint": ask.teacher_fingerprint})
    return ask


def require_teacher(b: Builder, steps: Sequence[Step]) -> None:
    """Refuse to begin steps that will ask a teacher who cannot be asked from this machine.

    Raises:
      InputError: with all faults: no folder of the model, no key of the servers.
    """
    if any(step.name == STEP for step in steps):
        _require_teacher(b)


def _require_teacher(b: Builder) -> None:
    faults = list(preflight.teacher_faults(b.recipe))
    if faults and _will_ask(b):
        raise InputError(preflight.message(b.recipe, faults))


def _will_ask(b: Builder) -> bool:
    from snowcoder_jax.synthesis import runner

    ask = make_ask(b)
    if ask.teacher_fingerprint == UNKNOWN:
        return True
    *before, step = b.needed_by([STEP])
    if run.finished(step) is not None:
        return False
    return any(run.finished(s) is None for s in before) or runner.has_missing(ask)


def add_step(b: Builder) -> str:
    """Add the step `synthesize ask`; its folder holds `ask.json`, its record what it cost.

    Where files of its dead letters have been removed from the store, it is another step, and what
    is made of the answers is made anew: the letters are asked again.
    """
    ask = make_ask(b)
    # Of the teacher, its fingerprint alone: other servers, prices and batches are the same answers.
    settings = {k: v for k, v in strict.to_plain(ask.synthesis).items() if k != "teacher"}
    name = teacher_name(ask.synthesis.teacher)
    reads = [ask.seeds]
    reads += [b.named["tokenizer"]] if ask.tokenizer else []
    reads += [checkpoint] if (checkpoint := _checkpoint(b)) else []

    params = (settings, name, ask.run_seed, ask.teacher_fingerprint, ask.template)
    noted = f"dead-letters-of-{fingerprint(params, b.keys[ask.seeds])}.json"
    noted = storage.join(ask.store, noted)

    def work(folder: str, key: str, progress: Progress) -> Facts:
        corpus_steps.end_workers()  # a teacher may need their memory
        facts = ask_missing(b, progress)
        if facts["dead"]:
            _note_dead_letters(noted, ask.store)
        return facts

    return b.add(
        STEP,
        inside=b.path("synthetic"),
        prefix="ask-",
        params=(*params, _removed(noted, ask.store)),
        reads=tuple(reads),
        code=PROMPT_CODE,
        work=work,
    )


def _note_dead_letters(noted: str, store: str) -> None:
    """Note the names of the store's files of dead letters, beside those noted before."""
    names = {n for n in storage.sizes_bytes(store) if n.startswith("dead-") and ".index" not in n}
    names |= set(storage.read_json(noted)) if storage.exists(noted) else set()
    storage.write_json(noted, sorted(names))


def _removed(noted: str, store: str) -> list[str]:
    """Of the files of dead letters that were noted, those that are gone."""
    if not storage.exists(noted):
        return []
    return sorted(set(storage.read_json(noted)) - storage.sizes_bytes(store).keys())


def ask_missing(b: Builder, progress: Progress, limit: int | None = None) -> Facts:
    """Ask what has no answer yet; with `limit`, only of the seeds that were drawn first."""
    from snowcoder_jax.synthesis import runner

    def load_params(phase: str) -> Any:
        from snowcoder_jax.steps.learning import params_for_inference

        return params_for_inference(b.named[f"train {phase}"], b.recipe)

    return runner.ask_from_run(
        b.named[STEP],
        _make_and_note_ask(b),
        recipe=b.recipe,
        load_params=load_params,
        limit=limit,
        on_progress=progress.update,
    )


def steps_before(b: Builder, *, asks: bool) -> list[Step]:
    """The steps behind the questions; with `asks`, behind the answers too: a teacher of this run.

    Raises:
      InputError: the recipe has no synthesis; the teacher cannot be asked from this machine; what
        is asked cannot be told without the model's folder.
    """
    b.up_to(("synthesize",))
    if asks or make_ask(b).teacher_fingerprint == UNKNOWN:
        _require_teacher(b)
    names = [STEP, "tokenizer"] if asks else ["synthesize seeds", "tokenizer"]
    return [s for s in b.needed_by(names) if s.name != STEP]


def try_out(b: Builder, limit: int | None, dry_run: bool) -> None:
    """Ask a few and say what came of it, or show what would be asked; finishes no step."""
    from snowcoder_jax.synthesis import runner

    ask = _make_and_note_ask(b)
    if dry_run:
        ask.save(b.named[STEP])
        num_prompts = NUM_SHOWN if limit is None else limit
        runner.print_prompts(ask, num_prompts, sys.stdout.write)
    else:
        with Progress(STEP) as progress:
            facts = ask_missing(b, progress, limit)
        print(runner.told(ask, facts))
        print(_judged(ask, limit, b.named["tokenizer"]))
    print(
        f"workers on other machines take their part with\n  python -m "
        f"snowcoder_jax.synthesis.worker {b.named[STEP]} --worker K --num-workers N"
    )


def _judged(ask: Ask, limit: int | None, tokenizer_folder: str) -> str:
    """What the answers are worth, each by itself: `12 of 20 accepted (5 cut_off, 3 unparsable)`."""
    from snowcoder_jax.synthesis import accept, runner
    from snowcoder_jax.tokenizer import Tokenizer

    tokenizer, limits = Tokenizer.load(tokenizer_folder), accept.Limits.of(ask.synthesis)
    reasons = Counter(
        accept.judge(row, limits, lambda text: len(tokenizer.encode(text))).reason
        for row in runner.stored_rows(ask, limit)
    )
    num_rows = reasons.total()
    num_accepted = reasons.pop("", 0)
    told = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    return f"{num_accepted} of {num_rows} accepted" + (f" ({told})" if told else "")


def _checkpoint(b: Builder) -> str:
    """The folder of the teacher's training; "" where the teacher is none of this run."""
    assert b.recipe.synthesis is not None
    teacher = b.recipe.synthesis.teacher
    return b.named[f"train {teacher.phase}"] if isinstance(teacher, CheckpointTeacher) else ""
