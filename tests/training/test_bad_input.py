"""What is wrong with data or checkpoints: one message, the right exit code, nothing lost."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_training import MODEL, make_phase, make_recipe, train, write_records

from snowcoder_jax import cli
from snowcoder_jax.errors import EXIT_INPUT, EXIT_MACHINE
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import checkpoints
from snowcoder_jax.training.batches import Batches


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packed]:
    return {"all": write_records(str(tmp_path_factory.mktemp("packed")), 40)}


@pytest.fixture(scope="module")
def saved(data: dict[str, Packed], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut off after step 10 of 12."""
    folder = tmp_path_factory.mktemp("run")
    train(str(folder), data)
    (folder / "checkpoints/general/12.manifest.json").unlink()
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "run")


def outcome(capsys: pytest.CaptureFixture[str], work: Callable[[], Any]) -> tuple[int, str]:
    """The exit code of a command that does this, and its message."""

    def command() -> int:
        work()
        return 0

    capsys.readouterr()
    code = cli.exit_code(command)
    said = capsys.readouterr().err
    assert said.count("snowcoder: ") == 1
    assert "Traceback" not in said
    return code, said


def test_not_a_number_in_the_data_path(
    data: dict[str, Packed],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = Batches.batch

    def broken(self: Batches, k: int) -> dict[str, Any]:
        batch = whole(self, k)
        return {**batch, "weights": np.full_like(batch["weights"], np.nan)}

    monkeypatch.setattr(Batches, "__call__", broken)
    run = make_recipe()
    run = dataclasses.replace(
        run, optimizer=dataclasses.replace(run.optimizer, max_skipped_in_a_row=2)
    )
    code, said = outcome(capsys, lambda: train(str(folder), data, run=run))
    assert code == EXIT_MACHINE
    assert "step 12: loss or gradient was not finite 2 times in a row" in said
    # The broken steps changed nothing; what was saved before them is there.
    assert checkpoints.latest_step(str(folder / "checkpoints/general")) == 10


def test_a_corrupt_checkpoint_file(
    data: dict[str, Packed], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = (f for f in (folder / "checkpoints/general/10/rest").rglob("*") if f.is_file())
    file = max(files, key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    code, said = outcome(capsys, lambda: train(str(folder), data))
    assert code == EXIT_INPUT
    assert f"{file} is not what was saved" in said


def test_a_checkpoint_of_another_model(
    data: dict[str, Packed], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_recipe(model=dataclasses.replace(MODEL, hidden_dim=24))
    code, said = outcome(capsys, lambda: train(str(folder), data, run=other))
    assert code == EXIT_INPUT
    assert "with another model, data, schedule or start" in said
    later = make_phase(name="continued", starts_from="general")
    other = dataclasses.replace(other, phases=(make_phase(), later))
    start = str(folder / "checkpoints/general")
    code, said = outcome(capsys, lambda: train(str(folder), data, later, other, start))
    assert code == EXIT_INPUT
    assert "is a checkpoint of another model or optimizer" in said
    assert checkpoints.latest_step(start) == 10


@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_packed_shard_that_is_not_what_was_packed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    packed = write_records(str(tmp_path / "packed"), 40)
    shard = Path(packed.shards[0].path)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content if damage == "changed" else content[:-1]))
    code, said = outcome(capsys, lambda: train(str(folder), {"all": packed}))
    assert code == EXIT_INPUT
    assert str(shard) in said
    assert checkpoints.latest_step(str(folder / "checkpoints/general")) == 10
