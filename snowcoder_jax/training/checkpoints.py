"""Checkpoints of one phase: `FOLDER/<step>/` by Orbax, `FOLDER/<step>.manifest.json` beside it.

The manifest is written after the last byte of its step and names every file with its size (on a
local disk also its hash), so a step without one is never taken, and a damaged one is never
restored in part.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.tree_util import keystr, tree_flatten_with_path

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.recipe import Checkpointing
from snowcoder_jax.training import distributed, manifests
from snowcoder_jax.training.state import TrainState

# The parameters are an item of their own, so that inference reads nothing else.
_PARAMS, _REST = "params", "rest"

Arrays = dict[str, Any]

# Of one save, all processes together; beyond it something is broken.
_SAVE_TIMEOUT_SECONDS = 3_600
_FULL_DISK = ("No space left on device", "Disk quota exceeded", "File too large")


class Checkpoints:
    """Writes the checkpoints of one phase; a context manager that leaves nothing unfinished.

    All processes of a run make one and save together; the first writes manifests and removes
    what is not kept. What an earlier run left half-written in the folder is removed on entry.
    """

    def __init__(self, folder: str, policy: Checkpointing) -> None:
        self._folder = manifests.absolute(folder)
        self._policy = policy
        distributed.agreed("unfinished saves", lambda: manifests.remove_unfinished(self._folder))
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(), timeout_secs=_SAVE_TIMEOUT_SECONDS
        )
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._unfinished: concurrent.futures.Future[None] | None = None

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
            self._checkpointer.close()

    def save(self, state: TrainState, step: int, key: str, facts: dict[str, Any]) -> None:
        """Start to save; returns once the state may be donated.

        Args:
          key: fingerprint of what the phase was trained with.
          facts: anything JSON for the manifest.

        Raises:
          InputError, MachineError: this save cannot be begun, or the one before was not finished.
        """
        self.finish()
        params, rest = _flat(state.params), _flat_rest(state)
        arrays = {name: _shape_and_dtype(x) for name, x in {**_prefixed(params), **rest}.items()}
        manifest = {"key": key, "step": step, "arrays": arrays, **facts}
        items = {_PARAMS: params, _REST: rest}
        with self._faults():
            self._checkpointer.save(
                manifests.step_path(self._folder, step),
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(item) for name, item in items.items()}
                ),
                force=True,
            )
        self._unfinished = self._pool.submit(self._complete, step, manifest)

    def poll(self) -> None:
        """Raise what went wrong with a save that is over; never waits for it."""
        if self._unfinished is not None and self._unfinished.done():
            self.finish()

    def finish(self) -> None:
        """Wait until what was saved is whole, manifest included.

        Raises:
          InputError, MachineError: it cannot be written.
        """
        if self._unfinished is not None:
            unfinished, self._unfinished = self._unfinished, None
            with self._faults():
                unfinished.result()

    def _complete(self, step: int, manifest: manifests.Manifest) -> None:
        self._checkpointer.wait_until_finished()
        if distributed.is_first():
            manifests.write_manifest(self._folder, step, manifest)
            manifests.remove_unkept(self._folder, self._policy)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        with storage.machine_faults(self._folder):
            try:
                yield
            except (OSError, InputError, MachineError):
                raise
            except Exception as e:  # TensorStore reports a full disk as a ValueError with a status
                is_full = any(sign in str(e) for sign in _FULL_DISK)
                cause = "the disk is full" if is_full else str(e)
                raise MachineError(
                    f"{self._folder}: a checkpoint could not be written: {cause}. Free some space "
                    "and start the same command again; earlier checkpoints are kept."
                ) from e


def _is_not_raised_as_well(record: logging.LogRecord) -> bool:
    # Orbax logs what went wrong in its threads, with a dozen tracebacks, and then raises it here.
    return not (record.levelno >= logging.ERROR and record.getMessage().startswith("[process="))


logging.getLogger("absl").addFilter(_is_not_raised_as_well)


def _is_retrieved(record: logging.LogRecord) -> bool:
    # Of the arrays that cannot be written Orbax raises the first; of the others asyncio says, when
    # it lets go of them, that nobody asked.
    return "exception was never retrieved" not in record.getMessage()


logging.getLogger("asyncio").addFilter(_is_retrieved)


def _print_unraisable(met: Any) -> None:
    # Where one array cannot be written, Orbax raises that and closes its event loop; TensorStore's
    # threads, which then bring the outcomes of the others, print what they meet there.
    if str(met.exc_value) != "Event loop is closed":
        _print_as_before(met)


_print_as_before = sys.unraisablehook
sys.unraisablehook = _print_unraisable


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
        step = manifests.latest_step(folder)
        if step is None:
            raise InputError(
                f"{folder}: holds no whole checkpoint. Name the folder of a phase that was "
                "trained, such as runs/NAME/checkpoints/PHASE."
            )
    arrays = manifests.read_manifest(folder, step)["arrays"]
    wanted = {
        name.removeprefix(f"{_PARAMS}."): np.empty(shape, dtype)
        for name, (shape, dtype) in arrays.items()
        if name.startswith(f"{_PARAMS}.")
    }
    params: dict[str, Any] = {}
    for name, array in _restore_item(folder, step, _PARAMS, wanted, alone=True).items():
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


def _restore_item(
    folder: str, step: int, item: str, wanted: Arrays, *, alone: bool = False
) -> Arrays:
    """All processes restore together, each its part of every array, unless `alone`."""
    folder = manifests.absolute(folder)
    _check_files(folder, step, item, alone=alone)
    saved = manifests.read_manifest(folder, step)["arrays"]
    is_params = item == _PARAMS
    asked = _prefixed(wanted) if is_params else wanted
    there = {n: s for n, s in saved.items() if n.startswith(f"{_PARAMS}.") == is_params}
    for name in sorted(asked.keys() | there.keys()):
        want = _shape_and_dtype(asked[name]) if name in asked else "nothing"
        have = there.get(name, "nothing")
        if want != have:
            raise InputError(
                f"{manifests.step_path(folder, step)}: is a checkpoint of another model or "
                f"optimizer: `{name}` is {have} there and {want} in the recipe. "
                "Set `model` as it was when this was trained, or start from another phase."
            )
    me = distributed.process_index()
    options = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
    checkpointer = (
        ocp.Checkpointer(
            ocp.StandardCheckpointHandler(multiprocessing_options=options),
            multiprocessing_options=options,
        )
        if alone
        else ocp.Checkpointer(ocp.StandardCheckpointHandler())
    )
    try:
        restored: Arrays = checkpointer.restore(
            storage.join(manifests.step_path(folder, step), item),
            args=ocp.args.StandardRestore(wanted),
        )
    except (ValueError, OSError, KeyError) as e:
        raise manifests.damage(folder, step, str(e).splitlines()[0]) from e
    finally:
        checkpointer.close()
    return restored


def _check_files(folder: str, step: int, item: str, *, alone: bool) -> None:
    """Compare the files of an item with the manifest, each process its share of them."""
    vouched = manifests.read_manifest(folder, step)["files"]
    names = [name for name in sorted(vouched) if "/" not in name or name.startswith(f"{item}/")]
    sizes = storage.sizes_bytes(manifests.step_path(folder, step))
    fault = None
    part = (
        slice(None)
        if alone
        else slice(distributed.process_index(), None, distributed.process_count())
    )
    for name in names[part]:
        file = storage.join(manifests.step_path(folder, step), name)
        if name not in sizes:
            fault = f"{file} is missing"
        elif vouched[name] != manifests.voucher(file, sizes[name]):
            fault = f"{file} is not what was saved"
    faults = [fault] if alone else distributed.gathered("damaged files", fault)
    for found in faults:
        if found is not None:
            raise manifests.damage(folder, step, found)


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
