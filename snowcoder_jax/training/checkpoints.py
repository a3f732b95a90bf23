"""Checkpoints of one phase: `FOLDER/<step>/` by Orbax, `FOLDER/<step>.manifest.json` beside it.

The manifest is written after the last byte of its step and names every file with its size (on a
local disk also its hash), so a step without one is never taken, and a damaged one is never
restored in part.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import xxhash
from jax.tree_util import keystr, tree_flatten_with_path

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.training.state import TrainState

# The parameters are an item of their own, so that inference reads nothing else.
_PARAMS, _REST = "params", "rest"

Arrays = dict[str, Any]
Manifest = dict[str, Any]


class Checkpoints:
    """Writes the checkpoints of one phase; a context manager that leaves nothing unfinished.

    What an earlier process left half-written in the folder is removed on entry. The last two
    steps are kept, and so the phase's end stays for ever: no later step follows it.
    """

    def __init__(self, folder: str) -> None:
        self._folder = _absolute(folder)
        self._is_writer = jax.process_index() == 0
        if self._is_writer:
            _remove_unfinished(self._folder)
        with storage.machine_faults(self._folder):
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True),
            )
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._unfinished: tuple[int, Manifest] | None = None
        self._manifest_written: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.finish()
        finally:
            self._pool.shutdown()
            self._manager.close()

    def save(self, state: TrainState, step: int, key: str, facts: dict[str, Any]) -> None:
        """Start to save; returns once the state may be donated.

        Args:
          key: fingerprint of what the phase was trained with.
          facts: anything JSON for the manifest.
        """
        self.finish()
        params, rest = _flat(state.params), _flat_rest(state)
        arrays = {name: _shape_and_dtype(x) for name, x in {**_prefixed(params), **rest}.items()}
        with storage.machine_faults(self._folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{
                        _PARAMS: ocp.args.StandardSave(params),
                        _REST: ocp.args.StandardSave(rest),
                    }
                ),
                force=True,
            )
        self._unfinished = (step, {"key": key, "step": step, "arrays": arrays, **facts})

    def poll(self) -> None:
        """Write the manifest of a save that is done, if there is one; never waits for it."""
        if self._unfinished and not self._manager.is_saving_in_progress():
            self._start_manifest()

    def finish(self) -> None:
        """Wait until what was saved is whole, manifest included.

        Raises:
          InputError, MachineError: it cannot be written.
        """
        with storage.machine_faults(self._folder):
            if self._unfinished:
                self._start_manifest()
            if self._manifest_written is not None:
                self._manifest_written.result()
                self._manifest_written = None

    def _start_manifest(self) -> None:
        assert self._unfinished is not None
        step, manifest = self._unfinished
        self._unfinished = None
        self._wait_for_orbax()
        if self._is_writer:
            self._manifest_written = self._pool.submit(
                _write_manifest, self._folder, step, manifest
            )

    def _wait_for_orbax(self) -> None:
        try:
            self._manager.wait_until_finished()
        except OSError:
            raise
        except Exception as e:  # TensorStore reports a full disk as a ValueError with a status
            cause = "the disk is full" if "No space left on device" in str(e) else str(e)
            raise MachineError(
                f"{self._folder}: a checkpoint could not be written: {cause}. "
                "Free some space and start the same command again; earlier checkpoints are kept."
            ) from e


def _is_not_raised_as_well(record: logging.LogRecord) -> bool:
    # Orbax logs what went wrong in its threads, with a dozen tracebacks, and then raises it here.
    return not (record.levelno >= logging.ERROR and record.getMessage().startswith("[process="))


logging.getLogger("absl").addFilter(_is_not_raised_as_well)


def latest_step(folder: str) -> int | None:
    """The last whole step in a phase's folder, or None."""
    steps = _whole_steps(_absolute(folder))
    return max(steps) if steps else None


def read_manifest(folder: str, step: int) -> Manifest:
    """A step's manifest: key, step, arrays (name to shape and dtype), files, and its facts."""
    manifest: Manifest = storage.read_json(_manifest_path(_absolute(folder), step))
    return manifest


def restore(folder: str, step: int, shapes: TrainState) -> TrainState:
    """The state of a step, on the shardings of `shapes` (any mesh, not only the one saved from).

    Raises:
      InputError: the checkpoint is of another model or optimizer, or is damaged.
    """
    params = restore_params(folder, step, shapes)
    return TrainState(params=params, **_restore_rest(folder, step, shapes))


def restore_params(folder: str, step: int, shapes: TrainState) -> Any:
    """The parameters alone; raises as `restore` does."""
    flat = _restore_item(folder, step, _PARAMS, _flat(shapes.params))
    return _unflat_like(shapes.params, flat)


def restore_moments(folder: str, step: int, shapes: TrainState) -> Any:
    """The optimizer's state alone; raises as `restore` does."""
    return _restore_rest(folder, step, shapes)["opt_state"]


