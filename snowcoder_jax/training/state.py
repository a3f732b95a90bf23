"""What training changes: parameters, moments, counters; made in place on the mesh."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from snowcoder_jax import recipe
from snowcoder_jax.model import decoder
from snowcoder_jax.training.mesh import check_divides, shardings
from snowcoder_jax.training.optimizer import make_optimizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A pytree.

    Attributes:
      step: int32 [], batches seen in this phase.
      params: nested dict of float32 arrays, as `decoder.init_params` makes them.
      opt_state: of the optimizer; float32 moments.
      num_skipped: int32 [], updates skipped in this phase for a loss or gradient not finite.
      num_skipped_in_a_row: int32 [], those since the last update that was made.
    """

    step: Any
    params: Any
    opt_state: Any
    num_skipped: Any
    num_skipped_in_a_row: Any


def state_shapes(
    model: recipe.Model, vocab_size: int, optimizer: recipe.Optimizer, mesh: Mesh
) -> TrainState:
    """The state as ShapeDtypeStructs that carry their shardings; nothing is computed.

    Raises:
      InputError: a mesh axis does not divide a parameter dim.
    """
    axes = decoder.logical_axes(model)
    transform = make_optimizer(optimizer, axes)
    shapes = jax.eval_shape(
        lambda: _fresh(decoder.init_params(model, vocab_size, 0), transform),
    )
    param_shardings = shardings(mesh, axes)
    check_divides(mesh, param_shardings, shapes.params)
    replicated = NamedSharding(mesh, PartitionSpec())
    opt_shardings = optax.tree.map_params(
        transform,
        lambda _, sharding: sharding,
        shapes.opt_state,
        param_shardings,
        transform_non_params=lambda _: replicated,
    )
    all_shardings = TrainState(replicated, param_shardings, opt_shardings, replicated, replicated)
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        all_shardings,
    )


def state_shardings(shapes: TrainState) -> TrainState:
    shardings: TrainState = jax.tree.map(lambda shape: shape.sharding, shapes)
    return shardings


def fresh_state(
    model: recipe.Model, vocab_size: int, optimizer: recipe.Optimizer, mesh: Mesh, seed: int
) -> TrainState:
    """A state at step 0 with fresh parameters, each array made where it lies."""
    state: TrainState = _fresh_maker(model, vocab_size, optimizer, mesh, seed)()
    return state


def started_state(
    model: recipe.Model, optimizer: recipe.Optimizer, shapes: TrainState, params: Any
) -> TrainState:
    """A state at step 0 with the given parameters (given up to it) and no moments."""
    transform = make_optimizer(optimizer, decoder.logical_axes(model))
    jitted = jax.jit(
        lambda params: _fresh(params, transform),
        out_shardings=state_shardings(shapes),
        donate_argnums=0,
    )
    state: TrainState = jitted(params)
    return state


def continued_state(shapes: TrainState, params: Any, opt_state: Any) -> TrainState:
    """A state at step 0 with the given parameters and moments, which are not copied."""
    sharding = shapes.step.sharding
    counters = jax.jit(_counters, out_shardings=(sharding, sharding, sharding))()
    return TrainState(counters[0], params, opt_state, *counters[1:])


@functools.cache
def _fresh_maker(
    model: recipe.Model, vocab_size: int, optimizer: recipe.Optimizer, mesh: Mesh, seed: int
) -> Callable[[], TrainState]:
    transform = make_optimizer(optimizer, decoder.logical_axes(model))
    shapes = state_shapes(model, vocab_size, optimizer, mesh)
    return jax.jit(
        lambda: _fresh(decoder.init_params(model, vocab_size, seed), transform),
        out_shardings=state_shardings(shapes),
    )


def _fresh(params: Any, transform: optax.GradientTransformation) -> TrainState:
    step, *skipped = _counters()
    return TrainState(step, params, transform.init(params), *skipped)


def _counters() -> tuple[jax.Array, jax.Array, jax.Array]:
    # Arrays of their own: one buffer cannot be donated three times.
    return jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
