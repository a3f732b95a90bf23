"""`snowcoder train` in two real processes that share an output folder, or do not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hosts
import pytest
import small_cloud

from snowcoder_jax.errors import EXIT_INPUT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    return small_cloud.make_recipe(folder, str(small_cloud.make_sources(folder / "sources")))


def start(recipe: Path, logs: Path, outputs: list[Path], *overrides: str) -> hosts.Hosts:
    """`snowcoder train` in a process for each folder, which is where it writes."""
    arguments = [sys.executable, "-m", "snowcoder_jax.cli", "train", str(recipe), "output=."]
    command = ["bash", "-c", 'cd "$0" && exec "$@"']
    more = [
        [str(output), *arguments, "hardware.compute_dtype=float32", *overrides]
        for output in outputs
    ]
    return hosts.Hosts(command, len(outputs), 4, logs, more)


def test_train_does_the_corpus_once_and_the_phases_together(recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    run = start(recipe, tmp_path / "logs", [output, output])
    assert run.codes(250) == [0, 0], run.output()
    first, second = run.texts()
    assert "[1/11] ingest" in first
    assert "train general: " in first
    assert "ingest" not in second
    lines = [
        json.loads(line) for line in (output / "runs/small/metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["loss"] < lines[0]["loss"]
    again = start(recipe, tmp_path / "logs", [output, output])
    assert again.codes(120) == [0, 0], again.output()
    assert "11 of 11 steps are done already" in again.texts()[0]


def test_hosts_without_a_shared_folder_are_told_so(recipe: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "one", tmp_path / "other"]
    for output in outputs:
        output.mkdir()
    run = start(recipe, tmp_path / "logs", outputs)
    assert run.codes() == [EXIT_INPUT, EXIT_INPUT], run.output()
    for text in run.texts():
        assert "process 1 does not see what process 0 writes there" in text
        assert "Traceback" not in text


def test_rows_that_processes_share_in_part_are_refused_before_the_corpus(
    recipe: Path, tmp_path: Path
) -> None:
    """Twelve devices, of which the second process's four hold the last rows of the first's."""
    output = tmp_path / "output"
    output.mkdir()
    mesh = ("hardware.mesh.fsdp=2", "hardware.mesh.tensor=6")
    run = start(recipe, tmp_path / "logs", [output] * 3, *mesh)
    assert run.codes() == [EXIT_INPUT] * 3, run.output()
    for text in run.texts():
        assert "rows that overlap in part" in text
        assert "hardware.mesh.tensor: 6 does not divide" in text
        assert "ingest" not in text
