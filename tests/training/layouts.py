"""Prints, as JSON, the losses of three steps and the gradient norms under several meshes."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
from tiny_training import HARDWARE, MODEL, SEQUENCE_LENGTH, VOCAB_SIZE

from snowcoder_jax import recipe
from snowcoder_jax.training.mesh import batch_sharding, make_mesh
from snowcoder_jax.training.state import fresh_state
from snowcoder_jax.training.step import make_train_step

# Replica, fsdp, context, tensor; and microbatches.
LAYOUTS = {
    "1": ((1, 1, 1, 1), 1),
    "8": ((1, 8, 1, 1), 1),
    "2x4": ((2, 4, 1, 1), 2),
    "2x2x1x2": ((2, 2, 1, 2), 1),
    "1x2x2x2": ((1, 2, 2, 2), 1),
}


def main() -> None:
    model = dataclasses.replace(MODEL, attention="document")
    optimizer = recipe.Optimizer()
    rng = np.random.default_rng(0)
    shape = (8, SEQUENCE_LENGTH)
    batch = {
        "ids": rng.integers(0, VOCAB_SIZE, (8, SEQUENCE_LENGTH + 1)).astype(np.int32),
        "weights": (rng.random(shape) < 0.8).astype(np.float32),
        "first_key": np.broadcast_to(np.arange(SEQUENCE_LENGTH) // 6 * 6, shape).astype(np.int32),
    }
    results = {}
    for name, (sizes, microbatches) in LAYOUTS.items():
        mesh = make_mesh(recipe.Mesh(*sizes), jax.devices()[: int(np.prod(sizes))])
        hardware = dataclasses.replace(HARDWARE, microbatches=microbatches)
        step = make_train_step(model, VOCAB_SIZE, optimizer, hardware, mesh)
        state = fresh_state(model, VOCAB_SIZE, optimizer, mesh, seed=0)
        placed = jax.device_put(batch, batch_sharding(mesh))
        lines = []
        for _ in range(3):
            state, metrics = step(state, placed, np.float32(1e-2))
            lines.append([float(metrics["loss"]), float(metrics["grad_norm"])])
        params = {
            jax.tree_util.keystr(p): np.asarray(x)
            for p, x in jax.tree.leaves_with_path(state.params)
        }
        sums = {path: float(np.abs(x).sum()) for path, x in params.items()}
        results[name] = {"steps": lines, "sums": sums}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
