"""Steps: what is done is skipped, what is stale or has lost files is redone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snowcoder_jax import run, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.progress import Progress, advance
from snowcoder_jax.recipe import load_recipe
from snowcoder_jax.run import Facts, Step
from snowcoder_jax.steps import build

LOCAL = str(Path(__file__).parent.parent / "configs/local.yaml")


def step_in(folder: Path, calls: list[str], key: str = "k", **more: object) -> Step:
    def work(progress: Progress) -> Facts:
        calls.append(key)
        storage.write_bytes(str(folder / "result"), b"12345")
        return {"answer": 42}

    return Step("a step", key, str(folder), work, **more)  # type: ignore[arg-type]


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    calls: list[str] = []
    lines: list[str] = []
    step = step_in(tmp_path, calls)
    run.execute([step], lines.append)
    run.execute([step], lines.append)
    assert calls == ["k"]
    assert lines[-1] == "1 of 1 steps are done already"
    record = run.finished(step)
    assert record is not None
    assert record["facts"] == {"answer": 42}
    assert record["files"] == {"result": 5}
    assert record["peak_memory_bytes"] > 10**6


def cut(path: Path) -> None:
    path.write_bytes(b"1234")


@pytest.mark.parametrize("damage", [os.unlink, cut], ids=["lost", "cut short"])
def test_a_damaged_result_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    calls: list[str] = []
    step = step_in(tmp_path, calls)
    run.run_step(step)
    damage(tmp_path / "result")
    assert run.finished(step) is None
    run.execute([step], lambda _: None)
    assert calls == ["k", "k"]


def test_another_key_is_stale_and_an_output_elsewhere_is_watched(tmp_path: Path) -> None:
    calls: list[str] = []
    run.run_step(step_in(tmp_path, calls))
    assert run.finished(step_in(tmp_path, calls, key="other")) is None
    assert run.finished(step_in(tmp_path, calls, outputs=(str(tmp_path / "page"),))) is None


def test_a_step_that_fails_leaves_no_record(tmp_path: Path) -> None:
    def work(progress: Progress) -> Facts:
        raise InputError("no")

    step = Step("a step", "k", str(tmp_path), work)
    with pytest.raises(InputError):
        run.run_step(step)
    assert run.finished(step) is None


def test_progress_reaches_the_step_from_far_below() -> None:
    with Progress("x", total=10) as progress:
        advance(3)
        advance(4)
        assert (progress.done, progress.total) == (7, 10)
    advance(5)
    assert progress.done == 7


def test_a_line_of_progress_estimates_what_is_left() -> None:
    progress = Progress("train", total=100)
    progress.done, progress.note = 25, "loss 3"
    assert progress.line(elapsed_seconds=10) == "  train: 25/100, about 30 s left, loss 3"
    progress.total = 0
    assert progress.line(elapsed_seconds=10) == "  train: 25, loss 3"


def keys(*overrides: str) -> dict[str, str]:
    source = "sources=[{name: here, kind: folder, path: " + str(Path(__file__).parent) + "}]"
    return {s.name: s.key for s in build(load_recipe(LOCAL, (source, *overrides))).steps}


def changed(*overrides: str) -> set[str]:
    before, after = keys(), keys(*overrides)
    return {name for name in before if after.get(name) != before[name]}


def test_a_changed_field_makes_its_own_step_and_what_follows_stale() -> None:
    enhanced = changed("phases.enhanced.schedule.peak=1e-3")
    assert {"train enhanced", "evaluate enhanced", "report"} <= enhanced
    assert not enhanced & {"ingest", "tokens", "quality", "train continued", "synthesize"}
    rules = changed("corpus.rules.thresholds.all.max_lines=5")
    assert {"rules", "duplicates", "policy", "tokenizer", "train general"} <= rules
    assert not rules & {"ingest", "contamination", "secrets"}


def test_what_changes_no_result_makes_nothing_stale() -> None:
    layout = ("hardware.remat=full", "hardware.beam_workers=2", "hardware.microbatches=2")
    assert changed("name=other", "phases.general.checkpoint_every_steps=7", *layout) == set()
