"""Three steps of training under a mesh; as a program, under several, printed as JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tiny_training import HARDWARE, MODEL, SEQUENCE_LENGTH, VOCAB_SIZE

from snowcoder_jax import recipe
from snowcoder_jax.evaluation import scores
from snowcoder_jax.model import decoder
from snowcoder_jax.training.mesh import batch_sharding, make_mesh, over_local_devices
from snowcoder_jax.training.state import fresh_state
from snowcoder_jax.training.step import make_train_step

# Replica, fsdp, context, tensor; and microbatches.
LAYOUTS = {
    "1": ((1, 1, 1, 1), 1),
    "8": ((1, 8, 1, 1), 1),
    "2x4": ((2, 4, 1, 1), 2),
    "2x2x1x2": ((2, 2, 1, 2), 1),
    "1x2x2x2": ((1, 2, 2, 2), 1),
    "1x1x4x2": ((1, 1, 4, 2), 1),
}


def batch() -> dict[str, np.ndarray]:
    """Sixteen rows of random tokens, packed from documents of six."""
    rng = np.random.default_rng(0)
    shape = (16, SEQUENCE_LENGTH)
    return {
        "ids": rng.integers(0, VOCAB_SIZE, (16, SEQUENCE_LENGTH + 1)).astype(np.int32),
        "weights": (rng.random(shape) < 0.8).astype(np.float32),
        "first_key": np.broadcast_to(np.arange(SEQUENCE_LENGTH) // 6 * 6, shape).astype(np.int32),
    }


@functools.partial(jax.jit, static_argnums=1)
def _projected(params: Any, mesh: Mesh) -> Any:
    """The sum of each parameter, every element with a factor of its own."""

    def project(x: jax.Array) -> jax.Array:
        factors = jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
        return jnp.sum(x * factors)

    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.lax.with_sharding_constraint(jax.tree.map(project, params), replicated)


def three_steps(mesh: Mesh, microbatches: int) -> dict[str, Any]:
    """Loss and gradient norm of each step, and a projection of each parameter after the last.

    The mesh may be of several processes; each has the whole batch and gets the same answer.
    """
    model = dataclasses.replace(MODEL, attention="document")
    optimizer = recipe.Optimizer()
    hardware = dataclasses.replace(HARDWARE, microbatches=microbatches)
    step = make_train_step(model, VOCAB_SIZE, optimizer, hardware, mesh)
    state = fresh_state(model, VOCAB_SIZE, optimizer, mesh, seed=0)
    placed = {
        name: jax.make_array_from_callback(x.shape, batch_sharding(mesh), x.__getitem__)
        for name, x in batch().items()
    }
    lines = []
    for _ in range(3):
        state, metrics = step(state, placed, np.float32(1e-2))
        lines.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    projected = jax.tree.leaves_with_path(_projected(state.params, mesh))
    return {
        "steps": lines,
        "projections": {jax.tree_util.keystr(path): float(x) for path, x in projected},
    }


def bits_of_documents() -> dict[str, list[float]]:
    """What a model needs for two documents: parameters on one device, and over all of them."""
    model = dataclasses.replace(MODEL, attention="document")
    params = decoder.init_params(model, VOCAB_SIZE, 0)
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, VOCAB_SIZE, n).tolist() for n in (40, 9)]
    placed = {"one": params, "all": over_local_devices(params, decoder.logical_axes(model))}
    assert len(placed["all"]["embedding"].sharding.device_set) == jax.local_device_count()
    assert not placed["all"]["embedding"].sharding.is_fully_replicated
    return {
        name: scores.document_bits(
            params,
            model,
            VOCAB_SIZE,
            documents,
            start_id=0,
            sequence_length=SEQUENCE_LENGTH,
            batch_size=2,
        ).tolist()
        for name, params in placed.items()
    }


def main() -> None:
    results: dict[str, Any] = {"bits": bits_of_documents()}
    for name, (sizes, microbatches) in LAYOUTS.items():
        mesh = make_mesh(recipe.Mesh(*sizes), jax.devices()[: int(np.prod(sizes))])
        results[name] = three_steps(mesh, microbatches)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
