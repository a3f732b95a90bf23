"""Several processes as one run: how they find each other, what they agree on, how they end.

The first process decides whatever could be seen differently by different hosts (which step is
done, which checkpoint is the last) and tells the others through the key-value store of JAX's
coordination service, so waiting for hours costs nothing. A fault of one process ends all of them
with its message and exit code. Alone, every function here is what it says without the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from snowcoder_jax import storage, strict
from snowcoder_jax.errors import EXIT_DONE, EXIT_SAVED, InputError, MachineError
from snowcoder_jax.recipe import Recipe, fingerprint
from snowcoder_jax.training.launch import Launch

if TYPE_CHECKING:
    from jax.sharding import Mesh

# A wait is cut into pieces of this length, between which SIGTERM is seen.
_WAIT_MILLISECONDS = 1_000
# How long a process that ends with a fault stays to let the others read it.
_FAREWELL_SECONDS = 5.0
# How long one that has read it takes to end.
_LAST_SECONDS = 0.5

_num_heard: Counter[str] = Counter()
_is_leaving = threading.Lock()


def initialize(launch: Launch | None) -> None:
    """Join the other processes; before any other use of JAX.

    Where JAX knows of no Cloud TPU (a container, Colab, GPUs beside an installed libtpu) the
    process goes on alone, and says so on stderr.

    Raises:
      MachineError: they cannot be reached within five minutes, or a TPU's metadata server at all.
    """
    if launch is None or launch.num_processes == 1:
        return
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # SIGTERM is ours: the loop lets all processes agree on a step, and saves.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if launch.method == "given":
            jax.distributed.initialize(
                launch.coordinator,
                launch.num_processes,
                launch.process_id,
                cluster_detection_method="deactivate",
            )
        elif launch.method == "slurm":
            jax.distributed.initialize(
                num_processes=launch.num_processes, cluster_detection_method="slurm"
            )
        else:
            jax.distributed.initialize()
    except jax.errors.JaxRuntimeError as e:
        raise MachineError(
            f"the other processes cannot be reached ({str(e).splitlines()[0]}). See that all are "
            "started, with one --coordinator, and that its port is open between the hosts."
        ) from e
    except OSError as e:
        # A host of a pod that goes on alone would write what the others write.
        raise MachineError(
            f"the metadata server, which knows the other hosts, does not answer ({e}). Set "
            "TPU_SKIP_MDS_QUERY=1 where there is none, to work alone."
        ) from e
    except ValueError as e:
        if launch.method != "tpu" or "coordinator_address should be defined" not in str(e):
            raise
        print(
            "snowcoder: no Cloud TPU metadata here, so this process works alone. For several "
            "hosts give each --coordinator, --num-processes and --process-id.",
            file=sys.stderr,
            flush=True,
        )
    if process_count() > 1:
        _listener.start()


def process_index() -> int:
    return 0 if _client() is None else int(_state().process_id)


def process_count() -> int:
    return 1 if _client() is None else int(_state().num_processes)


def is_first() -> bool:
    """Whether this process is the one that decides, writes and reports."""
    return process_index() == 0


def agreed(topic: str, decide: Callable[[], Any]) -> Any:
    """What `decide` gives in the first process (JSON), in all of them.

    All processes must call it with the same topics in the same order. An InputError or
    MachineError of `decide` is raised by all.
    """
    if process_count() == 1:
        return decide()
    key = _key(topic)
    if is_first():
        try:
            value = decide()
        except (InputError, MachineError) as e:
            _put(key, {"error": type(e).__name__, "message": str(e)})
            raise
        _put(key, {"value": value})
        return value
    told = _wait_for(key)
    if "error" in told:
        kind = InputError if told["error"] == "InputError" else MachineError
        raise kind(told["message"])
    return told["value"]


def gathered(topic: str, value: Any) -> list[Any]:
    """The value (JSON) of each process, in all of them; as `agreed`, all must call it."""
    if process_count() == 1:
        return [value]
    key = _key(topic)
    _put(f"{key}/{process_index()}", value)
    return [_wait_for(f"{key}/{i}") for i in range(process_count())]


def require_same_recipe(recipe: Recipe, code: str) -> None:
    """Raises InputError, in all processes, where one has another recipe or other code."""
    mine = {"code": code, **_leaves("", strict.to_plain(recipe))}
    if len(set(gathered("recipe fingerprint", fingerprint(mine)))) == 1:
        return
    everyone = gathered("recipe", mine)
    faults = []
    for i, other in enumerate(everyone[1:], start=1):
        for field in sorted(everyone[0].keys() | other.keys()):
            first, theirs = everyone[0].get(field), other.get(field)
            if first != theirs:
                faults.append(f"  {field}: {first} in process 0, {theirs} in process {i}")
    raise InputError(
        f"{len(faults)} difference(s) between the processes of this run:\n"
        + "\n".join(faults[:20])
        + "\nGive every host the same recipe, overrides and version of this project."
    )


def _leaves(path: str, node: Any) -> dict[str, Any]:
    if isinstance(node, dict):
        pairs = [(f"{path}.{name}".lstrip("."), child) for name, child in node.items()]
    elif isinstance(node, list):
        pairs = [(f"{path}.{i}", child) for i, child in enumerate(node)]
    else:
        return {path: node}
    return {name: leaf for at, child in pairs for name, leaf in _leaves(at, child).items()}


def compiled_by_all(step: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """A jitted function, compiled for these arguments in all processes before any goes on.

    On CPUs a process waits 30 seconds for the others in their first collective operation, and
    compiling may take longer in one than in another. Alone, it is compiled when it is called.
    """
    if process_count() == 1:
        return step
    compiled: Callable[..., Any] = step.lower(*arguments).compile()  # type: ignore[attr-defined]
    gathered("compiled", None)
    return compiled


class StopVote:
    """Whether any process was asked to stop: one scalar all-reduce a step, read a step later.

    The answer to a vote is the same in all processes, so all of them save at the same step; that
    it comes one step late keeps the devices busy. Alone, the answer is the vote.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._pending: Any = None
        if process_count() == 1:
            return
        import jax
        import numpy as np
        from jax.sharding import NamedSharding, PartitionSpec

        split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        whole = NamedSharding(mesh, PartitionSpec())
        self._any = jax.jit(lambda votes: votes.max(), out_shardings=whole)
        self._ballots = {
            vote: jax.make_array_from_process_local_data(
                split, np.full(mesh.local_mesh.size, vote, np.int32), (mesh.size,)
            )
            for vote in (False, True)
        }

    def cast(self, wants_to_stop: bool) -> bool:
        """Vote; returns what came of the vote before this one (alone: this one)."""
        if process_count() == 1:
            return wants_to_stop
        before, self._pending = self._pending, self._any(self._ballots[wants_to_stop])
        return before is not None and bool(before)


