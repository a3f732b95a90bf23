"""The profiler's trace: there for the steps that were asked for, and for no other."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from snowcoder_jax import storage
from snowcoder_jax.training.profiler import profiled


def traced_steps(folder: Path) -> set[int]:
    """Numbers of the steps whose annotation stands in the trace."""
    files = [path.read_bytes() for path in folder.rglob("*.xplane.pb")]
    return {int(n) for data in files for n in re.findall(rb"step number (\d+)", data)}


@pytest.mark.parametrize(
    ("steps", "first", "want"),
    [
        ((2, 3), 0, {2, 3}),
        ((1, 1), 0, {1}),
        ((2, 4), 2, {3, 4}),
        ((5, 9), 0, {5, 6}),
        ((2, 3), 3, set()),
        ((), 0, set()),
    ],
)
def test_exactly_the_steps_asked_for_are_traced(
    tmp_path: Path, steps: tuple[int, ...], first: int, want: set[int]
) -> None:
    with profiled(steps, str(tmp_path / "profiles"), first) as after:
        for step in range(first + 1, 7):
            with jax.profiler.TraceAnnotation(f"step number {step}"):
                result = jnp.ones(()) * step
            after(step, result)
    assert traced_steps(tmp_path) == want
    assert bool(list(tmp_path.iterdir())) == bool(want)


def test_an_object_store_gets_the_trace(tmp_path: Path) -> None:
    folder = f"memory://{tmp_path.name}/profiles"
    with profiled((1, 1), folder, 0) as after:
        after(1, jnp.ones(()))
    assert any(p.endswith(".xplane.pb") for p in storage.list_files(folder))
