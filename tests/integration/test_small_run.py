"""A whole run, small: all three phases, then what a user would check, then kills."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import small_run

from snowcoder_jax.errors import EXIT_SAVED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def finished(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("output")
    result = small_run.run(small_run.command(sources, output))
    assert result.returncode == 0, result.stderr[-4000:]
    return output


def report_of(output: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((output / "runs/local/report.json").read_text())
    return report


def losses(output: Path) -> list[tuple[str, int, float]]:
    lines = (output / "runs/local/metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(r["phase"], r["step"], r["loss"]) for r in rows]


def packed_hashes(output: Path) -> dict[str, str]:
    return {
        str(path.relative_to(output)): json.dumps(json.loads(path.read_text())["shards"])
        for path in output.glob("packed/*/packed.json")
    }


def test_the_report_holds_every_figure(finished: Path) -> None:
    report = report_of(finished)
    assert report["status"] == "complete"
    tokens = {"general": 102_400, "continued": 24_576, "enhanced": 4_096}
    for name, count in tokens.items():
        phase = report["phases"][name]
        assert phase["tokens"] == count
        assert 0 < phase["heldout_bits_per_byte"]["all"] < 8
        assert phase["references"] == {**phase["references"], "passed": 30, "total": 30}
        assert phase["mutants"]["failed"] == phase["mutants"]["total"] == 90
    general, enhanced = report["phases"]["general"], report["phases"]["enhanced"]
    assert enhanced["heldout_bits_per_byte"]["all"] < general["heldout_bits_per_byte"]["all"]
    difference = report["control"]["difference"]
    for what in ("heldout", "solutions"):
        assert difference[what]["low"] <= difference[what]["difference"] <= difference[what]["high"]
    assert report["baseline_bits_per_byte"]["all"] > 0
    dropped = sum(report["corpus"]["dropped"].values())
    assert report["corpus"]["documents"] - dropped == report["corpus"]["kept_documents"]
    # One of the headers holds a template, which is C++ by Linguist's rules.
    assert report["corpus"]["languages"].keys() == {"Python", "C", "C++"}
    assert 0.5 < report["annotator"]["auc"] <= 1
    assert report["synthesis"]["accepted"] >= 1
    refused = sum(row["documents"] for row in report["synthesis"]["reasons"])
    assert report["synthesis"]["kept"] + refused == report["synthesis"]["requests"]
    assert set(report["seconds"]) >= {"ingest", "train general", "evaluate enhanced"}
    assert 10**8 < report["peak_memory_bytes"] < 6 * 10**9
    page = (finished / "runs/local/report.html").read_text()
    assert "enhanced" in page


def test_continued_repeats_all_of_its_selection_and_nothing_else(finished: Path) -> None:
    (part,) = report_of(finished)["phases"]["continued"]["mixture"]
    assert part["num_sequences"] == 24_576 // 128
    assert 1 < part["epochs"] <= 4.2
    assert part["epochs"] == part["num_sequences"] / part["num_records"]


def test_a_second_run_does_nothing_and_changes_nothing(sources: Path, finished: Path) -> None:
    before = (finished / "runs/local/report.json").read_bytes()
    result = small_run.run(small_run.command(sources, finished))
    assert result.returncode == 0, result.stderr
    assert "[" not in result.stderr.replace("[jax", "")
    assert (finished / "runs/local/report.json").read_bytes() == before


def test_another_seed_shares_what_does_not_depend_on_it(sources: Path, finished: Path) -> None:
    """An ablation of one phase redoes that phase and what follows, and no corpus stage."""
    arguments = small_run.command(
        sources, finished, "phases.enhanced.schedule.peak=2e-3", "name=ablation"
    )
    result = small_run.run([*arguments[:3], "prepare", *arguments[4:]])
    assert result.returncode == 0, result.stderr
    assert "8 of 8 steps are done already" in result.stderr


def test_settings_that_come_back_find_their_checkpoints_and_metrics(
    sources: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A, then B, then A again: nothing is trained twice, and the curve is A's own."""
    before = losses(finished)
    for peak in ("1e-3", "2.5e-4"):
        arguments = small_run.command(
            sources, finished, f"phases.enhanced.schedule.peak={peak}", verb="run"
        )
        result = small_run.run(arguments)
        assert result.returncode == 0, result.stderr[-3000:]
        if peak == "1e-3":
            assert losses(finished) != before
    assert sorted(losses(finished)) == sorted(before)
    assert result.stderr.count("loss") == 0