def row_share(mesh: Mesh, batch_size: int) -> tuple[int, int]:
    """Which share of a batch's rows this process reads: (index, number of shares).

    Processes that hold other positions or other parts of the weights of the same rows have the
    same share.
    """
    import jax

    from snowcoder_jax.training.mesh import batch_sharding

    rows_of: dict[int, set[int]] = {}
    slices: Any = batch_sharding(mesh).devices_indices_map((batch_size, 1))
    for device, (rows, _) in slices.items():
        start, stop, _ = rows.indices(batch_size)
        rows_of.setdefault(device.process_index, set()).update(range(start, stop))
    shares = sorted({tuple(sorted(rows)) for rows in rows_of.values()})
    if sum(len(share) for share in shares) != batch_size:
        raise InputError(
            f"hardware.mesh: {dict(mesh.shape)} gives the {len(rows_of)} processes rows that "
            "overlap in part. Let replica x fsdp be a multiple of their number, or divide it."
        )
    return shares.index(tuple(sorted(rows_of[jax.process_index()]))), len(shares)


def require_shared(folder: str) -> None:
    """Raises InputError, in all processes, where one does not see what the first writes there."""
    probe = storage.join(folder, f".shared-{os.getpid()}")
    if process_count() == 1:
        return
    probe = agreed("shared folder", lambda: _written(probe))
    sees = gathered("sees the shared folder", storage.exists(probe))
    if is_first():
        storage.remove(probe)
    if not all(sees):
        raise InputError(
            f"{folder}: process {sees.index(False)} does not see what process 0 writes there. "
            "Set `output` to a folder that all hosts share, such as gs://BUCKET/FOLDER."
        )


def _written(path: str) -> str:
    storage.write_bytes(path, b"")
    return path


