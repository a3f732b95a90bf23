"""Attention over meshes, positions split too, equals the reference on one device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("path", ["blockwise", "splash", "mosaic"])
def test_outputs_and_gradients_equal_the_reference_on_every_mesh(path: str) -> None:
    """Float32 sums in another order: within 1e-5 of values up to about 10."""
    if path == "mosaic":
        pytest.importorskip("tokamax")
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join(["", *sys.path]).strip(os.pathsep),
    }
    script = str(Path(__file__).with_name("sharded_attention.py"))
    done = subprocess.run([sys.executable, script, path], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) == 8
    for name, differences in results.items():
        assert np.max(differences) < 1e-5, (name, differences)
