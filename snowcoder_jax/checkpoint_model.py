"""A trained checkpoint as a model to export or to write with: parameters, shape, tokenizer."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Recipe, load_recipe
from snowcoder_jax.tokenizer import FILE_SEP, Tokenizer


@dataclasses.dataclass(frozen=True)
class CheckpointModel:
    recipe: Recipe
    params: Any
    tokenizer_folder: str


def load(checkpoint: str) -> CheckpointModel:
    """Load `runs/NAME/checkpoints/PHASE`.

    Raises:
      InputError: there is no such checkpoint, or its run's recipe or tokenizer is gone.
    """
    from snowcoder_jax.training.checkpoints import load_params

    checkpoint = checkpoint.rstrip("/")
    run = os.path.dirname(os.path.dirname(checkpoint))
    recipe_path = storage.join(run or ".", "recipe.yaml")
    if not storage.exists(recipe_path):
        raise InputError(
            f"{checkpoint}: no run's recipe at {recipe_path}. "
            "Name a folder such as runs/local/checkpoints/enhanced."
        )
    if not storage.exists(checkpoint):
        phases = os.path.dirname(checkpoint)
        names = os.listdir(phases) if os.path.isdir(phases) else []
        found = sorted(name for name in names if name[0] != ".")
        raise InputError(f"{checkpoint}: is not there. Found: {', '.join(found) or 'none'}.")
    tokenizer = storage.read_json(storage.join(run, "folders.json"))["tokenizer"]
    return CheckpointModel(load_recipe(recipe_path), load_params(checkpoint), tokenizer)


def export(model: CheckpointModel, folder: str) -> None:
    """Write the model in Hugging Face Llama format."""
    from snowcoder_jax.model.huggingface import export_llama

    vocab_size = model.recipe.tokenizer.vocab_size
    export_llama(model.params, model.recipe.model, vocab_size, model.tokenizer_folder, folder)


def generate(
    model: CheckpointModel,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> str:
    """What the model writes after `prompt`, read as the start of a file."""
    from snowcoder_jax.evaluation.sampler import Sampler

    tokenizer = Tokenizer.load(model.tokenizer_folder)
    sampler = Sampler(model.params, model.recipe.model, tokenizer.vocab_size)
    (ids,) = sampler.generate(
        [[tokenizer.special(FILE_SEP), *tokenizer.encode(prompt)]],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seeds=[seed],
        stop_ids=[tokenizer.end_of_text, tokenizer.special(FILE_SEP)],
        batch_size=1,
    )
    return tokenizer.decode(ids)
