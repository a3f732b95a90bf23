"""How a process of a run finds the others: flags, environment variables, SLURM, a Cloud TPU."""

from __future__ import annotations

import dataclasses
import glob
import importlib.util
from collections.abc import Mapping

from snowcoder_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Launch:
    """How a process finds the others: `method` `given`, `slurm` or `tpu`.

    By SLURM, JAX finds out the coordinator and the id; on a TPU VM all three.
    """

    method: str
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def find_launch(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    environment: Mapping[str, str],
) -> Launch | None:
    """How this process was started: by the arguments, else SNOWCODER_COORDINATOR,
    SNOWCODER_NUM_PROCESSES and SNOWCODER_PROCESS_ID, else SLURM's variables, else as a TPU VM.

    Returns:
      None for a process of its own.

    Raises:
      InputError: only some of the three are given, or they make no sense.
    """
    given = {
        "--coordinator": coordinator or environment.get("SNOWCODER_COORDINATOR"),
        "--num-processes": _whole(num_processes, "SNOWCODER_NUM_PROCESSES", environment),
        "--process-id": _whole(process_id, "SNOWCODER_PROCESS_ID", environment),
    }
    missing = [flag for flag, value in given.items() if value is None]
    if not missing:
        address, total, index = given.values()
        assert isinstance(address, str)
        assert isinstance(total, int)
        assert isinstance(index, int)
        if not 0 <= index < total:
            raise InputError(
                f"--process-id {index}: is none of the {total} processes. "
                f"Number them from 0 to {total - 1}."
            )
        if not address.rpartition(":")[2].isdecimal():
            raise InputError(
                f"--coordinator {address}: has no port. Give HOST:PORT of process 0, the same "
                "to all processes."
            )
        return Launch("given", address, total, index)
    if len(missing) < len(given):
        raise InputError(
            f"{' and '.join(missing)}: missing. Give --coordinator, --num-processes and "
            "--process-id together, or none of them."
        )
    # SLURM_NTASKS is the job's: a plain command in an allocation of 8 tasks sees it, too.
    num_tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    in_step = {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"}
    if in_step <= environment.keys() and num_tasks > 1:
        return Launch("slurm", num_processes=num_tasks)
    return Launch("tpu") if _is_tpu_vm(environment) else None


def _whole(value: int | None, name: str, environment: Mapping[str, str]) -> int | None:
    if value is not None or name not in environment:
        return value
    if not environment[name].isdecimal():
        raise InputError(f"{name}: `{environment[name]}` is no number. Give a whole one.")
    return int(environment[name])


def _is_tpu_vm(environment: Mapping[str, str]) -> bool:
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and "tpu" not in platforms:
        return False
    has_chips = bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))
    return has_chips and importlib.util.find_spec("libtpu") is not None
