"""Asking through Beam's RunInference: against a fake server, and with vLLM itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "synthesis"))
from fake_server import FakeServer
from vllm_model import ENVIRONMENT, PYTHON, make_ask, write_model

from beam_pipelines.inference import ask_on_beam
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, ServerTeacher, VllmTeacher
from snowcoder_jax.synthesis import prompts, seed_parts
from snowcoder_jax.synthesis.answers import AnswerIndex


def test_every_request_is_asked_once_and_a_bad_one_fails_no_other(tmp_path: Path) -> None:
    log = tmp_path / "asked.jsonl"
    with FakeServer(log=str(log)) as server:
        teacher = ServerTeacher("fake", (server.url,))
        # The third seed says "fake=400" to the server, which is what it then answers.
        ask = make_ask(tmp_path / "ask", teacher, num_seeds=30, bad_seed=2)
        facts = ask_on_beam(str(tmp_path / "ask"), batch_size=8)
        assert (facts["answered"], facts["dead"], facts["missing"]) == (29, 1, 0)
        assert facts["dead_letters"]["counts"] == {"refused": 1}
        asked = [line["prompt"] for line in server.asked() if line["path"].startswith("/v1/chat")]
        assert len(asked) >= 30 and len(set(asked)) == 30

        again = ask_on_beam(str(tmp_path / "ask"), batch_size=8)
        assert len(server.asked()) == len(asked)
        assert (again["answered"], again["dead"]) == (29, 1)
    requests = list(prompts.requests(ask, seed_parts.read_seeds(ask.seeds)))
    rows = AnswerIndex(ask.store).find([request.key for request in requests])
    assert {row.request.seed.id for row in rows.values()} == {f"{i:032x}" for i in range(30)}


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
