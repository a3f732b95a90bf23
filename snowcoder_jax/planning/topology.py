"""The real train step, compiled for TPUs that are not here.

libtpu, an ordinary wheel, brings the TPU compiler; given the name of a topology it compiles for
it on a CPU, kernels included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from snowcoder_jax.errors import InputError
from snowcoder_jax.planning.chips import Topology

# Read when jax first loads the plugin: no look for a metadata server or for chips, no claim to
# be the only process that has the library open. The last two libtpu would ask a TPU's machine
# for, and complain.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
# What the compiler says of a program that does not fit: of what arguments leave it, or in all.
_TEMPORARIES = re.compile(r"required for HLO temporaries \(([0-9.]+)([KMG])\)")
_TOTAL = re.compile(r"Used ([0-9.]+)([KMG]) of")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What the compiler says of one step on one chip.

    Attributes:
      fits: in the chip's memory.
      peak_bytes: arguments, outputs that do not take an argument's place, temporaries, code;
        where it does not fit, what the compiler says it would need.
      argument_bytes: parameters, moments, the batch.
      temporary_bytes: activations, gradients, gathered weights.
      hlo: the optimized module as text; empty where it does not fit.
      seconds: of compiling.
    """

    fits: bool
    peak_bytes: int
    argument_bytes: int
    temporary_bytes: int
    hlo: str
    seconds: float


def prepare(topology: Topology) -> None:
    """Set what libtpu reads of the environment; to be called before jax starts.

    Raises:
      InputError: a TPU's compiler is wanted, and libtpu is not installed.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    if topology.chip.kind != "tpu":
        return
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "planning for TPUs needs their compiler, libtpu, which is not installed here. "
            "Run: pip install 'snowcoder-jax[plan]'"
        )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def devices(topology: Topology) -> Sequence[Any]:
    """The devices of a TPU topology, to make a mesh of; they cannot run anything.

    Raises:
      InputError: libtpu is not installed, or has no topology of that name.
    """
    prepare(topology)
    import jax
    from jax.experimental import topologies

    try:
        # Of v4 alone libtpu's default makes each of a chip's two cores a device.
        cores = {"chip_config_name": "megacore"} if topology.chip.family == "v4" else {}
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=topology.name, **cores
        )
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as e:
        raise InputError(
            f"--topology {topology.name}: the TPU compiler has no such topology "
            f"({str(e).splitlines()[0][:200]}). Take one that Google Cloud offers, such as "
            "v5p:2x2x2, v5p:4x4x4, v5e:4x4, v6e:16x16."
        ) from e
    return list(described.devices)


def compile_step(
    model: Any,
    vocab_size: int,
    optimizer: Any,
    hardware: Any,
    mesh: Any,
    batch_size: int,
    sequence_length: int,
) -> CompiledStep:
    """Compile the train step of a batch for the devices of `mesh`, without any cache."""
    import jax

    from snowcoder_jax.training.state import state_shapes

    lowered = lower_step(model, vocab_size, optimizer, hardware, mesh, batch_size, sequence_length)
    started = time.monotonic()
    with _no_cache():
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as e:
            state = state_shapes(model, vocab_size, optimizer, mesh)
            step = _too_large(str(e), _bytes_on_one(state), time.monotonic() - started)
            if step is None:
                raise
            return step
    seconds = time.monotonic() - started
    memory = compiled.memory_analysis()
    peak_bytes = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return CompiledStep(
        fits=True,
        peak_bytes=peak_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        hlo=compiled.as_text(),
        seconds=seconds,
    )


def _too_large(message: str, state_bytes: int, seconds: float) -> CompiledStep | None:
    """Read the compiler's refusal; None where it is about something else than memory."""
    total, temporaries = _TOTAL.search(message), _TEMPORARIES.search(message)
    found = total or temporaries
    if found is None:
        return None
    said = int(float(found[1]) * _UNITS[found[2]])
    return CompiledStep(
        fits=False,
        peak_bytes=said if total else said + state_bytes,
        argument_bytes=state_bytes,
        temporary_bytes=said - state_bytes if total else said,
        hlo="",
        seconds=seconds,
    )


def _bytes_on_one(state: Any) -> int:
    """Of a pytree of shapes with shardings, the bytes that lie on one chip."""
    import jax

    return sum(
        math.prod(shape.sharding.shard_shape(shape.shape)) * shape.dtype.itemsize
        for shape in jax.tree.leaves(state)
    )


def lower_step(
    model: Any,
    vocab_size: int,
    optimizer: Any,
    hardware: Any,
    mesh: Any,
    batch_size: int,
    sequence_length: int,
) -> Any:
    """The step that training runs, lowered on shapes alone."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from snowcoder_jax.training.mesh import batch_sharding
    from snowcoder_jax.training.state import state_shapes
    from snowcoder_jax.training.step import make_train_step

    rows = batch_sharding(mesh)
    B, S = batch_size, sequence_length
    batch = {
        "ids": jax.ShapeDtypeStruct((B, S + 1), jnp.int32, sharding=rows),
        "weights": jax.ShapeDtypeStruct((B, S), jnp.float32, sharding=rows),
    }
    if model.attention == "document":
        batch["first_key"] = jax.ShapeDtypeStruct((B, S), jnp.int32, sharding=rows)
    replicated = NamedSharding(mesh, PartitionSpec())
    learning_rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated)
    step: Any = make_train_step(model, vocab_size, optimizer, hardware, mesh)
    return step.lower(state_shapes(model, vocab_size, optimizer, mesh), batch, learning_rate)


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """Compile anew, so that the seconds mean something and no cache fills with what cannot run."""
    import jax

    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
