"""Asking through Beam's RunInference: against a fake server, and with vLLM itself."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "synthesis"))
from fake_server import FakeServer
from vllm_model import ENVIRONMENT, PYTHON, make_ask, write_model

from beam_pipelines import inference
from beam_pipelines.inference import ask_on_beam
from snowcoder_jax import storage
from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, ServerTeacher, VllmTeacher
from snowcoder_jax.synthesis import prompts, seed_parts
from snowcoder_jax.synthesis.answers import AnswerIndex
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.requests import Request
from snowcoder_jax.synthesis.subprocess_worker import PYTHON_VARIABLE
from snowcoder_jax.synthesis.teachers.control import CONTROL_PROMPT


def test_every_request_is_asked_once_and_a_bad_one_fails_no_other(tmp_path: Path) -> None:
    log = tmp_path / "asked.jsonl"
    with FakeServer(log=str(log)) as server:
        teacher = ServerTeacher("fake", (server.url,))
        # The third seed says "fake=400" to the server, which is what it then answers.
        ask = make_ask(tmp_path / "ask", teacher, num_seeds=30, bad_seed=2)
        facts = ask_on_beam(str(tmp_path / "ask"), batch_size=8)
        assert (facts["answered"], facts["dead"], facts["missing"]) == (29, 1, 0)
        assert facts["dead_letters"]["counts"] == {"refused": 1}
        num_asked = Counter(line["prompt"] for line in server.asked())
        # Whose fault the bad one is may take a question of another kind.
        num_control = num_asked.pop(CONTROL_PROMPT, 0)
        assert len(num_asked) == 30 and set(num_asked.values()) == {1}

        again = ask_on_beam(str(tmp_path / "ask"), batch_size=8)
        assert len(server.asked()) == 30 + num_control
        assert (again["answered"], again["dead"]) == (29, 1)
    requests = list(prompts.requests(ask, seed_parts.read_seeds(ask.seeds)))
    rows = AnswerIndex(ask.store).find([request.key for request in requests])
    assert {row.request.seed.id for row in rows.values()} == {f"{i:032x}" for i in range(30)}


def test_a_batch_of_which_all_is_refused_makes_no_dead_letters(tmp_path: Path) -> None:
    with FakeServer() as server:
        ask = make_ask(tmp_path / "ask", ServerTeacher("fake", (server.url,)), num_seeds=70)
        refused = [dataclasses.replace(r, prompt=f"{r.prompt} fake=400") for r in requests_of(ask)]
        with pytest.raises(InputError, match="none was answered"):
            inference.Asked(ask).ask_missing(refused)
    assert len(AnswerIndex(ask.store)) == 0


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (VllmTeacher("some/model", mode="completion"), "launch/vllm/worker.sh"),
        (CheckpointTeacher("continued"), "snowcoder synthesize"),
    ],
)
def test_teachers_that_beam_cannot_ask_are_refused(
    teacher: VllmTeacher | CheckpointTeacher, words: str, tmp_path: Path
) -> None:
    make_ask(tmp_path / "ask", teacher, num_seeds=1)
    with pytest.raises(InputError, match=words):
        ask_on_beam(str(tmp_path / "ask"))


def fake_vllm(folder: Path, num_failures: int = 0) -> Path:
    """An interpreter whose vLLM ends at once that many times, and then is a fake server."""
    python, starts = folder / "python", folder / "starts"
    fake = Path(__file__).parents[1] / "synthesis" / "fake_server.py"
    python.write_text(
        f"#!/bin/sh\necho start >> {starts}\n"
        f"[ $(wc -l < {starts}) -gt {num_failures} ] || exit 3\n"
        'while [ "$1" != --port ]; do shift; done\n'
        f'echo $$ > {folder}/pid\nexec {sys.executable} {fake} --port "$2" --model some/model\n'
    )
    python.chmod(0o755)
    return python


def requests_of(ask: Ask) -> list[Request]:
    return list(prompts.requests(ask, seed_parts.read_seeds(ask.seeds)))


@pytest.mark.timeout(120)
def test_a_server_that_ends_at_once_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(fake_vllm(tmp_path, num_failures=99)))
    make_ask(tmp_path / "ask", VllmTeacher("some/model"), num_seeds=3)
    with pytest.raises(MachineError, match=r"server ended \(exit code 3\)"):
        ask_on_beam(str(tmp_path / "ask"))


@pytest.mark.timeout(120)
def test_after_a_server_that_ended_another_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(fake_vllm(tmp_path, num_failures=1)))
    ask = make_ask(tmp_path / "ask", VllmTeacher("some/model"), num_seeds=9)
    requests, asked = requests_of(ask), inference.Asked(ask)
    with pytest.raises(MachineError, match="exit code 3"):
        asked.ask_missing(requests[:3])
    asked.ask_missing(requests[:3])
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    time.sleep(0.5)
    assert asked.ask_missing(requests) == [request.key for request in requests]
    assert len(AnswerIndex(ask.store)) == 9
    assert (tmp_path / "starts").read_text().count("start") == 3


@pytest.mark.timeout(120)
def test_a_server_that_dies_in_the_middle_of_a_batch_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(fake_vllm(tmp_path)))
    # "fake=silent" in a seed: that request is never answered.
    ask = make_ask(tmp_path / "ask", VllmTeacher("some/model"), num_seeds=9, bad_seed=4)
    requests = [dataclasses.replace(r, prompt=r.prompt.replace("400", "silent"))
                for r in requests_of(ask)]  # fmt: skip
    asked = inference.Asked(ask)

    def kill_when_eight_are_stored() -> None:
        while sum(path.read_text().count("\n") for path in Path(ask.store).glob("*.jsonl")) < 8:
            time.sleep(0.1)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    thread = threading.Thread(target=kill_when_eight_are_stored, daemon=True)
    thread.start()
    with pytest.raises(MachineError, match="exit code -9"):
        asked.ask_missing(requests)
    assert len(AnswerIndex(ask.store)) == 8


def test_another_model_under_the_same_name_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    make_ask(tmp_path / "ask", VllmTeacher(str(model)), num_seeds=1)
    (model / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(InputError, match="differs here from the model"):
        ask_on_beam(str(tmp_path / "ask"))


def test_what_is_stored_is_listed_once_for_many_batches_and_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    sizes_bytes = storage.sizes_bytes
    monkeypatch.setattr(storage, "sizes_bytes", lambda f: listed.append(f) or sizes_bytes(f))
    with FakeServer(log=str(tmp_path / "log")) as server:
        ask = make_ask(tmp_path / "ask", ServerTeacher("fake", (server.url,)), num_seeds=40)
        requests, asked, other = requests_of(ask), inference.Asked(ask), inference.Asked(ask)
        for start in range(0, 32, 8):
            asked.ask_missing(requests[start : start + 8])
        asked.ask_missing(requests[:32])
        assert len(listed) == 2
        monkeypatch.setattr(inference, "INDEX_SECONDS", 0.0)
        other.ask_missing(requests)
        assert len(listed) == 3
        prompts_asked = [line["prompt"] for line in server.asked() if "prompt" in line]
    assert len(AnswerIndex(ask.store)) == 40
    assert sum(bool(prompt) for prompt in prompts_asked) == 40


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    not Path(PYTHON).exists(),
    reason="vLLM has its own environment: `bash launch/test.sh --all` makes it",
)
def test_a_vllm_teacher_is_served_from_its_own_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    model = write_model(tmp_path / "tiny")
    teacher = VllmTeacher(model, dtype="float32", max_model_len=1024)
    ask = make_ask(tmp_path / "ask", teacher, num_seeds=20, long_seed=3)
    facts = ask_on_beam(str(tmp_path / "ask"), batch_size=16)
    assert (facts["answered"], facts["dead"], facts["missing"]) == (19, 1, 0)
    assert facts["dead_letters"]["counts"] == {"context": 1}
    [row, *_] = (
        AnswerIndex(ask.store)
        .find([request.key for request in prompts.requests(ask, seed_parts.read_seeds(ask.seeds))])
        .values()
    )
    assert row.teacher == "tiny"
