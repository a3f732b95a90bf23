"""What a recipe must satisfy beyond its types. Every check yields faults; none raises."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from snowcoder_jax import languages
from snowcoder_jax.recipe import Part, Phase, Recipe
from snowcoder_jax.recipe_synthesis import CheckpointTeacher
from snowcoder_jax.recipe_synthesis_checks import check_numbers, check_teacher
from snowcoder_jax.strict import Fault, nearest
from snowcoder_jax.text import rule_table


def check_recipe(recipe: Recipe) -> list[Fault]:
    """All faults that need no look at the disk or the devices."""
    checks: list[Callable[[Recipe], Iterator[Fault]]] = [
        _names,
        _numbers,
        _rules,
        _model,
        _phases,
        _selections,
        _synthesis,
        _tracking,
    ]
    return [fault for check in checks for fault in check(recipe)]


def _tracking(recipe: Recipe) -> Iterator[Fault]:
    steps = recipe.tracking.profile_steps
    if steps and not (len(steps) == 2 and 1 <= steps[0] <= steps[1]):
        mend = "Give the first and the last step, such as [10, 13]."
        yield Fault("tracking.profile_steps", f"{list(steps)} is no range of steps", mend)


def _names(recipe: Recipe) -> Iterator[Fault]:
    groups = {
        "sources": [s.name for s in recipe.sources],
        "selections": [s.name for s in recipe.selections],
        "phases": [p.name for p in recipe.all_phases()],
    }
    if not _is_file_name(recipe.name):
        yield Fault("name", f"`{recipe.name}` is no file name", "Use letters, digits, `_`, `-`.")
    for where, names in groups.items():
        if not names:
            yield Fault(where, "is empty", "Add at least one.")
        for name in sorted({n for n in names if names.count(n) > 1}):
            yield Fault(f"{where}.{name}", "stands there twice", "Give each its own name.")
        for name in names:
            if not _is_file_name(name):
                yield Fault(
                    f"{where}.{name}", "is no file name", "Use letters, digits, `_` and `-`."
                )


def _is_file_name(name: str) -> bool:
    return name.replace("_", "").replace("-", "").isalnum()


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
        "checkpointing.keep_last": recipe.checkpointing.keep_last,
        "optimizer.clip_norm": recipe.optimizer.clip_norm,
        "optimizer.max_skipped_in_a_row": recipe.optimizer.max_skipped_in_a_row,
        "model.hidden_dim": recipe.model.hidden_dim,
        "model.mlp_dim": recipe.model.mlp_dim,
        "model.num_layers": recipe.model.num_layers,
        "model.num_heads": recipe.model.num_heads,
        "model.num_kv_heads": recipe.model.num_kv_heads,
        "model.head_dim": recipe.model.head_dim,
        "corpus.duplicates.ngram_words": recipe.corpus.duplicates.ngram_words,
        "corpus.duplicates.bands": recipe.corpus.duplicates.bands,
        "corpus.duplicates.rows": recipe.corpus.duplicates.rows,
        "corpus.contamination.ngram_words": recipe.corpus.contamination.ngram_words,
        "annotator.num_positives": recipe.annotator.num_positives,
        "annotator.num_negatives": recipe.annotator.num_negatives,
        "annotator.learning_rate": recipe.annotator.learning_rate,
        "evaluation.bootstrap_samples": recipe.evaluation.bootstrap_samples,
        "evaluation.max_heldout_bytes": recipe.evaluation.max_heldout_bytes,
        "evaluation.sandbox.seconds": recipe.evaluation.sandbox.seconds,
        "evaluation.sandbox.memory_bytes": recipe.evaluation.sandbox.memory_bytes,
        "evaluation.sandbox.processes": recipe.evaluation.sandbox.processes,
        "evaluation.sandbox.workers": recipe.evaluation.sandbox.workers,
    }
    for where, value in positive.items():
        if value <= 0:
            yield Fault(where, f"{value} is not above 0", "Give a positive number.")
    if not 0 <= recipe.hardware.hang_minutes <= 10_000:
        mend = "Give minutes up to 10,000, or 0 for never."
        yield Fault("hardware.hang_minutes", f"{recipe.hardware.hang_minutes} is no time", mend)
    if not 0 <= recipe.optimizer.z_loss < 1:
        mend = "Give 0 (off), or a small weight such as 1e-4."
        yield Fault("optimizer.z_loss", f"{recipe.optimizer.z_loss} is no weight", mend)
    if not 1 <= recipe.evaluation.ngram_order <= 7:
        mend = "Choose 1 to 7; the report's yardstick is 5."
        yield Fault("evaluation.ngram_order", f"{recipe.evaluation.ngram_order} is no order", mend)
    shares = {
        "corpus.heldout_share": recipe.corpus.heldout_share,
        "annotator.heldout_share": recipe.annotator.heldout_share,
        "corpus.duplicates.threshold": recipe.corpus.duplicates.threshold,
    }
    for where, share in shares.items():
        if not 0 < share < 1:
            yield Fault(where, f"{share} is not between 0 and 1", "Give a share such as 0.1.")


def _rules(recipe: Recipe) -> Iterator[Fault]:
    rules = recipe.corpus.rules
    known = ["all", *languages.BY_NAME]
    for language, table in rules.thresholds.items():
        at = f"corpus.rules.thresholds.{language}"
        if language not in known:
            yield Fault(at, "no such language", nearest(language, known))
        for name, threshold in table.items():
            rule = rule_table.BY_NAME.get(name)
            if rule is None:
                yield Fault(f"{at}.{name}", "no such rule", nearest(name, list(rule_table.BY_NAME)))
            elif threshold is not None and not math.isfinite(threshold):
                mend = "Give a finite one, or null to turn the rule off."
                yield Fault(f"{at}.{name}", f"{threshold} is no threshold", mend)
            elif rule.needs_parse and threshold is not None and not rules.parse:
                problem = "needs the syntax tree, and corpus.rules.parse is false"
                yield Fault(f"{at}.{name}", problem, "Set parse: true, or the rule to null.")


def _model(recipe: Recipe) -> Iterator[Fault]:
    model = recipe.model
    if model.num_kv_heads > 0 and model.num_heads % model.num_kv_heads:
        yield Fault(
            "model.num_kv_heads",
            f"{model.num_kv_heads} does not divide num_heads {model.num_heads}",
            "Choose a divisor.",
        )
    if model.head_dim % 2:
        yield Fault("model.head_dim", "is odd", "RoPE turns pairs: choose an even number.")
    scaling = model.rope_scaling
    if scaling is not None and not (
        scaling.factor > 0 and 0 < scaling.low_freq_factor < scaling.high_freq_factor
    ):
        problem = "factor is not above 0, or low_freq_factor not between 0 and high_freq_factor"
        yield Fault("model.rope_scaling", problem, "Take the base model's, or null.")
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
        elif len(recipe.phase(control.of).data) > 1:
            problem = f"phase `{control.of}` mixes several selections"
            yield Fault(f"{at}.of", problem, "Control a phase that reads one selection.")
        if control.selection not in selections:
            mend = nearest(control.selection, selections)
            yield Fault(f"{at}.selection", f"no selection `{control.selection}`", mend)
        elif control.of in earlier:
            for part in recipe.phase(control.name).data:
                yield from _language_weights(recipe, part, at)


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
    else:
        yield from _schedule(phase, f"{at}.schedule")
    if phase.schedule.peak <= 0 or phase.schedule.final < 0:
        yield Fault(f"{at}.schedule", "a learning rate is negative or 0", "Give positive rates.")
    if phase.keep_moments and phase.starts_from is None:
        problem = "there are no moments to keep where a phase starts from no other"
        yield Fault(f"{at}.keep_moments", problem, "Set it to false.")
    if phase.sequence_length > recipe.model.max_sequence_length:
        yield Fault(
            f"{at}.sequence_length",
            f"{phase.sequence_length} is above model.max_sequence_length "
            f"{recipe.model.max_sequence_length}",
            "Raise the model's, or shorten the phase's.",
        )
    if recipe.hardware.microbatches > 0 and phase.batch_size % recipe.hardware.microbatches:
        yield Fault(
            f"{at}.batch_size",
            f"{phase.batch_size} is not divided by hardware.microbatches "
            f"{recipe.hardware.microbatches}",
            "Choose a divisor.",
        )
    if phase.checkpoint_every_steps <= 0:
        yield Fault(f"{at}.checkpoint_every_steps", "is not above 0", "Give a positive number.")
    elif (every := recipe.checkpointing.keep_every_steps) is not None and (
        every <= 0 or every % phase.checkpoint_every_steps
    ):
        yield Fault(
            "checkpointing.keep_every_steps",
            f"{every} is no multiple of {at}.checkpoint_every_steps {phase.checkpoint_every_steps}",
            "Choose one: only what is saved can be kept.",
        )
    if not phase.data:
        yield Fault(f"{at}.data", "is empty", "Name at least one selection.")
    for part in phase.data:
        if part.selection not in selections:
            mend = nearest(part.selection, selections)
            yield Fault(f"{at}.data", f"no selection `{part.selection}`", mend)
        if part.repeat < 1 or part.weight < 0:
            yield Fault(f"{at}.data", "repeat below 1 or weight below 0", "Raise it.")
        yield from _language_weights(recipe, part, f"{at}.data")
    if sum(part.weight for part in phase.data) <= 0 and phase.data:
        yield Fault(f"{at}.data", "the weights are all 0", "Give one part a weight.")
    if sum(part.fill for part in phase.data) > 1:
        yield Fault(f"{at}.data", "two parts have `fill`", "Let one part take the rest.")


def _schedule(phase: Phase, at: str) -> Iterator[Fault]:
    schedule, num_steps = phase.schedule, phase.num_steps
    for what in ("warmup", "decay"):
        steps, tokens = (getattr(schedule, f"{what}_{unit}") for unit in ("steps", "tokens"))
        if steps and tokens is not None:
            problem = "both are given, and they may say different things"
            yield Fault(f"{at}.{what}_steps, {what}_tokens", problem, "Leave one of them out.")
    unit = "steps" if schedule.warmup_tokens is None else "tokens"
    if not 0 <= phase.num_warmup_steps < num_steps:
        yield Fault(
            f"{at}.warmup_{unit}",
            f"{phase.num_warmup_steps} is not from 0 to below the phase's {num_steps} steps",
            "Change the warm-up.",
        )
        return
    decays = schedule.decay_steps is not None or schedule.decay_tokens is not None
    if schedule.kind == "warmup_stable_decay":
        left = num_steps - phase.num_warmup_steps
        if not decays:
            mend = "Say how long it decays, for instance a tenth of the phase."
            yield Fault(f"{at}.decay_steps", "is missing (or decay_tokens)", mend)
        elif not 1 <= phase.num_decay_steps <= left:
            unit = "steps" if schedule.decay_tokens is None else "tokens"
            problem = f"{phase.num_decay_steps} is not from 1 to the {left} steps after the warm-up"
            yield Fault(f"{at}.decay_{unit}", problem, "Change the decay.")
    elif decays or schedule.decay_shape != "linear":
        problem = f"kind `{schedule.kind}` decays from its warm-up to the end of the phase"
        mend = "Leave it out, or choose kind: warmup_stable_decay."
        yield Fault(f"{at}.decay_*", problem, mend)


def _language_weights(recipe: Recipe, part: Part, at: str) -> Iterator[Fault]:
    known = [language.name for language in languages.LANGUAGES]
    for language, weight in part.language_weights.items():
        where = f"{at}.language_weights.{language}"
        if language not in known:
            yield Fault(where, "no such language", nearest(language, known))
        if not (math.isfinite(weight) and weight >= 0):
            yield Fault(where, f"{weight} is no weight", "Give 0 or more; 1 draws it as it lies.")
    named = {s.name: s for s in recipe.selections}.get(part.selection)
    if part.language_weights and named and named.grouping != "language_then_repository":
        yield Fault(
            f"{at}.language_weights",
            f"selection `{named.name}` is grouped by `{named.grouping}`: its sequences mix "
            "languages, and cannot be drawn by them",
            "Set its grouping to language_then_repository.",
        )


def _selections(recipe: Recipe) -> Iterator[Fault]:
    known = [language.name for language in languages.LANGUAGES]
    for selection in recipe.selections:
        at = f"selections.{selection.name}"
        if selection.order != "natural" and not selection.tokens:
            yield Fault(f"{at}.tokens", f"order `{selection.order}` needs a budget", "Add tokens.")
        yield from _language_shares(f"{at}.language_shares", selection.language_shares, known)
        if not 0 <= selection.metadata_share <= 1:
            yield Fault(f"{at}.metadata_share", "is not between 0 and 1", "Give a share.")
        if not 0 <= selection.fim_share <= 1:
            yield Fault(f"{at}.fim_share", "is not between 0 and 1", "Give a share.")
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
    elif recipe.selection(synthesis.seeds).source == "synthetic":
        mend = "Name a selection of the corpus."
        yield Fault("synthesis.seeds", f"`{synthesis.seeds}` is synthetic itself", mend)
    teacher = synthesis.teacher
    if isinstance(teacher, CheckpointTeacher):
        if teacher.phase not in phases:
            mend = nearest(teacher.phase, phases)
            yield Fault("synthesis.teacher.phase", f"no phase `{teacher.phase}`", mend)
        elif teacher.phase in _phases_from_first_synthetic(recipe):
            mend = "Name a phase that is trained before any synthetic text is read."
            yield Fault("synthesis.teacher.phase", f"`{teacher.phase}` comes too late", mend)
        if teacher.batch_size <= 0:
            yield Fault("synthesis.teacher.batch_size", "is not above 0", "Raise it.")
        if synthesis.head_tokens + synthesis.max_new_tokens > recipe.model.max_sequence_length:
            yield Fault(
                "synthesis.max_new_tokens",
                f"with head_tokens it exceeds the model's {recipe.model.max_sequence_length}",
                "Lower one of the two.",
            )
    yield from check_numbers(synthesis)
    yield from check_teacher(synthesis)
    known = [language.name for language in languages.LANGUAGES]
    yield from _language_shares("synthesis.language_shares", synthesis.language_shares, known)


def _phases_from_first_synthetic(recipe: Recipe) -> list[str]:
    """The first phase that reads synthetic text, and all after it."""
    synthetic = {s.name for s in recipe.selections if s.source == "synthetic"}
    for index, phase in enumerate(recipe.phases):
        if any(part.selection in synthetic for part in phase.data):
            return [p.name for p in recipe.phases[index:]]
    return []
