"""Options of the compiler by chip."""

from __future__ import annotations

import types

import jax
import pytest
from jax.sharding import Mesh

from snowcoder_jax import recipe
from snowcoder_jax.training.compiler_options import compiler_options
from snowcoder_jax.training.mesh import make_mesh


def mesh_of(kind: str) -> Mesh:
    """What is asked of a mesh of such devices."""
    device = types.SimpleNamespace(device_kind=kind)
    return types.SimpleNamespace(devices=types.SimpleNamespace(flat=[device]))  # type: ignore[return-value]


def test_a_cpu_gets_no_options() -> None:
    assert compiler_options(make_mesh(recipe.Mesh(), jax.devices()[:1])) == {}


def test_a_gpu_gets_no_options() -> None:
    assert compiler_options(mesh_of("NVIDIA H200")) == {}


@pytest.mark.parametrize("kind", ["TPU v5", "TPU v5 lite", "TPU v6 lite", "TPU v4"])
def test_a_tpu_gathers_weights_whole_not_in_ring_loops(kind: str) -> None:
    options = compiler_options(mesh_of(kind))
    assert options["xla_jf_spmd_threshold_for_windowed_einsum_mib"] == "1000000"
    assert ("xla_tpu_scoped_vmem_limit_kib" in options) == (kind != "TPU v4")
