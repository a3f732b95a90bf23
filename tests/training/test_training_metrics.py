"""metrics.jsonl over kills, resumes and object stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snowcoder_jax import storage
from snowcoder_jax.training.metrics import MetricsLog, StepMetrics, finite_or_none, read_metrics


def line(phase: str, step: int, loss: float | None = 1.0) -> StepMetrics:
    return StepMetrics(phase, step, step, step * 8, loss, 1e-3, 0.5, 0.1, 0.0, 80.0, 0)


@pytest.mark.parametrize("where", ["local", "memory"])
def test_lines_past_the_restored_step_are_cut(tmp_path: Path, where: str) -> None:
    path = str(tmp_path / "metrics.jsonl")
    if where == "memory":
        path = f"memory://{tmp_path.name}/metrics.jsonl"
    with MetricsLog(path, "general", 0) as log:
        for step in (1, 2, 3):
            log.append(line("general", step))
    with MetricsLog(path, "continued", 0) as log:
        for step in (1, 2, 3, 4):
            log.append(line("continued", step))
    with MetricsLog(path, "continued", 2) as log:
        log.append(line("continued", 3, loss=None))
    assert [x.step for x in read_metrics(path, "general")] == [1, 2, 3]
    assert [x.step for x in read_metrics(path, "continued")] == [1, 2, 3]
    assert read_metrics(path, "continued")[2].loss is None
    assert len(storage.read_bytes(path).splitlines()) == 6


def test_a_line_that_a_kill_cut_short_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(str(path), "general", 0) as log:
        log.append(line("general", 1))
        log.append(line("general", 2))
    path.write_bytes(path.read_bytes()[:-20])
    assert [x.step for x in read_metrics(str(path), "general")] == [1]
    with MetricsLog(str(path), "general", 1) as log:
        log.append(line("general", 2))
    assert [json.loads(x)["step"] for x in path.read_text().splitlines()] == [1, 2]


def test_no_file_holds_no_lines(tmp_path: Path) -> None:
    assert read_metrics(str(tmp_path / "none.jsonl"), "general") == []


def test_json_has_no_nan() -> None:
    assert [finite_or_none(x) for x in (1.5, float("nan"), float("inf"))] == [1.5, None, None]
