"""Which teacher it is, told without its environment: its name, and what changes its answers."""

from __future__ import annotations

import os
from typing import Any

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import fingerprint
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, ServerTeacher, VllmTeacher

# Of a model folder: what is small and changes answers goes by its bytes (configuration, tokenizer,
# chat template), weights by their names and sizes; the rest (a README) changes nothing.
_BY_BYTES = (".json", ".jinja", ".model", ".txt", ".tiktoken")
_BY_SIZE = (".safetensors", ".bin", ".pt", ".gguf")


def teacher_name(teacher: CheckpointTeacher | VllmTeacher | ServerTeacher) -> str:
    """As in the `repo` of what it writes; never the path of somebody's folder."""
    if isinstance(teacher, CheckpointTeacher):
        # Not the run's name: it would go into ids, and runs of one recipe share what is written.
        return teacher.phase
    if isinstance(teacher, VllmTeacher) and is_folder_name(teacher.model):
        return os.path.basename(teacher.model.rstrip("/"))
    return teacher.model


def teacher_fingerprint(
    teacher: CheckpointTeacher | VllmTeacher | ServerTeacher,
    *,
    checkpoint_key: str = "",
    compute_dtype: str = "",
) -> str:
    """16 hex digits; part of every request's key, and the name of the store of its answers.

    A model folder may be moved without a change, and servers exchanged. `max_model_len` decides
    which prompts fit and changes no answer. How many devices share the work is no part of it,
    though it moves the last bits of the logits.

    Args:
      checkpoint_key: of a checkpoint teacher, the key of the step that trained it;
        compute_dtype: what it is run in.

    Raises:
      InputError: the model folder is not there.
    """
    if isinstance(teacher, CheckpointTeacher):
        return fingerprint("checkpoint", checkpoint_key, compute_dtype)
    if isinstance(teacher, ServerTeacher):
        return fingerprint("server", teacher.model, teacher.mode)
    model = _folder_facts(teacher.model) if is_folder_name(teacher.model) else teacher.model
    return _of_vllm(teacher, model)


def settings_fingerprint(teacher: VllmTeacher) -> str:
    """As `teacher_fingerprint`, whatever a model's folder holds and wherever it is."""
    return _of_vllm(teacher, teacher.model)


def _of_vllm(teacher: VllmTeacher, model: Any) -> str:
    return fingerprint("vllm", model, [teacher.mode, teacher.revision, teacher.dtype])


def is_folder_here(teacher: CheckpointTeacher | VllmTeacher | ServerTeacher) -> bool:
    """Whether the model is a folder of this machine."""
    return isinstance(teacher, VllmTeacher) and os.path.isdir(os.path.expanduser(teacher.model))


def is_folder_name(model: str) -> bool:
    """Whether a model is a folder and not a Hugging Face name (`owner/name`)."""
    return model.startswith(("/", ".", "~")) or os.path.isdir(model)


def has_chat_template(folder: str) -> bool:
    """Whether a model folder says how to write a conversation as text.

    Raises:
      InputError: its tokenizer_config.json is no JSON.
    """
    if any(os.path.exists(os.path.join(folder, f"chat_template.{e}")) for e in ("jinja", "json")):
        return True
    config = os.path.join(folder, "tokenizer_config.json")
    if not os.path.exists(config):
        return False
    try:
        told = storage.read_json(config)
    except ValueError as e:
        raise InputError(f"{config}: is no JSON ({e})") from e
    return isinstance(told, dict) and bool(told.get("chat_template"))


def _folder_facts(folder: str) -> dict[str, str | int]:
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        raise InputError(f"synthesis.teacher.model: the folder {folder} is not there. Mend it.")
    facts: dict[str, str | int] = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(_BY_BYTES):
            facts[name] = storage.sha256_file(path)
        elif name.endswith(_BY_SIZE):
            facts[name] = storage.size_bytes(path)
    return facts
