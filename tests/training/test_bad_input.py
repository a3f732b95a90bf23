"""What is wrong with data or checkpoints: one message, the right exit code, nothing lost."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_training import MODEL, make_phase, make_recipe, train, write_records

from snowcoder_jax import cli, packed, recipe
from snowcoder_jax.errors import EXIT_INPUT
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import checkpoints, manifests
from snowcoder_jax.training.batches import Batches


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packed]:
    return {"all": write_records(str(tmp_path_factory.mktemp("packed")), 40)}


@pytest.fixture(scope="module")
def saved(data: dict[str, Packed], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut off after step 10 of 12; it kept step 5."""
    folder = tmp_path_factory.mktemp("run")
    train(str(folder), data, run=make_recipe(checkpointing=recipe.Checkpointing(keep_last=3)))
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
    # A start that would end in the same place is not what a supervisor is to try for ever.
    assert code == EXIT_INPUT
    assert "step 12: loss or gradient was not finite 2 times in a row" in said
    # The broken steps changed nothing; what was saved before them is there.
    assert manifests.latest_step(str(folder / "checkpoints/general")) == 10


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
    assert "with another model, data, schedule, start" in said
    later = make_phase(name="continued", starts_from="general")
    other = dataclasses.replace(other, phases=(make_phase(), later))
    start = str(folder / "checkpoints/general")
    code, said = outcome(capsys, lambda: train(str(folder), data, later, other, start))
    assert code == EXIT_INPUT
    assert "is a checkpoint of another model or optimizer" in said
    assert manifests.latest_step(start) == 10


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
    assert manifests.latest_step(str(folder / "checkpoints/general")) == 10


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def without_files(file: Path) -> None:
    manifest = json.loads(file.read_text())
    del manifest["files"]
    file.write_text(json.dumps(manifest))


def a_list(file: Path) -> None:
    file.write_text("[]")


def binary(file: Path) -> None:
    file.write_bytes(b"\xff" * 100)


def figures(run_folder: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (run_folder / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines]


@pytest.mark.parametrize("damage", [cut, empty, without_files, a_list, binary])
def test_a_step_with_a_damaged_manifest_is_done_again(
    data: dict[str, Packed],
    saved: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    """The supervisor of a run goes on at night with what is sound; what is lost is in the log."""
    general = folder / "checkpoints/general"
    damage(general / "10.manifest.json")
    train(str(folder), data)
    assert f"{general}/10.manifest.json: is damaged; that step is done again" in caplog.text
    assert "from step 5 on" in caplog.text
    assert figures(folder) == figures(saved)
    assert sorted(p.name for p in general.glob("*.manifest.json")) == [
        "10.manifest.json",
        "12.manifest.json",
    ]
    assert manifests.read_manifest(str(general), 10)["step"] == 10


def test_a_damaged_manifest_is_not_counted_among_what_is_kept(
    data: dict[str, Packed], folder: Path
) -> None:
    """Going on with saves at other steps, a kill must find one that is sound at any time."""
    general = folder / "checkpoints/general"
    cut(general / "10.manifest.json")
    with checkpoints.Checkpoints(str(general), make_recipe().checkpointing):
        assert not (general / "10").exists()
    assert manifests.latest_step(str(general)) == 5


def test_weeks_are_not_thrown_away_for_a_damaged_manifest(
    data: dict[str, Packed], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    general = folder / "checkpoints/general"
    for step in (5, 10):
        cut(general / f"{step}.manifest.json")
    code, said = outcome(capsys, lambda: train(str(folder), data))
    assert code == EXIT_INPUT
    assert f"{general}/10: the checkpoint is damaged: its manifest is no JSON" in said
    assert f"Remove {general}/10.manifest.json" in said
    assert (general / "10/params").exists()


def test_a_phase_starts_from_no_earlier_step_than_the_last(
    data: dict[str, Packed], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = folder / "checkpoints/general"
    cut(start / "10.manifest.json")
    later = make_phase(name="continued", starts_from="general")
    run = make_recipe(make_phase(), later)
    code, said = outcome(capsys, lambda: train(str(folder), data, later, run, str(start)))
    assert code == EXIT_INPUT
    assert f"Remove {start}/10.manifest.json to go on from step 5" in said


@pytest.mark.parametrize("name", ["result.json", "goodput/00000.json"])
def test_what_can_be_made_again_is(
    data: dict[str, Packed], folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    result = train(str(folder), data)
    file = folder / "checkpoints/general" / name
    cut(file)
    (folder / "checkpoints/general/result.json").write_bytes(b"{")
    made = train(str(folder), data)
    assert f"{file}: is damaged and left out" in caplog.text
    lost = 1 if name.startswith("goodput") else 0
    assert made.account.num_attempts == result.account.num_attempts - lost
    assert dataclasses.replace(made, account=result.account) == result


@pytest.mark.parametrize("lost", ["all", "some"])
def test_a_lost_log_costs_no_training(
    data: dict[str, Packed], folder: Path, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    metrics, general = folder / "metrics.jsonl", folder / "checkpoints/general"
    want = train(str(shutil.copytree(folder, folder.with_name("whole"))), data)
    if lost == "some":
        metrics.unlink()
    result = train(str(folder), data)
    if lost == "all":
        metrics.unlink()
        (general / "result.json").unlink()
        result = train(str(folder), data)
    num_left = 0 if lost == "all" else 2
    assert f"{metrics}: holds {num_left} of phase `general`'s 12 steps" in caplog.text
    for name in ("steps", "tokens", "sequences", "seen", "mixture", "skipped_updates"):
        assert getattr(result, name) == getattr(want, name)
    assert (result.seconds, result.seconds_to_first_step) == (None, None)
    assert result.final_loss == (None if lost == "all" else want.final_loss)
    assert (result.tokens_per_second is None) == (lost == "all")
    assert train(str(folder), data) == result


def test_a_packed_folder_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_records(str(tmp_path / "packed"), 40).folder
    cut(Path(folder) / "packed.json")
    code, said = outcome(capsys, lambda: packed.read_packed(folder))
    assert code == EXIT_INPUT
    assert f"{folder}/packed.json: is damaged" in said
    assert "or remove it and start the same command again" in said
