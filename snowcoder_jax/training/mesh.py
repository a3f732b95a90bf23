"""Devices as a mesh, and the one table that says which parameter dim lies along which axis.

Axes: replica (whole copies, across slices), fsdp (parameters and batch split), context
(positions of a sequence split), tensor (heads, MLP and vocabulary split).
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError

AXES = ("replica", "fsdp", "context", "tensor")

LOGICAL_TO_MESH: dict[str | None, str | tuple[str, ...] | None] = {
    None: None,
    "layer": None,
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "batch": ("replica", "fsdp"),
    "sequence": "context",
}


def make_mesh(config: recipe.Mesh, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a recipe over `devices` (default: all there are).

    Where the devices are TPUs of several slices, which a slow network joins, each slice has its own
    part of the replica axis, so that only whole copies talk over that network.

    Raises:
      InputError: the axes do not multiply to the number of devices, or replica is not split
        evenly over the slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes: dict[str, int] = dataclasses.asdict(config)
    written = ", ".join(f"{name} {size}" for name, size in sizes.items())
    for name, size in sizes.items():
        if size == 0 or size < -1:
            raise InputError(f"hardware.mesh.{name}: {size} is no size. Give 1 or more, or -1.")
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) > 1:
        raise InputError(
            f"hardware.mesh: {' and '.join(open_axes)} are both -1. Let one axis take the rest."
        )
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if open_axes:
        if len(devices) % fixed:
            raise InputError(
                f"hardware.mesh: {written}: {fixed} does not divide the {len(devices)} devices "
                "here. Choose sizes whose product divides them."
            )
        sizes[open_axes[0]] = len(devices) // fixed
    elif fixed != len(devices):
        raise InputError(
            f"hardware.mesh: {written} is {fixed} devices, but there are {len(devices)} here. "
            "Set hardware.mesh.fsdp to -1 to take all that are left."
        )
    shape = tuple(sizes[name] for name in AXES)
    axis_types = (AxisType.Auto,) * len(AXES)
    # GPUs have slices too, one a host or rack; their network bears fsdp.
    is_tpu = devices[0].platform == "tpu"
    # The devices of a topology that is only described (`snowcoder plan`) name no slice.
    per_slice = collections.Counter(getattr(d, "slice_index", 0) for d in devices if is_tpu)
    if len(per_slice) < 2:
        mesh = jax.make_mesh(shape, AXES, axis_types=axis_types, devices=devices)
    else:
        placed = _over_slices(shape, per_slice, devices)
        mesh = Mesh(placed, AXES, axis_types=axis_types)
    # jax.make_mesh leaves out devices without a word where the shape has fewer.
    assert mesh.size == len(devices), (mesh.shape, len(devices))
    return mesh


def _over_slices(
    shape: tuple[int, ...], per_slice: collections.Counter[int], devices: Sequence[jax.Device]
) -> np.ndarray:
    """The devices in `shape`, its first axis cut by slice.

    Args:
      per_slice: the number of devices of each slice.
    """
    if len(set(per_slice.values())) > 1:
        counts = ", ".join(f"{per_slice[index]} in slice {index}" for index in sorted(per_slice))
        raise InputError(
            f"hardware.mesh: the slices are not alike: {counts} devices. Start the run on slices "
            "of one size."
        )
    num_slices = len(per_slice)
    if shape[0] % num_slices:
        raise InputError(
            f"hardware.mesh.replica: {shape[0]} is not divided by the {num_slices} slices that the "
            f"{len(devices)} devices are of. Each slice holds whole copies: choose a multiple of "
            f"{num_slices}."
        )
    return mesh_utils.create_hybrid_device_mesh(
        (shape[0] // num_slices, *shape[1:]), (num_slices, 1, 1, 1), devices=devices
    )


def shardings(mesh: Mesh, logical_axes: Any) -> Any:
    """A NamedSharding for each tuple of logical names in a pytree of such tuples."""

    def place(names: tuple[str | None, ...]) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*(LOGICAL_TO_MESH[name] for name in names)))

    return jax.tree.map(place, logical_axes, is_leaf=lambda node: isinstance(node, tuple))


def over_local_devices(params: Any, logical_axes: Any) -> Any:
    """Parameters for inference in this process: in the memory of its devices, split over them.

    A dim that their number does not divide stays whole.
    """
    mesh = make_mesh(recipe.Mesh(), jax.local_devices())

    def place(sharding: NamedSharding, x: Any) -> jax.Array:
        sizes = zip(x.shape, sharding.spec, strict=False)
        divides = all(axis is None or size % mesh.shape[axis] == 0 for size, axis in sizes)
        return jax.device_put(x, sharding if divides else NamedSharding(mesh, PartitionSpec()))

    return jax.tree.map(place, shardings(mesh, logical_axes), params)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over replica and fsdp; the dim of positions whole (the step splits it)."""
    return NamedSharding(mesh, PartitionSpec(LOGICAL_TO_MESH["batch"], None))


def check_divides(mesh: Mesh, param_shardings: Any, shapes: Any) -> None:
    """Raises InputError where an axis does not divide the parameter dim that lies along it."""

    def check(path: Any, sharding: NamedSharding, shape: jax.ShapeDtypeStruct) -> None:
        for size, axis in zip(shape.shape, sharding.spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise InputError(
                    f"hardware.mesh.{axis}: {mesh.shape[axis]} does not divide a dim of {size} of "
                    f"the parameter {jax.tree_util.keystr(path, simple=True, separator='.')}. "
                    "Choose a divisor, or another size in `model`."
                )

    jax.tree_util.tree_map_with_path(check, param_shardings, shapes)


def check_batch(phase: recipe.Phase, mesh: Mesh, microbatches: int) -> None:
    """Raises InputError where the devices or microbatches do not divide a phase's batch."""
    num_shards = mesh.shape["replica"] * mesh.shape["fsdp"]
    divisor = num_shards * microbatches
    if phase.batch_size % divisor:
        raise InputError(
            f"phases.{phase.name}.batch_size: {phase.batch_size} is not divided by {divisor} "
            f"({num_shards} devices along replica and fsdp x {microbatches} microbatches). "
            f"Choose a multiple of {divisor}, or fewer hardware.microbatches."
        )
    if phase.sequence_length % mesh.shape["context"]:
        raise InputError(
            f"phases.{phase.name}.sequence_length: {phase.sequence_length} is not divided by "
            f"hardware.mesh.context {mesh.shape['context']}. Choose a multiple."
        )
