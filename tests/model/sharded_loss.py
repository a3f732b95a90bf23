"""Prints, as JSON, how far the loss and its gradients on meshes are from those of one device."""

from __future__ import annotations

import functools
import json

import jax
import numpy as np

from snowcoder_jax import recipe
from snowcoder_jax.model.loss import chunked_cross_entropy
from snowcoder_jax.training.mesh import make_mesh

B, S, D, V = 8, 12, 16, 48
# Replica, fsdp, context, tensor.
MESHES = {"8": (1, 8, 1, 1), "2x4": (2, 4, 1, 1), "2x2x2": (1, 2, 2, 2), "2x1x4": (2, 1, 4, 1)}


def main() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(B, S, D)).astype(np.float32)
    embedding = rng.normal(size=(V, D)).astype(np.float32)
    targets = rng.integers(0, V, (B, S)).astype(np.int32)
    weights = rng.random((B, S)).astype(np.float32)

    def loss(hidden, embedding, weights, mesh):  # type: ignore[no-untyped-def]
        sums = chunked_cross_entropy(
            hidden, embedding, targets, weights, chunk_tokens=16, z_loss=1e-2, mesh=mesh
        )
        return sums.objective / sums.weight, sums.cross_entropy

    def results(mesh):  # type: ignore[no-untyped-def]
        both = jax.value_and_grad(functools.partial(loss, mesh=mesh), (0, 1, 2), has_aux=True)
        return jax.device_get(jax.jit(both)(hidden, embedding, weights))

    want = results(None)
    differences = {}
    for name, sizes in MESHES.items():
        got = results(make_mesh(recipe.Mesh(*sizes)))
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
        differences[name] = float(
            max(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b))) for a, b in pairs)
        )
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
