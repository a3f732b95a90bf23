"""metrics.jsonl over kills, resumes and object stores."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from jax.sharding import Mesh

from snowcoder_jax import storage
from snowcoder_jax.recipe import Model
from snowcoder_jax.training.metrics import (
    MetricsLog,
    StepMetrics,
    finite_or_none,
    model_flops_utilization,
    read_metrics,
)


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


def test_a_damaged_line_is_left_out_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a log nothing hangs that is learnt."""
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(str(path), "general", 0) as log:
        for step in (1, 2, 3):
            log.append(line("general", step))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], lines[1][:30], lines[2], b""]))
    assert [x.step for x in read_metrics(str(path), "general")] == [1, 3]
    assert f"{path}: line 2: is damaged and left out" in caplog.text
    with MetricsLog(str(path), "general", 3) as log:
        log.append(line("general", 4))
    assert [json.loads(x)["step"] for x in path.read_text().splitlines()] == [1, 3, 4]


def test_no_file_holds_no_lines(tmp_path: Path) -> None:
    assert read_metrics(str(tmp_path / "none.jsonl"), "general") == []


def test_json_has_no_nan() -> None:
    assert [finite_or_none(x) for x in (1.5, float("nan"), float("inf"))] == [1.5, None, None]


def test_lines_of_an_earlier_version_still_load(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    old = {k: v for k, v in vars(line("general", 1)).items() if not k.startswith("mfu")}
    path.write_text(json.dumps(old) + "\n")
    assert read_metrics(str(path), "general") == [line("general", 1)]


def mesh_of(kind: str, size: int = 1) -> Mesh:
    """What is asked of a mesh of such devices."""
    devices = np.array([SimpleNamespace(device_kind=kind)] * size)
    return SimpleNamespace(devices=devices, size=size)  # type: ignore[return-value]


def test_mfu_by_both_conventions() -> None:
    """The 1.36 B model at 8,192 tokens: 10.6 and 13.0 GFLOP a token."""
    causal, full = model_flops_utilization(Model(), 64_000, 8_192, mesh_of("NVIDIA H200"))(51_000)
    assert causal == pytest.approx(51_000 * 10.6e9 / 989e12, rel=2e-3)
    assert full == pytest.approx(51_000 * 13.0e9 / 989e12, rel=2e-3)
    one, _ = model_flops_utilization(Model(), 64_000, 8_192, mesh_of("TPU v5 lite"))(51_000)
    eight, _ = model_flops_utilization(Model(), 64_000, 8_192, mesh_of("TPU v5 lite", 8))(51_000)
    assert one is not None
    assert eight == pytest.approx(one / 8)


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA H100 PCIe", "TPU v9"])
def test_without_a_known_peak_there_is_no_mfu(kind: str) -> None:
    assert model_flops_utilization(Model(), 64_000, 8_192, mesh_of(kind))(1.0) == (None, None)