def lost_others(error: BaseException) -> MachineError | None:
    """What to say of an error of JAX that comes from the end of another process."""
    text = str(error)
    if process_count() == 1 or not ("Gloo" in text or "UNAVAILABLE" in text):
        return None
    return MachineError(
        f"another process of the run is gone ({text.splitlines()[0][:200]}). See its messages, "
        "and start the run again."
    )


def leave(code: int, message: str | None = None) -> None:
    """End this process's part of the run; returns where nobody else is concerned.

    Args:
      code: 0 and 75 without a message are the end of all, who have agreed on it. Anything else
        is a fault of this process: the others end with its code and message, at once.
    """
    if process_count() == 1:
        return
    is_end_of_all = code in (EXIT_DONE, EXIT_SAVED) and message is None
    if is_end_of_all:
        # The shutdown has a deadline, and another process may be hashing a large checkpoint.
        gathered("leaving", None)
    if not _is_leaving.acquire(blocking=False):
        # `_end_with_others` is at it and ends this process, or SIGTERM cut an earlier call short.
        with contextlib.suppress(BaseException):
            _listener.join()
        _exit(code)
    if is_end_of_all:
        import jax

        try:
            _listener.join()  # a call into JAX must not be under way when Python ends
            jax.distributed.shutdown()
        except BaseException:  # a process died after all had agreed, or SIGTERM came again
            _exit(code)
        return
    mine = {"process": process_index(), "code": code, "message": message}
    with contextlib.suppress(BaseException):  # the store may be gone, or SIGTERM come again
        told = _first_fault(mine)
        if told["message"] != message:  # what went wrong here came of that
            _print_fault(told)
        code = int(told["code"])
        _put(f"heard/{process_index()}", True)
    _exit(code)


def _first_fault(mine: dict[str, Any]) -> dict[str, Any]:
    """What all end with: the first fault that was told."""
    with contextlib.suppress(Exception):  # there is one already
        _put("fault", mine)
    fault: dict[str, Any] = _wait_for("fault")
    return fault


def _print_fault(fault: dict[str, Any]) -> None:
    text = f"snowcoder: process {fault['process']}: {fault['message']}"
    print(text, file=sys.stderr, flush=True)


def _end_with_others() -> None:
    """In a thread: end this process when another one reports a fault."""
    try:
        fault = _wait_for("fault", until=_is_leaving.locked)
    except Exception:
        # The service is gone, and its process with it.
        if _is_leaving.acquire(blocking=False):
            print("snowcoder: process 0 is gone; start the run again", file=sys.stderr, flush=True)
            _exit(1)
        return
    if fault is not None and _is_leaving.acquire(blocking=False):
        with contextlib.suppress(Exception):
            _put(f"heard/{process_index()}", True)
        _print_fault(fault)
        _exit(int(fault["code"]))


def _exit(code: int) -> NoReturn:
    try:
        # The first process carries the store that the others read from; where it goes before them
        # they are aborted.
        end = time.monotonic() + _FAREWELL_SECONDS
        with contextlib.suppress(Exception):
            while is_first() and time.monotonic() < end:
                if len(_client().key_value_dir_get("snowcoder/heard")) == process_count():
                    time.sleep(_LAST_SECONDS)
                    break
                time.sleep(0.05)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # An orderly end would wait for processes that will not come.
        os._exit(code)


def _key(topic: str) -> str:
    _num_heard[topic] += 1
    return f"{topic}/{_num_heard[topic]}"


def _put(key: str, value: Any) -> None:
    _client().key_value_set(f"snowcoder/{key}", json.dumps(value))


_listener = threading.Thread(target=_end_with_others, daemon=True)


def _wait_for(key: str, until: Callable[[], bool] = lambda: False) -> Any:
    """The value of a key once somebody has put it; None where `until` became true before."""
    import jax

    while not until():
        try:
            text = _client().blocking_key_value_get(f"snowcoder/{key}", _WAIT_MILLISECONDS)
        except jax.errors.JaxRuntimeError as e:
            if "DEADLINE_EXCEEDED" not in str(e):
                raise
        else:
            return json.loads(text)
    return None


def _state() -> Any:
    # JAX shows its key-value store nowhere else; Orbax takes it from here too.
    from jax._src import distributed

    return distributed.global_state


def _client() -> Any:
    return _state().client if "jax" in sys.modules else None
