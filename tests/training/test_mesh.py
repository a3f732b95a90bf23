"""Meshes and what they refuse. The layouts themselves are compared in test_layouts.py."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.experimental import topologies
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


def two_slices(monkeypatch: pytest.MonkeyPatch) -> list[jax.Device]:
    """Four chips each; the devices of the TPU compiler, of which none is here."""
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    found = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:2x2", num_slices=2
    ).devices
    return list(found)


def test_only_replica_crosses_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = two_slices(monkeypatch)
    for sizes in (recipe.Mesh(replica=2), recipe.Mesh(replica=4, context=2)):
        mesh = make_mesh(sizes, devices)
        slice_of = np.vectorize(lambda device: device.slice_index)(mesh.devices)
        assert slice_of.size == 8
        for slice_index, part in enumerate(np.split(slice_of, 2)):
            assert (part == slice_index).all()


@pytest.mark.parametrize(
    ("mesh", "kept", "message"),
    [
        (recipe.Mesh(replica=1), 8, r"hardware\.mesh\.replica: 1 is not divided by the 2 slices"),
        (recipe.Mesh(replica=2), 6, "4 in slice 0, 2 in slice 1"),
    ],
)
def test_slices_that_a_mesh_cannot_use_are_refused(
    monkeypatch: pytest.MonkeyPatch, mesh: recipe.Mesh, kept: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_mesh(mesh, two_slices(monkeypatch)[:kept])


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
