"""Meshes and what they refuse. The layouts themselves are compared in test_layouts.py."""

from __future__ import annotations

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec
from tiny_training import MODEL, VOCAB_SIZE, make_phase

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import decoder
from snowcoder_jax.training.mesh import AXES, check_batch, check_divides, make_mesh, shardings

ONE = jax.devices()[:1]


def sized(*sizes: int) -> AbstractMesh:
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 4)


def test_rest_of_the_devices_goes_to_the_open_axis() -> None:
    assert dict(make_mesh(recipe.Mesh(), ONE).shape) == dict.fromkeys(AXES, 1)


@pytest.mark.parametrize(
    ("mesh", "field"),
    [
        (recipe.Mesh(fsdp=2), "hardware.mesh"),
        (recipe.Mesh(tensor=3), "hardware.mesh"),
        (recipe.Mesh(tensor=-1), "fsdp and tensor"),
        (recipe.Mesh(fsdp=0), "hardware.mesh.fsdp"),
        (recipe.Mesh(context=-2), "hardware.mesh.context"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(mesh: recipe.Mesh, field: str) -> None:
    with pytest.raises(InputError, match=field):
        make_mesh(mesh, ONE)


def test_every_parameter_has_a_place() -> None:
    placed = shardings(sized(1, 2, 1, 2), decoder.logical_axes(MODEL))  # type: ignore[arg-type]
    assert placed["embedding"].spec == PartitionSpec("tensor", "fsdp")
    assert placed["layers"]["query"].spec == PartitionSpec(None, "fsdp", "tensor", None)


def test_an_axis_that_does_not_divide_the_model_is_named() -> None:
    mesh = sized(1, 1, 1, 3)
    shapes = jax.eval_shape(lambda: decoder.init_params(MODEL, VOCAB_SIZE, 0))
    with pytest.raises(InputError, match=r"hardware\.mesh\.tensor: 3 does not divide"):
        check_divides(mesh, shardings(mesh, decoder.logical_axes(MODEL)), shapes)  # type: ignore[arg-type]


def test_a_batch_that_the_devices_do_not_divide_is_named() -> None:
    check_batch(make_phase(batch_size=8), sized(2, 2, 2, 1), 2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"phases\.general\.batch_size: 8 is not divided by 16"):
        check_batch(make_phase(batch_size=8), sized(2, 2, 1, 1), 4)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"phases\.general\.sequence_length"):
        check_batch(make_phase(batch_size=8), sized(1, 1, 3, 1), 1)  # type: ignore[arg-type]
