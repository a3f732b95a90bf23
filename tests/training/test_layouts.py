"""The same losses, gradients and parameters under every layout of 8 virtual devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.mark.slow
def test_layouts_agree() -> None:
    """Float32 sums in another order: losses within 1e-5, gradient norms within 1e-4.

    Parameters are compared by a random projection of each; AdamW makes much of small gradients.
    """
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join(["", *sys.path]).strip(os.pathsep),
    }
    script = str(Path(__file__).with_name("layouts.py"))
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    bits = results.pop("bits")
    np.testing.assert_allclose(bits["all"], bits["one"], rtol=1e-5)
    want = results.pop("1")
    assert len(results) == 5
    for name, result in results.items():
        losses, norms = np.array(result["steps"]).T
        want_losses, want_norms = np.array(want["steps"]).T
        np.testing.assert_allclose(losses, want_losses, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(norms, want_norms, rtol=1e-4, err_msg=name)
        for path, projection in result["projections"].items():
            assert projection == pytest.approx(want["projections"][path], abs=1e-3), (name, path)
