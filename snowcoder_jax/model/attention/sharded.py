"""An attention path on every device of a mesh: rows, heads and positions are split.

Along the context axis each device has the queries of its own positions, and gathers the keys and
values of the others; their gradients are summed back to where they belong. It holds no other
activation of positions that are not its own.

Shape legend: see parts.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

Path = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]

_CONTEXT = "context"


@dataclasses.dataclass(frozen=True)
class Share:
    """What part of the positions a device has: one of `num_context`, by its context index."""

    num_context: int = 1

    @property
    def index(self) -> jax.Array:
        """int32 scalar; only inside `over_mesh`."""
        return jax.lax.axis_index(_CONTEXT)

    def first_position(self, length: int) -> jax.Array:
        """int32 scalar: the position of the first of the device's `length` tokens."""
        if self.num_context == 1:
            return jnp.zeros((), jnp.int32)
        return self.index * length


def over_mesh(
    path: Path,
    mesh: Mesh,
    q_BSNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    first_key_BS: jax.Array | None,
) -> jax.Array:
    """`path` of each device's share: rows over replica and fsdp, heads over tensor, positions
    over context. What lies beyond its positions a path gathers itself (`whole_sequence`).
    """
    rows = P(("replica", "fsdp"), _CONTEXT)
    heads = P(("replica", "fsdp"), _CONTEXT, "tensor")
    # Kernels do not say how their outputs vary over the mesh, which check_vma would ask for.
    shared = jax.shard_map(
        path, mesh=mesh, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
    )
    o_BSNH: jax.Array = shared(q_BSNH, k_BTKH, v_BTKH, first_key_BS)
    return o_BSNH


def whole_sequence(x: jax.Array, share: Share, axis: int = 1) -> jax.Array:
    """The positions of all devices along `axis`; its gradient is the sum of all, split again."""
    if share.num_context == 1:
        return x
    return jax.lax.all_gather(x, _CONTEXT, axis=axis, tiled=True)


def own_positions(x: jax.Array, share: Share, axis: int = 1) -> jax.Array:
    """The sum over devices of `x`, of which each keeps its own positions along `axis`."""
    if share.num_context == 1:
        return x
    return jax.lax.psum_scatter(x, _CONTEXT, scatter_dimension=axis, tiled=True)
