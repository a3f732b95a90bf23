"""The real train step, compiled by the TPU compiler for chips that are not here."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from snowcoder_jax import recipe
from snowcoder_jax.training.mesh import batch_sharding, make_mesh
from snowcoder_jax.training.state import state_shapes
from snowcoder_jax.training.step import make_train_step

VOCAB_SIZE = 512
SEQUENCE_LENGTH = 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh_sizes", "mask", "num_kv_heads"),
    [
        (recipe.Mesh(fsdp=4), "causal", 4),
        (recipe.Mesh(fsdp=1, context=2, tensor=2), "document", 2),
    ],
    ids=["fsdp", "context-tensor"],
)
def test_the_step_attends_by_splash_and_never_twice(
    monkeypatch: pytest.MonkeyPatch, mesh_sizes: recipe.Mesh, mask: str, num_kv_heads: int
) -> None:
    """One call each of the forward kernel and of the two of the backward pass, of all layers.

    A second forward call would be in the backward loop: what it needs was not saved by name.
    """
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices
    mesh = make_mesh(mesh_sizes, chips)
    model = recipe.Model(
        hidden_dim=256,
        mlp_dim=256,
        num_layers=2,
        num_heads=4,
        num_kv_heads=num_kv_heads,
        head_dim=128,
        max_sequence_length=SEQUENCE_LENGTH,
        attention=mask,  # type: ignore[arg-type]
    )
    optimizer = recipe.Optimizer()
    hardware = recipe.Hardware(remat="attention", loss_chunk_tokens=1024)
    step = make_train_step(model, VOCAB_SIZE, optimizer, hardware, mesh)

    def rows(length: int, dtype: jnp.dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((4, length), dtype, sharding=batch_sharding(mesh))

    batch = {
        "ids": rows(SEQUENCE_LENGTH + 1, jnp.dtype(jnp.int32)),
        "weights": rows(SEQUENCE_LENGTH, jnp.dtype(jnp.float32)),
    }
    if mask == "document":
        batch["first_key"] = rows(SEQUENCE_LENGTH, jnp.dtype(jnp.int32))
    state = state_shapes(model, VOCAB_SIZE, optimizer, mesh)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    text = step.lower(state, batch, rate).compile().as_text()  # type: ignore[attr-defined]
    calls = re.findall(r"^ *%splash_mha_(fwd|dq|dkv)_[\w.]+ = ", text, re.MULTILINE)
    assert sorted(calls) == ["dkv", "dq", "fwd"]
