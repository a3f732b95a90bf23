"""Our step, as the trainer runs it, on synthetic tokens.

    python -m train_parts.ours SETTING BATCH_SIZE STEPS REMAT MICROBATCHES

Prints one JSON object: the seconds of each step after the first, the peak memory, the last loss,
and the model's FLOP a token. Imports only what the step needs.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

import jax
import numpy as np

from snowcoder_jax import recipe
from snowcoder_jax.model import decoder
from snowcoder_jax.training.mesh import batch_sharding, make_mesh
from snowcoder_jax.training.state import fresh_state
from snowcoder_jax.training.step import make_train_step
from train_parts.settings import Setting, setting, timed


def measure(of: Setting, num_steps: int, remat: str) -> dict[str, Any]:
    model = recipe.Model(
        hidden_dim=of.hidden_dim,
        mlp_dim=of.mlp_dim,
        num_layers=of.num_layers,
        num_heads=of.num_heads,
        num_kv_heads=of.num_heads,
        head_dim=of.head_dim,
        max_sequence_length=of.sequence_length,
    )
    hardware = recipe.Hardware(
        compute_dtype=of.dtype,  # type: ignore[arg-type]
        remat=remat,  # type: ignore[arg-type]
        scan_layers=of.scan_layers,
        microbatches=of.microbatches,
    )
    optimizer = recipe.Optimizer()
    mesh = make_mesh(recipe.Mesh(), jax.devices()[:1])
    train_step = make_train_step(model, of.vocab_size, optimizer, hardware, mesh)
    state = fresh_state(model, of.vocab_size, optimizer, mesh, seed=0)
    batch = jax.device_put(
        {
            "ids": of.ids().astype(np.int32),
            "weights": np.ones((of.batch_size, of.sequence_length), np.float32),
        },
        batch_sharding(mesh),
    )
    rate = np.float32(of.learning_rate)

    def step() -> float:
        nonlocal state
        state, metrics = train_step(state, batch, rate)
        return float(metrics["loss"])  # waits for the device

    times = timed(step, num_steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if jax.devices()[0].platform != "cpu":
        peak = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    flops = {
        name: decoder.flops_per_token(
            model, of.vocab_size, of.sequence_length, causal=name == "causal"
        )
        for name in ("causal", "full")
    }
    device = jax.devices()[0].device_kind
    return {**times, "device": device, "peak_bytes": peak, "flops_per_token": flops}


def main() -> None:
    name, batch_size, num_steps, remat, microbatches = sys.argv[1:]
    if name == "gpu" and jax.default_backend() != "gpu":
        sys.exit(
            f"JAX sees no GPU but {jax.default_backend()} (JAX_PLATFORMS is "
            f"{os.environ.get('JAX_PLATFORMS') or 'not set'})"
        )
    of = setting(name, int(batch_size), int(microbatches))
    print(json.dumps(measure(of, int(num_steps), remat)))


if __name__ == "__main__":
    main()
