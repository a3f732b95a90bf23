"""The teacher behind fake servers, and what it is asked."""

from __future__ import annotations

import dataclasses

from fake_server import answer_text

from snowcoder_jax.recipe_synthesis import ServerTeacher
from snowcoder_jax.synthesis.requests import Answer, Request, Sampling, Seed, make_request
from snowcoder_jax.synthesis.teachers.endpoint import Pace
from snowcoder_jax.synthesis.teachers.servers import ServersTeacher

PACE = Pace(check_interval=0.3, check_timeout=5.0, first_backoff=0.03, max_backoff=0.2)
HASTY = dataclasses.replace(PACE, first_backoff=0.01, max_backoff=0.02)
SAMPLING = Sampling(max_new_tokens=50, temperature=0.6, top_p=0.9)


def ask(prompt: str, number: int = 0) -> Request:
    seed = Seed(str(number), "repo", "a.py", "Python", "x = 1\n", 0.5)
    return make_request(
        seed,
        prompt,
        prompt_version="1",
        teacher_fingerprint="teacher",
        sampling=SAMPLING,
        run_seed=0,
    )


def good(num: int) -> list[Request]:
    return [ask(f"write file {i}", i) for i in range(num)]


def teacher(*urls: str, pace: Pace = PACE, **settings: object) -> ServersTeacher:
    whole = {"model": "fake", "urls": urls, "timeout_seconds": 10.0, **settings}
    return ServersTeacher(ServerTeacher(**whole), fingerprint="teacher", pace=pace)  # type: ignore[arg-type]


def text_of(request: Request) -> str:
    return answer_text(request.prompt, request.random_seed, chat=True)


def assert_all_answered(requests: list[Request], answers: list[Answer]) -> None:
    texts = {request.key: text_of(request) for request in requests}
    assert {answer.key: answer.text for answer in answers} == texts
    assert len(answers) == len(requests)
