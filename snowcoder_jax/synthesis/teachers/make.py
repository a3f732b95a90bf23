"""The teacher that an ask names, in the process that asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Recipe
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, ServerTeacher, VllmTeacher
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.teachers import Teacher
from snowcoder_jax.synthesis.teachers.identity import teacher_fingerprint, teacher_name
from snowcoder_jax.tokenizer import Tokenizer


def make_teacher(
    ask: Ask, *, recipe: Recipe | None = None, load_params: Callable[[str], Any] | None = None
) -> Teacher:
    """The teacher of `ask.synthesis`, whose fingerprint is the ask's.

    Args:
      recipe, load_params: of a checkpoint teacher: its run's recipe, and phase name -> its last
        parameters.

    Raises:
      InputError: a checkpoint teacher outside of its run; a model folder that is another one than
        the ask was made for.
    """
    settings = ask.synthesis.teacher
    name = teacher_name(settings)
    if isinstance(settings, ServerTeacher):
        from snowcoder_jax.synthesis.teachers.servers import ServersTeacher

        return ServersTeacher(settings, fingerprint=ask.teacher_fingerprint)
    if isinstance(settings, CheckpointTeacher):
        if recipe is None or load_params is None:
            raise InputError(
                f"synthesis.teacher: the checkpoint `{settings.phase}` is asked by `snowcoder "
                "synthesize RECIPE` itself. Workers ask `kind: vllm` and `kind: server`."
            )
        from snowcoder_jax.synthesis.teachers.checkpoint import CheckpointTeacher as Checkpoint

        return Checkpoint(
            load_params(settings.phase),
            recipe.model,
            Tokenizer.load(ask.tokenizer),
            name=name,
            fingerprint=ask.teacher_fingerprint,
            batch_size=settings.batch_size,
            compute_dtype=recipe.hardware.compute_dtype,
        )
    check_model(ask, settings)
    from snowcoder_jax.synthesis.teachers.vllm_engine import VllmEngine

    return VllmEngine(settings, name=name, fingerprint=ask.teacher_fingerprint)


def check_model(ask: Ask, settings: VllmTeacher) -> None:
    """Raises InputError where the model of that name is here another one than the ask's."""
    if teacher_fingerprint(settings) != ask.teacher_fingerprint:
        raise InputError(
            f"synthesis.teacher.model: {settings.model} differs here from the model that the "
            "questions were made for (configuration, tokenizer, chat template or sizes of "
            "weights). Copy the same folder to all machines, or run `snowcoder synthesize` again."
        )
