"""The same losses, gradients and parameters under every layout of 8 virtual devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join(["", *sys.path]).strip(os.pathsep),
    }
    script = str(Path(__file__).with_name("layouts.py"))
    folder = str(tmp_path_factory.mktemp("layouts"))
    done = subprocess.run([sys.executable, script, folder], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_layouts_agree(results: dict[str, Any]) -> None:
    """Float32 sums in another order: losses within 1e-5, gradient norms within 1e-4, each element
    of a gradient within 1e-4 of the largest of its parameter.

    Parameters are compared by a random projection of each; AdamW makes much of small gradients.
    """
    want = results["1"]
    others = {name: told for name, told in results.items() if name[0].isdecimal() and name != "1"}
    assert len(others) == 5
    for name, result in others.items():
        losses, norms = np.array(result["steps"]).T
        want_losses, want_norms = np.array(want["steps"]).T
        np.testing.assert_allclose(losses, want_losses, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(norms, want_norms, rtol=1e-4, err_msg=name)
        for path, difference in result["gradient_differences"].items():
            assert difference < 1e-4, (name, path)
        for path, projection in result["projections"].items():
            assert projection == pytest.approx(want["projections"][path], abs=1e-3), (name, path)


def test_documents_are_scored_alike_over_all_devices(results: dict[str, Any]) -> None:
    np.testing.assert_allclose(results["bits"]["all"], results["bits"]["one"], rtol=1e-5)


def test_a_checkpoint_is_restored_onto_any_mesh_bit_for_bit(results: dict[str, Any]) -> None:
    """Saved by eight devices as 2 x 2 x 1 x 2; onto other axes, and fewer devices."""
    assert len(results["restored"]) == 6
    assert not any(results["restored"].values()), results["restored"]
