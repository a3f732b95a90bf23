"""Every second of a phase under one kind, over compiling, waiting, saving and kills."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snowcoder_jax import recipe, storage
from snowcoder_jax.training import goodput
from snowcoder_jax.training.goodput import Clock, phase_account
from snowcoder_jax.training.mesh import AXES, make_mesh

MESH = make_mesh(recipe.Mesh(), jax.devices()[:1])


def phase_seconds(folder: Path | str) -> dict[str, float]:
    return phase_account(str(folder)).seconds


def write_attempt(folder: Path, number: int, first: int, *stretches: tuple[int, dict]) -> None:
    account = {
        "first_step": first,
        "machine": "1 x cpu",
        "stretches": [{"last_step": last, "seconds": seconds} for last, seconds in stretches],
    }
    storage.write_json(str(folder / "goodput" / f"{number:05d}.json"), account)


def test_work_that_was_done_again_and_later_start_ups_are_restart(tmp_path: Path) -> None:
    write_attempt(
        tmp_path, 0, 0, (10, {"start_up": 3.0, "compile": 5.0, "step": 20.0}), (17, {"step": 7.0})
    )
    # Its checkpoint of step 20 was not whole: the third attempt went on from 10 again.
    write_attempt(
        tmp_path, 1, 10, (20, {"start_up": 2.0, "step": 10.0}), (21, {"step": 1.0, "data": 0.5})
    )
    write_attempt(tmp_path, 2, 10, (30, {"start_up": 2.5, "step": 20.0, "checkpoint": 1.0}))
    seconds = phase_seconds(tmp_path)
    assert seconds == {
        "step": 40.0,
        "compile": 5.0,
        "data": 0.0,
        "checkpoint": 1.0,
        "start_up": 3.0,
        "restart": 7.0 + 2.0 + 10.0 + 1.0 + 0.5 + 2.5,
    }


def test_an_attempt_that_died_before_its_first_step_counts(tmp_path: Path) -> None:
    write_attempt(tmp_path, 0, 0, (0, {"start_up": 3.0}))
    write_attempt(tmp_path, 1, 0, (0, {"start_up": 4.0}))
    write_attempt(tmp_path, 2, 0, (5, {"start_up": 1.0, "step": 5.0}))
    seconds = phase_seconds(tmp_path)
    assert (seconds["start_up"], seconds["restart"], seconds["step"]) == (3.0, 5.0, 5.0)


def test_no_account_is_all_zero(tmp_path: Path) -> None:
    account = phase_account(str(tmp_path))
    assert set(account.seconds.values()) == {0.0}
    assert (account.num_attempts, account.machines) == (0, ())


def test_machines_are_told_in_the_order_they_were_used(tmp_path: Path) -> None:
    for first in (0, 1):
        with Clock().attempt(str(tmp_path), first, MESH):
            pass
    account = phase_account(str(tmp_path))
    assert (account.num_attempts, account.machines) == (2, ("1 x cpu",))


def test_a_mesh_in_words() -> None:
    # One device eight times: nothing is computed on it.
    devices = np.array(jax.devices()[:1] * 8).reshape(1, 4, 1, 2)
    mesh = jax.sharding.Mesh(devices, AXES)
    assert goodput.machine_in_words(mesh) == "8 x cpu, mesh fsdp 4 x tensor 2"


def test_every_second_is_booked_once(tmp_path: Path) -> None:
    """The kinds add up to the time on the wall, with a compile inside, none counted twice."""
    before = time.perf_counter()
    clock = Clock()
    made = time.perf_counter()
    time.sleep(0.05)
    with clock.attempt(str(tmp_path), 0, MESH):
        with clock.waiting_for_data():
            time.sleep(0.1)
        # A function traced inside another's trace.
        inner = jax.jit(lambda x: jnp.sin(x) @ x)
        jax.jit(lambda x: inner(inner(x)))(jnp.ones((4, 4))).block_until_ready()
        clock.lap(1)
        with clock.saving(1):
            time.sleep(0.07)
        clock.lap(2)
        passed = time.perf_counter() - made
    seconds = phase_seconds(tmp_path)
    assert passed <= sum(seconds.values()) <= time.perf_counter() - before
    assert seconds["start_up"] >= 0.05
    assert seconds["data"] >= 0.1
    assert seconds["checkpoint"] >= 0.07
    assert seconds["compile"] > 0
    assert all(value >= 0 for value in seconds.values())


class Running:
    """A result that is there when the test says so."""

    def __init__(self) -> None:
        self.is_done = threading.Event()

    def block_until_ready(self) -> None:
        self.is_done.wait()


def test_waiting_while_the_device_is_busy_is_no_wait_for_data(tmp_path: Path) -> None:
    clock, running = Clock(), Running()
    with clock.attempt(str(tmp_path), 0, MESH):
        clock.running(running)  # type: ignore[arg-type]
        with clock.waiting_for_data():
            time.sleep(0.1)
        assert clock.lap(1)[1] == 0.0
        with clock.waiting_for_data():
            time.sleep(0.1)
            running.is_done.set()
            time.sleep(0.2)
        seconds, waited = clock.lap(2)
        assert 0.15 < waited <= seconds - 0.1
    assert phase_seconds(tmp_path)["data"] == pytest.approx(waited)


@pytest.mark.parametrize("where", ["local", "memory"])
def test_an_account_outlives_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What is on disk while the attempt still runs is what a kill would leave."""
    folder = str(tmp_path) if where == "local" else f"memory://{tmp_path.name}"
    monkeypatch.setattr(goodput, "_LOCAL_SECONDS", 0.0)
    clock = Clock()
    with clock.attempt(folder, 0, MESH):
        first = phase_seconds(folder)
        assert first["start_up"] > 0
        clock.lap(1)
        with clock.saving(1):
            pass
        time.sleep(0.02)
        clock.lap(2)
        left = phase_seconds(folder)
        if where == "local":
            assert left["step"] > 0.02
    with Clock().attempt(folder, 1, MESH):
        pass
    later = phase_seconds(folder)
    assert later["restart"] > 0.02
    if where == "local":
        assert later["step"] < left["step"]
