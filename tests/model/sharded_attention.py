"""Prints, as JSON, how far attention over meshes of 8 virtual devices is from the reference.

Started by test_attention_sharded.py. For each case: the largest differences of the output and of
the gradients of queries, keys and values.
"""

from __future__ import annotations

import functools
import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType

from snowcoder_jax.model.attention import attention_reference
from snowcoder_jax.model.attention.blockwise import blockwise_attention
from snowcoder_jax.model.attention.gpu import mosaic_attention
from snowcoder_jax.model.attention.sharded import Share, over_mesh
from snowcoder_jax.model.attention.splash import splash_attention

AXES = ("replica", "fsdp", "context", "tensor")
PATHS = {
    "blockwise": blockwise_attention,
    "splash": functools.partial(splash_attention, interpret=True),
    "mosaic": functools.partial(mosaic_attention, implementation="xla"),
}
# Batch, positions, query heads, key heads, head dim; and the mesh.
SIZES = {
    "blockwise": (4, 264, 4, 2, 8),
    "splash": (4, 512, 4, 2, 128),
    "mosaic": (4, 64, 4, 2, 8),
}
MESHES = ((2, 2, 2, 1), (1, 1, 4, 2), (1, 2, 2, 2), (2, 2, 1, 2))


def main() -> None:
    path_name = sys.argv[1]
    B, S, N, K, H = SIZES[path_name]
    rng = np.random.default_rng(0)
    shapes = [(B, S, N, H), (B, S, K, H), (B, S, K, H), (B, S, N, H)]
    q, k, v, o_grad = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    starts = np.sort(rng.integers(0, S, (B, 5)), axis=1)
    starts[:, 0] = 0
    last_start = np.argmin(starts[:, None] <= np.arange(S)[:, None], axis=2) - 1
    first_key = np.take_along_axis(starts, last_start % 5, axis=1).astype(np.int32)

    def with_gradients(function, first_key):  # type: ignore[no-untyped-def]
        def run(q, k, v, o_grad):  # type: ignore[no-untyped-def]
            o, vjp = jax.vjp(lambda *qkv: function(*qkv, first_key), q, k, v)
            return (o, *vjp(o_grad))

        return [np.asarray(x) for x in jax.jit(run)(q, k, v, o_grad)]

    results = {}
    for packed in (False, True):
        mask = first_key if packed else None
        want = with_gradients(attention_reference, mask)
        for sizes in MESHES:
            mesh = jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 4)
            path = functools.partial(PATHS[path_name], share=Share(sizes[2]))
            got = with_gradients(functools.partial(over_mesh, path, mesh), mask)
            name = f"{sizes} {'document' if packed else 'causal'}"
            results[name] = [float(np.abs(a - b).max()) for a, b in zip(got, want, strict=True)]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