def load_params(folder: str, step: int | None = None) -> dict[str, Any]:
    """The parameters of a phase as a nested dict of numpy arrays, for inference and export.

    Args:
      folder: a phase's checkpoint folder.
      step: None takes the last.

    Raises:
      InputError: there is no whole checkpoint, or it is damaged.
    """
    if step is None:
        step = latest_step(folder)
        if step is None:
            raise InputError(
                f"{folder}: holds no whole checkpoint. Name the folder of a phase that was "
                "trained, such as runs/NAME/checkpoints/PHASE."
            )
    arrays = read_manifest(folder, step)["arrays"]
    wanted = {
        name.removeprefix(f"{_PARAMS}."): np.empty(shape, dtype)
        for name, (shape, dtype) in arrays.items()
        if name.startswith(f"{_PARAMS}.")
    }
    params: dict[str, Any] = {}
    for name, array in _restore_item(folder, step, _PARAMS, wanted).items():
        *parents, leaf = name.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = np.asarray(array)
    return params


def _restore_rest(folder: str, step: int, shapes: TrainState) -> dict[str, Any]:
    wanted = {
        "step": shapes.step,
        "opt_state": shapes.opt_state,
        "num_skipped": shapes.num_skipped,
        "num_skipped_in_a_row": shapes.num_skipped_in_a_row,
    }
    rest: dict[str, Any] = _unflat_like(
        wanted, _restore_item(folder, step, _REST, _flat_rest(shapes))
    )
    return rest


def _restore_item(folder: str, step: int, item: str, wanted: Arrays) -> Arrays:
    folder = _absolute(folder)
    _check_files(folder, step, item)
    saved = read_manifest(folder, step)["arrays"]
    is_params = item == _PARAMS
    asked = _prefixed(wanted) if is_params else wanted
    there = {n: s for n, s in saved.items() if n.startswith(f"{_PARAMS}.") == is_params}
    for name in sorted(asked.keys() | there.keys()):
        want = _shape_and_dtype(asked[name]) if name in asked else "nothing"
        have = there.get(name, "nothing")
        if want != have:
            raise InputError(
                f"{_step_path(folder, step)}: is a checkpoint of another model or optimizer: "
                f"`{name}` is {have} there and {want} in the recipe. "
                "Set `model` as it was when this was trained, or start from another phase."
            )
    checkpointer = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    try:
        restored: Arrays = checkpointer.restore(
            storage.join(_step_path(folder, step), item), args=ocp.args.StandardRestore(wanted)
        )
    except (ValueError, OSError, KeyError) as e:
        raise _damaged(folder, step, str(e).splitlines()[0]) from e
    finally:
        checkpointer.close()
    return restored


def _check_files(folder: str, step: int, item: str) -> None:
    path = _step_path(folder, step)
    for name, vouched in read_manifest(folder, step)["files"].items():
        if "/" in name and not name.startswith(f"{item}/"):
            continue
        file = storage.join(path, name)
        if not storage.exists(file):
            raise _damaged(folder, step, f"{file} is missing")
        if _vouch(file) != vouched:
            raise _damaged(folder, step, f"{file} is not what was saved")


def _damaged(folder: str, step: int, what: str) -> InputError:
    others = [s for s in _whole_steps(folder) if s != step]
    then = f"to go on from step {max(others)}" if others else "to start this phase anew"
    return InputError(
        f"{_step_path(folder, step)}: the checkpoint is damaged: {what}. "
        f"Remove {_manifest_path(folder, step)} {then}."
    )


def _write_manifest(folder: str, step: int, manifest: Manifest) -> None:
    path = _step_path(folder, step)
    files = {f.removeprefix(f"{path}/"): _vouch(f) for f in storage.list_files(path)}
    storage.write_json(_manifest_path(folder, step), {**manifest, "files": files})
    kept = {str(s) for s in _step_folders(folder)}
    for old in _manifests(folder):
        if str(old) not in kept:
            storage.remove(_manifest_path(folder, old))


def _vouch(file: str) -> list[Any]:
    """Size in bytes, and a hash where reading costs nothing beside the write: a local disk."""
    if not storage.is_local(file):
        return [storage.size_bytes(file)]
    digest = xxhash.xxh3_128()
    with open(file, "rb") as f:
        while block := f.read(1 << 22):
            digest.update(block)
    return [storage.size_bytes(file), digest.hexdigest()]


def _remove_unfinished(folder: str) -> None:
    whole = _whole_steps(folder)
    for step in _step_folders(folder):
        if step not in whole:
            storage.remove(_step_path(folder, step))


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


def _absolute(folder: str) -> str:
    return os.path.abspath(folder) if storage.is_local(folder) else folder.rstrip("/")


def _step_path(folder: str, step: int) -> str:
    return storage.join(folder, str(step))


def _manifest_path(folder: str, step: int) -> str:
    return _step_path(folder, step) + storage.MANIFEST_SUFFIX


def _flat(tree: Any) -> Arrays:
    leaves, _ = tree_flatten_with_path(tree)
    return {keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _flat_rest(state: TrainState) -> Arrays:
    return {n: x for n, x in _flat(state).items() if not n.startswith(f"{_PARAMS}.")}


def _prefixed(params: Arrays) -> Arrays:
    return {f"{_PARAMS}.{name}": x for name, x in params.items()}


def _unflat_like(tree: Any, flat: Arrays) -> Any:
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in _flat(tree)])


def _shape_and_dtype(array: Any) -> list[Any]:
    return [list(array.shape), str(array.dtype)]
