"""A trained checkpoint as a model to export or to write with: parameters, shape, tokenizer."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from snowcoder_jax import storage, strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Model
from snowcoder_jax.tokenizer import FILE_SEP, Tokenizer


@dataclasses.dataclass(frozen=True)
class CheckpointModel:
    config: Model
    vocab_size: int
    params: Any
    tokenizer_folder: str


def load(checkpoint: str) -> CheckpointModel:
    """Load `runs/NAME/checkpoints/PHASE`.

    Raises:
      InputError: there is no such checkpoint.
    """
    from snowcoder_jax.training.checkpoints import load_params

    checkpoint = checkpoint.rstrip("/")
    facts_path = storage.join(checkpoint, "key.json")
    if not storage.exists(facts_path):
        phases = os.path.dirname(checkpoint) or "."
        names = os.listdir(phases) if os.path.isdir(phases) else []
        found = sorted(name for name in names if name[0] != ".")
        raise InputError(
            f"{checkpoint}: is no phase's checkpoint folder. Name one such as "
            f"runs/local/checkpoints/enhanced. Beside it: {', '.join(found) or 'nothing'}."
        )
    facts = storage.read_json(facts_path)
    faults: list[strict.Fault] = []
    config = strict.load(Model, facts["model"], faults)
    if config is None:
        lines = "; ".join(map(str, faults))
        raise InputError(f"{facts_path}: was written by another version ({lines}). Use that one.")
    return CheckpointModel(
        config,
        facts["vocab_size"],
        load_params(checkpoint),
        storage.resolve(facts["tokenizer"], checkpoint),
    )


def export(model: CheckpointModel, folder: str) -> None:
    """Write the model in Hugging Face Llama format."""
    from snowcoder_jax.model.huggingface import export_llama

    export_llama(model.params, model.config, model.vocab_size, model.tokenizer_folder, folder)


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
    sampler = Sampler(model.params, model.config, model.vocab_size)
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
