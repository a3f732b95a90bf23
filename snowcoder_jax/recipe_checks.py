"""What a recipe must satisfy beyond its types. Every check yields faults; none raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from snowcoder_jax import languages
from snowcoder_jax.recipe import CheckpointTeacher, Phase, Recipe
from snowcoder_jax.strict import Fault, nearest


def check_recipe(recipe: Recipe) -> list[Fault]:
    """All faults that need no look at the disk or the devices."""
    checks: list[Callable[[Recipe], Iterator[Fault]]] = [
        _names,
        _numbers,
        _model,
        _phases,
        _selections,
        _synthesis,
    ]
    return [fault for check in checks for fault in check(recipe)]


def _names(recipe: Recipe) -> Iterator[Fault]:
    groups = {
        "sources": [s.name for s in recipe.sources],
        "selections": [s.name for s in recipe.selections],
        "phases": [p.name for p in recipe.all_phases()],
    }
    for where, names in groups.items():
        if not names:
            yield Fault(where, "is empty", "Add at least one.")
        for name in sorted({n for n in names if names.count(n) > 1}):
            yield Fault(f"{where}.{name}", "stands there twice", "Give each its own name.")
        for name in names:
            if not name.replace("_", "").replace("-", "").isalnum():
                yield Fault(
                    f"{where}.{name}", "is no file name", "Use letters, digits, `_` and `-`."
                )


def _numbers(recipe: Recipe) -> Iterator[Fault]:
    positive = {
        "corpus.num_shards": recipe.corpus.num_shards,
        "corpus.max_file_bytes": recipe.corpus.max_file_bytes,
        "tokenizer.sample_bytes": recipe.tokenizer.sample_bytes,
        "annotator.window_tokens": recipe.annotator.window_tokens,
        "annotator.num_sections": recipe.annotator.num_sections,
        "annotator.batch_size": recipe.annotator.batch_size,
        "annotator.epochs": recipe.annotator.epochs,
        "evaluation.max_new_tokens": recipe.evaluation.max_new_tokens,
        "evaluation.batch_size": recipe.evaluation.batch_size,
        "hardware.microbatches": recipe.hardware.microbatches,
        "hardware.loss_chunk_tokens": recipe.hardware.loss_chunk_tokens,
        "hardware.beam_workers": recipe.hardware.beam_workers,
        "optimizer.clip_norm": recipe.optimizer.clip_norm,
    }
    for where, value in positive.items():
        if value <= 0:
            yield Fault(where, f"{value} is not above 0", "Give a positive number.")
    shares = {
        "corpus.heldout_share": recipe.corpus.heldout_share,
        "annotator.heldout_share": recipe.annotator.heldout_share,
        "corpus.duplicates.threshold": recipe.corpus.duplicates.threshold,
    }
    for where, share in shares.items():
        if not 0 < share < 1:
            yield Fault(where, f"{share} is not between 0 and 1", "Give a share such as 0.1.")


def _model(recipe: Recipe) -> Iterator[Fault]:
    model = recipe.model
    if model.num_heads % model.num_kv_heads:
        yield Fault(
            "model.num_kv_heads",
            f"{model.num_kv_heads} does not divide num_heads {model.num_heads}",
            "Choose a divisor.",
        )
    if model.head_dim % 2:
        yield Fault("model.head_dim", "is odd", "RoPE turns pairs: choose an even number.")
    if recipe.tokenizer.vocab_size < 300:
        yield Fault(
            "tokenizer.vocab_size",
            f"{recipe.tokenizer.vocab_size} leaves no room for merges",
            "256 bytes and the special tokens come first: choose 300 or more.",
        )


def _phases(recipe: Recipe) -> Iterator[Fault]:
    earlier: list[str] = []
    selections = [s.name for s in recipe.selections]
    for phase in recipe.phases:
        at = f"phases.{phase.name}"
        yield from _one_phase(recipe, phase, at, earlier, selections)
        earlier.append(phase.name)
    for control in recipe.controls:
        at = f"controls.{control.name}"
        if control.of not in earlier:
            yield Fault(f"{at}.of", f"no phase `{control.of}`", nearest(control.of, earlier))
        if control.selection not in selections:
            mend = nearest(control.selection, selections)
            yield Fault(f"{at}.selection", f"no selection `{control.selection}`", mend)


def _one_phase(
    recipe: Recipe, phase: Phase, at: str, earlier: Sequence[str], selections: Sequence[str]
) -> Iterator[Fault]:
    if phase.starts_from is not None and phase.starts_from not in earlier:
        mend = nearest(phase.starts_from, earlier) if earlier else "The first starts from null."
        yield Fault(f"{at}.starts_from", f"no earlier phase `{phase.starts_from}`", mend)
    if phase.batch_size <= 0 or phase.sequence_length <= 0:
        yield Fault(at, "batch_size and sequence_length must be above 0", "Give positive numbers.")
        return
    if phase.num_steps < 1:
        yield Fault(
            f"{at}.tokens",
            f"{phase.tokens} is less than one step of {phase.tokens_per_step} tokens",
            "Raise it, or lower batch_size.",
        )
    elif phase.schedule.warmup_steps >= phase.num_steps:
        yield Fault(
            f"{at}.schedule.warmup_steps",
            f"{phase.schedule.warmup_steps} is not below the phase's {phase.num_steps} steps",
            "Shorten the warm-up.",
        )
    if phase.schedule.peak <= 0 or phase.schedule.final < 0:
        yield Fault(f"{at}.schedule", "a learning rate is negative or 0", "Give positive rates.")
    if phase.sequence_length > recipe.model.max_sequence_length:
        yield Fault(
            f"{at}.sequence_length",
            f"{phase.sequence_length} is above model.max_sequence_length "
            f"{recipe.model.max_sequence_length}",
            "Raise the model's, or shorten the phase's.",
        )
    if phase.batch_size % recipe.hardware.microbatches:
        yield Fault(
            f"{at}.batch_size",
            f"{phase.batch_size} is not divided by hardware.microbatches "
            f"{recipe.hardware.microbatches}",
            "Choose a divisor.",
        )
    if phase.checkpoint_every_steps <= 0:
        yield Fault(f"{at}.checkpoint_every_steps", "is not above 0", "Give a positive number.")
    if not phase.data:
        yield Fault(f"{at}.data", "is empty", "Name at least one selection.")
    for part in phase.data:
        if part.selection not in selections:
            mend = nearest(part.selection, selections)
            yield Fault(f"{at}.data", f"no selection `{part.selection}`", mend)
        if part.repeat < 1 or part.weight < 0:
            yield Fault(f"{at}.data", "repeat below 1 or weight below 0", "Raise it.")
    if sum(part.weight for part in phase.data) <= 0 and phase.data:
        yield Fault(f"{at}.data", "the weights are all 0", "Give one part a weight.")
    if sum(part.fill for part in phase.data) > 1:
        yield Fault(f"{at}.data", "two parts have `fill`", "Let one part take the rest.")


def _selections(recipe: Recipe) -> Iterator[Fault]:
    known = [language.name for language in languages.LANGUAGES]
    for selection in recipe.selections:
        at = f"selections.{selection.name}"
        if selection.order != "natural" and not selection.tokens:
            yield Fault(f"{at}.tokens", f"order `{selection.order}` needs a budget", "Add tokens.")
        yield from _language_shares(f"{at}.language_shares", selection.language_shares, known)
        if not 0 <= selection.metadata_share <= 1:
            yield Fault(f"{at}.metadata_share", "is not between 0 and 1", "Give a share.")
        if selection.source == "synthetic" and recipe.synthesis is None:
            yield Fault(at, "reads synthetic documents but there is no `synthesis`", "Add it.")


def _language_shares(at: str, shares: dict[str, float], known: list[str]) -> Iterator[Fault]:
    for language, share in shares.items():
        if language not in known:
            yield Fault(f"{at}.{language}", "no such language", nearest(language, known))
        if not 0 <= share <= 1:
            yield Fault(f"{at}.{language}", f"{share} is not a share", "Give 0 to 1.")
    if sum(shares.values()) > 1:
        problem = f"the shares add up to {sum(shares.values()):g}"
        yield Fault(at, problem, "Keep them at 1 or below.")


def _synthesis(recipe: Recipe) -> Iterator[Fault]:
    synthesis = recipe.synthesis
    if synthesis is None:
        return
    selections = [s.name for s in recipe.selections]
    phases = [p.name for p in recipe.phases]
    if synthesis.seeds not in selections:
        mend = nearest(synthesis.seeds, selections)
        yield Fault("synthesis.seeds", f"no selection `{synthesis.seeds}`", mend)
    teacher = synthesis.teacher
    if isinstance(teacher, CheckpointTeacher):
        if teacher.phase not in phases:
            mend = nearest(teacher.phase, phases)
            yield Fault("synthesis.teacher.phase", f"no phase `{teacher.phase}`", mend)
        if synthesis.head_tokens + synthesis.max_new_tokens > recipe.model.max_sequence_length:
            yield Fault(
                "synthesis.max_new_tokens",
                f"with head_tokens it exceeds the model's {recipe.model.max_sequence_length}",
                "Lower one of the two.",
            )
    for where, value in (
        ("num_seeds", synthesis.num_seeds),
        ("head_tokens", synthesis.head_tokens),
        ("min_new_tokens", synthesis.min_new_tokens),
    ):
        if value <= 0:
            yield Fault(f"synthesis.{where}", f"{value} is not above 0", "Raise it.")
    known = [language.name for language in languages.LANGUAGES]
    yield from _language_shares("synthesis.language_shares", synthesis.language_shares, known)