def test_why_tells_every_verdict(finished: Path) -> None:
    run = str(finished / "runs/local")
    arguments = [*small_run.command(Path(), finished)[:3], "why", run, "json/decoder.py"]
    result = small_run.run(arguments)
    assert result.returncode == 0, result.stderr
    for stage in ("rules", "duplicates", "contamination", "policy"):
        assert f"\n  {stage} " in result.stdout, (stage, result.stdout)
    for title in ("score", "selections", "packed", "signals"):
        assert f"\n{title}\n" in result.stdout, (title, result.stdout)


def test_generate_and_export(finished: Path, tmp_path: Path) -> None:
    base = small_run.command(Path(), finished)[:3]
    checkpoint = str(finished / "runs/local/checkpoints/enhanced")
    written = small_run.run([*base, "generate", checkpoint, "def ", "--max-new-tokens", "8"])
    assert written.returncode == 0, written.stderr
    assert written.stdout.startswith("def ")
    exported = small_run.run([*base, "export", checkpoint, str(tmp_path / "hf")])
    assert exported.returncode == 0, exported.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(
        os.listdir(tmp_path / "hf")
    )


def test_preemption_saves_and_asks_to_be_started_again(
    sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path_factory.mktemp("preempted")
    arguments = small_run.command(sources, output)
    checkpoints = output / "runs/local/checkpoints/general"

    def written(stage: str) -> bool:
        return any(output.glob(f"corpora/*/attributes/{stage}-*/code/*.manifest.json"))

    moments = {
        "ingest": (lambda: True, signal.SIGTERM),
        # Inside a stage, where Beam makes another error of it.
        "rules": (lambda: written("rules"), signal.SIGTERM),
        "tokens": (lambda: written("tokens"), signal.SIGINT),
        "train general": (lambda: any(checkpoints.glob("*.manifest.json")), signal.SIGTERM),
    }
    for step, (ready, sent) in moments.items():
        code, log = small_run.signal_when(arguments, step, ready, sent)
        assert code == EXIT_SAVED, log
        assert "start the same command again" in log.lower()
        assert "Traceback" not in log


def test_three_kills_change_nothing(
    sources: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path_factory.mktemp("killed")
    arguments = small_run.command(sources, output)
    moments = {
        # In the middle of the corpus stages, of a phase, and of the teacher's answers.
        "rules": lambda: any(output.glob("corpora/*/attributes/rules-*/code/*.manifest.json")),
        "train general": lambda: any(output.glob("runs/local/checkpoints/general/*.manifest.json")),
        "synthesize ask": lambda: any(output.glob("answers/*/answers-*.jsonl")),
    }
    for step, ready in moments.items():
        _, log = small_run.signal_when(arguments, step, ready, signal.SIGKILL)
        assert f"] {step}\n" in log
        assert not re.fullmatch(rf"  {step}: [0-9.]+ s", log.splitlines()[-1]), "it was done"
        assert not (output / "runs/local/report.json").exists()
    result = small_run.run(arguments)
    assert result.returncode == 0, result.stderr[-4000:]
    assert losses(output) == losses(finished)
    assert packed_hashes(output) == packed_hashes(finished)
    killed, whole = report_of(output), report_of(finished)
    for name in whole["phases"]:
        for figure in ("heldout_bits_per_byte", "final_loss", "mixture"):
            assert killed["phases"][name][figure] == whole["phases"][name][figure]
