"""The manifests that vouch for checkpoints: `FOLDER/<step>.manifest.json`, written after the last
byte of `FOLDER/<step>/`. Which steps are whole, which are kept, which one training goes on from.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import xxhash

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Checkpointing

Manifest = dict[str, Any]

_FIELDS = ("key", "arrays", "files")
_LOG = logging.getLogger(__name__)


def latest_step(folder: str) -> int | None:
    """The last whole step in a phase's folder, or None."""
    steps = _whole_steps(absolute(folder))
    return max(steps) if steps else None


def step_to_resume(folder: str) -> int | None:
    """The last whole step whose manifest can be read, or None where there is no step.

    What training goes on from: the steps after it are made again. The log names them, and the
    next `Checkpoints` of the folder removes them like half-written ones.

    Raises:
      InputError: there are steps, and no manifest can be read; to train anew without being asked
        could cost weeks.
    """
    step, damaged = _last_sound(absolute(folder))
    if step is None and damaged:
        read_manifest(folder, damaged[0])
    for other in damaged:
        path = manifest_path(absolute(folder), other)
        _LOG.warning("%s: is damaged; that step is done again, from step %s on", path, step)
    return step


def read_manifest(folder: str, step: int) -> Manifest:
    """A step's manifest: key, step, arrays (name to shape and dtype), files, and its facts.

    Raises:
      InputError: it is damaged.
    """
    folder = absolute(folder)
    try:
        manifest: Manifest = storage.read_json(manifest_path(folder, step))
    except InputError as e:
        raise damage(folder, step, "its manifest is no JSON") from e
    lacks = [f for f in _FIELDS if not isinstance(manifest, dict) or f not in manifest]
    if lacks:
        raise damage(folder, step, f"its manifest lacks {', '.join(lacks)}")
    return manifest


def _last_sound(folder: str) -> tuple[int | None, list[int]]:
    """The last whole step with a sound manifest, and those after it."""
    damaged = []
    for step in sorted(_whole_steps(folder), reverse=True):
        try:
            read_manifest(folder, step)
        except InputError:
            damaged.append(step)
        else:
            return step, damaged
    return None, damaged


def damage(folder: str, step: int, what: str) -> InputError:
    """The message of a checkpoint that cannot be restored, with its mend."""
    others = [s for s in _whole_steps(folder) if s != step]
    then = f"to go on from step {max(others)}" if others else "to start this phase anew"
    return InputError(
        f"{step_path(folder, step)}: the checkpoint is damaged: {what}. "
        f"Remove {manifest_path(folder, step)} {then}."
    )


def write_manifest(folder: str, step: int, manifest: Manifest) -> None:
    """Vouch for a step whose last byte is written."""
    path = step_path(folder, step)
    sizes = storage.sizes_bytes(path)
    files = {name: voucher(storage.join(path, name), size) for name, size in sizes.items()}
    storage.write_json(manifest_path(folder, step), {**manifest, "files": files})


def remove_unkept(folder: str, policy: Checkpointing) -> None:
    """Only whole steps count as kept, so there is always one to go back to."""
    whole = sorted(_whole_steps(folder))
    every = policy.keep_every_steps
    for step in whole[: -policy.keep_last]:
        if every is None or step % every:
            # The manifest first: what a kill leaves of the rest is then taken for nothing.
            storage.remove(manifest_path(folder, step))
            storage.remove(step_path(folder, step))


def voucher(file: str, size_bytes: int) -> list[Any]:
    """Size in bytes, and a hash where reading costs nothing beside the write: a local disk."""
    if not storage.is_local(file):
        return [size_bytes]
    digest = xxhash.xxh3_128()
    with open(file, "rb") as f:
        while block := f.read(1 << 22):
            digest.update(block)
    return [size_bytes, digest.hexdigest()]


def remove_unfinished(folder: str) -> None:
    """Remove what a kill cut short, and what `step_to_resume` passes over."""
    sound, damaged = _last_sound(folder)
    if sound is not None:
        for step in damaged:  # left, they would count among those kept
            storage.remove(manifest_path(folder, step))
    names = {_below(folder, f).split("/")[0] for f in storage.list_files(folder)}
    left = {name for name in names if ".orbax-checkpoint-tmp" in name}
    left |= {str(step) for step in _step_folders(folder) - _manifests(folder)}
    for name in left:
        storage.remove(storage.join(folder, name))
    for step in _manifests(folder) - _step_folders(folder):
        storage.remove(manifest_path(folder, step))


def _whole_steps(folder: str) -> set[int]:
    return _manifests(folder) & _step_folders(folder)


def _manifests(folder: str) -> set[int]:
    found = (_below(folder, f) for f in storage.list_files(folder, storage.MANIFEST_SUFFIX))
    names = [name.removesuffix(storage.MANIFEST_SUFFIX) for name in found]
    return {int(name) for name in names if name.isdecimal()}


def _step_folders(folder: str) -> set[int]:
    names = {_below(folder, f).split("/")[0] for f in storage.list_files(folder)}
    return {int(name) for name in names if name.isdecimal()}


def _below(folder: str, path: str) -> str:
    return path.removeprefix(folder.rstrip("/") + "/")


def absolute(folder: str) -> str:
    """A phase's folder as Orbax wants it."""
    return os.path.abspath(folder) if storage.is_local(folder) else folder.rstrip("/")


def step_path(folder: str, step: int) -> str:
    return storage.join(folder, str(step))


def manifest_path(folder: str, step: int) -> str:
    return step_path(folder, step) + storage.MANIFEST_SUFFIX
