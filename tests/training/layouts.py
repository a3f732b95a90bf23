"""Three steps of training under a mesh; as a program, under several, printed as JSON.

`python layouts.py FOLDER`: a checkpoint is saved there, and restored onto other meshes.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tiny_training import HARDWARE, MODEL, SEQUENCE_LENGTH, VOCAB_SIZE

from snowcoder_jax import recipe
from snowcoder_jax.evaluation import scores
from snowcoder_jax.model import decoder
from snowcoder_jax.training import checkpoints
from snowcoder_jax.training.mesh import batch_sharding, make_mesh, over_local_devices
from snowcoder_jax.training.state import TrainState, fresh_state, state_shapes
from snowcoder_jax.training.step import make_train_step

# Replica, fsdp, context, tensor; and microbatches.
LAYOUTS = {
    "1": ((1, 1, 1, 1), 1),
    "8": ((1, 8, 1, 1), 1),
    "2x4": ((2, 4, 1, 1), 2),
    "2x2x1x2": ((2, 2, 1, 2), 1),
    "1x2x2x2": ((1, 2, 2, 2), 2),
    "1x1x4x2": ((1, 1, 4, 2), 1),
}
# Onto these a checkpoint of 2x2x1x2 is restored: other axes, and fewer devices.
RESTORED = ((1, 1, 1, 1), (1, 8, 1, 1), (2, 1, 2, 2), (1, 4, 1, 1), (1, 1, 1, 2), (4, 1, 2, 1))


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


def gradients(state: TrainState, optimizer: recipe.Optimizer, norm: float) -> dict[str, np.ndarray]:
    """Those of the first step, before the clip, read back from AdamW's first moments."""
    clipped = min(1.0, optimizer.clip_norm / norm)
    moments = {
        jax.tree_util.keystr(path): np.asarray(x)
        for path, x in jax.tree.leaves_with_path(jax.device_get(state.opt_state))
        if ".mu" in jax.tree_util.keystr(path)
    }
    assert len(moments) == len(jax.tree.leaves(state.params))
    return {name: x / (1 - optimizer.beta1) / clipped for name, x in moments.items()}


def differences(ours: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference of any element, over the parameter's largest gradient."""
    assert ours.keys() == want.keys()
    return {name: float(np.abs(ours[name] - x).max() / np.abs(x).max()) for name, x in want.items()}


def three_steps(mesh: Mesh, microbatches: int) -> dict[str, Any]:
    """Loss and gradient norm of each step, the gradients of the first, and a projection of each
    parameter after the last."""
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
        if len(lines) == 1:
            first = gradients(state, optimizer, lines[0][1])
    projected = jax.tree.leaves_with_path(_projected(state.params, mesh))
    return {
        "steps": lines,
        "gradients": first,
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


def mesh_of(sizes: tuple[int, ...]) -> Mesh:
    return make_mesh(recipe.Mesh(*sizes), jax.devices()[: int(np.prod(sizes))])


def restored_elsewhere(folder: str) -> dict[str, list[str]]:
    """For each mesh onto which a checkpoint was restored, what was not as it was saved."""
    optimizer = recipe.Optimizer()
    state = fresh_state(MODEL, VOCAB_SIZE, optimizer, mesh_of((2, 2, 1, 2)), seed=0)
    rng = np.random.default_rng(2)
    numbered = jax.tree.map(
        lambda x: jax.device_put(
            rng.standard_normal(x.shape).astype(x.dtype) if x.ndim else x + 7, x.sharding
        ),
        state,
    )
    with checkpoints.Checkpoints(folder, recipe.Checkpointing()) as saver:
        saver.save(numbered, 7, "key", {})
    want = jax.device_get(numbered)
    wrong = {}
    for sizes in RESTORED:
        shapes = state_shapes(MODEL, VOCAB_SIZE, optimizer, mesh_of(sizes))
        state = checkpoints.restore(folder, 7, shapes)
        placed = jax.tree.map(lambda x, s: x.sharding == s.sharding, state, shapes)
        equal = jax.tree.map(
            lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), jax.device_get(state), want
        )
        wrong[str(sizes)] = [
            jax.tree_util.keystr(path)
            for tree in (placed, equal)
            for path, is_right in jax.tree.leaves_with_path(tree)
            if not is_right
        ]
    return wrong


def main() -> None:
    results: dict[str, Any] = {
        "bits": bits_of_documents(),
        "restored": restored_elsewhere(sys.argv[1]),
    }
    want: dict[str, np.ndarray] = {}
    for name, (sizes, microbatches) in LAYOUTS.items():
        results[name] = three_steps(mesh_of(sizes), microbatches)
        found = results[name].pop("gradients")
        want = want or found  # of one device, which comes first
        results[name]["gradient_differences"] = differences(found, want)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
