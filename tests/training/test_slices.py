"""What crosses the network between slices: gradients of whole copies, no activations."""

from __future__ import annotations

import os
import subprocess
import sys

ROWS, POSITIONS = 32, 48
SCRIPT = f"""
from snowcoder_jax import recipe
from snowcoder_jax.planning.topology import lower_step
from snowcoder_jax.training.mesh import make_mesh

model = recipe.Model(hidden_dim=64, mlp_dim=96, num_layers=2, num_heads=4, num_kv_heads=4,
                     head_dim=16, max_sequence_length={POSITIONS})
hardware = recipe.Hardware(compute_dtype="float32", remat="minimal", loss_chunk_tokens=64)
mesh = make_mesh(recipe.Mesh(replica=2, fsdp=4))
step = lower_step(model, 512, recipe.Optimizer(), hardware, mesh, {ROWS}, {POSITIONS})
print(step.compile().as_text())
"""


def test_no_device_gathers_the_whole_batch() -> None:
    """The embedding's look-up once did, where replica was split: the other slice's rows too."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join(["", *sys.path]).strip(os.pathsep),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True
    )
    assert "Involuntary full rematerialization" not in done.stderr
    gathers = [line for line in done.stdout.splitlines() if " all-gather" in line]
    assert gathers, "the weights are gathered over fsdp"
    whole = [line for line in gathers if f"[{ROWS},{POSITIONS}" in line]
    assert not whole, whole
