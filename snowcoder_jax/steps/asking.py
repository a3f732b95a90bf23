"""The step that asks a teacher, and what is asked of it in a given run."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from snowcoder_jax import storage, strict
from snowcoder_jax.progress import Progress
from snowcoder_jax.recipe import fingerprint
from snowcoder_jax.recipe_synthesis import CheckpointTeacher
from snowcoder_jax.run import Facts, Step
from snowcoder_jax.steps import corpus as corpus_steps
from snowcoder_jax.steps.builder import Builder
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.prompt_templates import template_text
from snowcoder_jax.synthesis.teachers.identity import teacher_fingerprint, teacher_name

STEP = "synthesize ask"
# Prompts that a dry run shows where no limit is given.
NUM_SHOWN = 3
# What makes the questions; who asks them, and how, changes no answer.
_CODE = (
    "snowcoder_jax/synthesis/completion.py",
    "snowcoder_jax/synthesis/prompt_templates.py",
    "snowcoder_jax/synthesis/prompts.py",
    "snowcoder_jax/synthesis/replies.py",
    "snowcoder_jax/synthesis/requests.py",
    "snowcoder_jax/synthesis/templates/languages.yaml",
    "snowcoder_jax/synthesis/windows.py",
)


def make_ask(b: Builder) -> Ask:
    """What the recipe asks; the step `synthesize seeds` must have been added."""
    recipe, synthesis = b.recipe, b.recipe.synthesis
    assert synthesis is not None, "recipe_checks lets no synthetic selection pass without one"
    teacher = synthesis.teacher
    checkpoint = _checkpoint(b)
    of_teacher = teacher_fingerprint(
        teacher,
        checkpoint_key=b.keys[checkpoint] if checkpoint else "",
        compute_dtype=recipe.hardware.compute_dtype,
    )
    is_base = teacher.mode == "completion"
    return Ask(
        synthesis,
        recipe.seed,
        of_teacher,
        seeds=b.named["synthesize seeds"],
        store=b.path("answers", of_teacher),
        tokenizer=b.named["tokenizer"] if is_base else "",
        template="" if is_base else template_text(synthesis.prompt),
    )


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
        code=_CODE,
        work=work,
    )


def _note_dead_letters(noted: str, store: str) -> None:
    """Note the names of the store's files of dead letters, beside those noted before."""
    names = {n for n in storage.sizes_bytes(store) if n.startswith("dead-") and ".index" not in n}
    names |= set(storage.read_json(noted)) if storage.exists(noted) else set()
    storage.write_json(noted, sorted(names))


def _removed(noted: str, store: str) -> list[str]:
    """Of the files of dead letters that were noted, those that are gone."""
    names = storage.read_json(noted) if storage.exists(noted) else []
    return [name for name in names if not storage.exists(storage.join(store, name))]


def ask_missing(b: Builder, progress: Progress, limit: int | None = None) -> Facts:
    """Ask what has no answer yet; with `limit`, only of the seeds that were drawn first."""
    from snowcoder_jax.synthesis import runner

    def load_params(phase: str) -> Any:
        from snowcoder_jax.steps.learning import params_for_inference

        return params_for_inference(b.named[f"train {phase}"], b.recipe)

    return runner.ask_from_run(
        b.named[STEP],
        make_ask(b),
        recipe=b.recipe,
        load_params=load_params,
        limit=limit,
        on_progress=progress.update,
    )


def steps_before(b: Builder, *, asks: bool) -> list[Step]:
    """The steps behind the questions; with `asks`, behind the answers too: a teacher of this run.

    Raises:
      InputError: the recipe has no synthesis.
    """
    b.up_to(("synthesize",))
    names = [STEP, "tokenizer"] if asks else ["synthesize seeds", "tokenizer"]
    return [s for s in b.needed_by(names) if s.name != STEP]


def try_out(b: Builder, limit: int | None, dry_run: bool) -> None:
    """Ask a few and say what came of it, or show what would be asked; finishes no step."""
    from snowcoder_jax.synthesis import runner

    ask = make_ask(b)
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
