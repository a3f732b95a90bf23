"""The train step of a small model, compiled for four TPU chips: what several tests look at.

Run as a script it writes the golden summary anew:
`python tests/planning/small_step.py`, after a look at why it changed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from snowcoder_jax import recipe
from snowcoder_jax.planning.chips import parse_topology
from snowcoder_jax.planning.topology import CompiledStep, compile_step, devices

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden_hlo" / "small_step_v5e_2x2.json"
TOPOLOGY = "v5e:2x2"
BATCH_SIZE, SEQUENCE_LENGTH, VOCAB_SIZE = 8, 1024, 2048
MODEL = recipe.Model(
    hidden_dim=512,
    mlp_dim=1024,
    num_layers=4,
    num_heads=4,
    num_kv_heads=4,
    head_dim=128,
    max_sequence_length=SEQUENCE_LENGTH,
)
HARDWARE = recipe.Hardware(remat="minimal", loss_chunk_tokens=1024)


@functools.cache
def compiled() -> CompiledStep:
    from snowcoder_jax.training.mesh import make_mesh

    mesh = make_mesh(recipe.Mesh(), devices(parse_topology(TOPOLOGY)))
    optimizer = recipe.Optimizer()
    return compile_step(MODEL, VOCAB_SIZE, optimizer, HARDWARE, mesh, BATCH_SIZE, SEQUENCE_LENGTH)


def summary(step: CompiledStep) -> dict[str, Any]:
    """What a refactor must not change unseen."""
    from snowcoder_jax.planning.hlo import module_cost

    cost = module_cost(step.hlo)
    return {
        "peak_bytes": step.peak_bytes,
        "argument_bytes": step.argument_bytes,
        "matmul_flop": cost.matmul_flop,
        "kernels": sum(cost.kernels.values()),
        "collectives": {
            kind: dataclasses.asdict(found) for kind, found in sorted(cost.collectives.items())
        },
    }


if __name__ == "__main__":
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(json.dumps(summary(compiled()), indent=1) + "\n")
    print(f"wrote {GOLDEN}")
