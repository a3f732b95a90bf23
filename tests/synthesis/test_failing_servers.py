"""Whose fault a failure is: the prompt's, or the server's, which fails everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer
from server_teacher import HASTY, ask, assert_all_answered, good, teacher

from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.synthesis import first_failures
from snowcoder_jax.synthesis.first_failures import MAX_FAILED
from snowcoder_jax.synthesis.teachers.control import CONTROL_PROMPT


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(log=tmp_path / "log") as running:
        yield running


FAILS = {"--page": "no JSON", **{k: f"as told: {k}" for k in ("400", "401", "402", "403", "404")}}
FAILS |= {"500": "as told: 500", "garbage": "no JSON", "null": "no text", "nothing": "Disconnected"}


@pytest.mark.parametrize(
    ("num", "kind"), [*((5, kind) for kind in FAILS), (100, "400"), (100, "402"), (100, "500")]
)
def test_a_server_that_fails_everybody_ends_the_asking_and_kills_no_request(
    num: int, kind: str
) -> None:
    """Its health is good: it has no chat template, it is a proxy, the key is for others."""
    with FakeServer(*([kind] if kind == "--page" else ["--fail", kind])) as server:
        answers = teacher(server.url, pace=HASTY).answers(good(num))
        error, words = InputError, "every server refuses"
        if kind in ("500", "nothing"):
            error, words = MachineError, "every server fails at every question"
        with pytest.raises(error, match=f"{words}.*{FAILS[kind]}.*same command"):
            next(answers)


# With a delay, older answers come after the failures.
@pytest.mark.parametrize(
    ("kind", "delay"),
    [("400", "0"), ("400", "1"), ("401", "1"), ("402", "0.2"), ("500", "0"), ("garbage", "1")],
)
def test_a_server_that_goes_bad_kills_no_request_and_loses_no_answer(kind: str, delay: str) -> None:
    with FakeServer("--fail", kind, "--fail-after", "50", "--delay", delay) as server:
        answered = []
        with pytest.raises((InputError, MachineError), match="every server"):
            for answer in teacher(server.url, pace=HASTY, max_in_flight=30).answers(good(300)):
                answered.append(answer)
    assert len(answered) == 50
    assert {answer.finish for answer in answered} == {"stop"}


def test_a_server_that_goes_bad_leaves_what_it_failed_to_the_others(server: FakeServer) -> None:
    with FakeServer("--fail", "500", "--fail-after", "10") as bad:
        requests = good(200)
        answers = list(teacher(server.url, bad.url, max_in_flight=20).answers(requests))
    assert_all_answered(requests, answers)


@pytest.mark.parametrize("kind", ["400", "500", "garbage", "null"])
def test_a_bad_prompt_is_given_up_where_no_other_is_left(server: FakeServer, kind: str) -> None:
    """The server is asked what any model can answer, so that the last run comes to its end."""
    (answer,) = teacher(server.url).answers([ask(f"fake={kind}")])
    assert answer.finish == "error"
    assert server.asked()[-1]["prompt"] == CONTROL_PROMPT


def test_many_bad_prompts_in_a_row_are_given_up_alone(server: FakeServer) -> None:
    bad = [ask(f"{i} fake=400", i) for i in range(100)]
    requests = [*good(3), *bad, *good(3)]
    answers = list(teacher(server.url, max_in_flight=30).answers(requests))
    failed = {answer.key for answer in answers if answer.finish == "error"}
    assert failed == {request.key for request in bad}
    assert len(answers) == len(set(bad)) + 2 * 3


def test_a_refusal_of_the_account_is_never_a_prompts_fault(server: FakeServer) -> None:
    requests = [ask("fake=402*2"), *good(50)]
    assert_all_answered(requests, list(teacher(server.url, max_in_flight=4).answers(requests)))
    answers = teacher(server.url, max_in_flight=4).answers([ask("fake=402"), *good(50)])
    with pytest.raises(InputError, match=r"every server refuses.*as told: 402"):
        for answer in answers:
            assert answer.finish == "stop"


def test_what_a_dead_server_had_failed_goes_to_the_others(tmp_path: Path) -> None:
    with (
        FakeServer("--delay", "0.4") as other,
        FakeServer("--fail", "400", log=tmp_path / "log") as bad,
    ):
        requests = good(6)
        answers = teacher(bad.url, other.url, max_in_flight=3).answers(requests)
        threading.Timer(0.3, bad.kill).start()
        assert_all_answered(requests, list(answers))
        assert bad.asked()


@pytest.mark.parametrize("kind", ["400", "context"])
@pytest.mark.parametrize("max_in_flight", [3, 200])
def test_what_all_requests_are_refused_for_kills_none(
    server: FakeServer, kind: str, max_in_flight: int
) -> None:
    """The control question asks for less, and is answered."""
    requests = iter([ask(f"{i} fake={kind}", i) for i in range(300)])
    asked_of = teacher(server.url, max_in_flight=max_in_flight)
    answers = first_failures.answers(asked_of, requests, lambda: True)
    with pytest.raises(InputError, match=r"of the first \d+ requests none.*400: .*max_new_tokens"):
        next(answers)
    asked = {row["prompt"] for row in server.asked()} - {CONTROL_PROMPT}
    # What is under way, and what took the places of the last failures before they were seen.
    assert MAX_FAILED <= len(asked) <= MAX_FAILED + 2 * max_in_flight


def test_a_slow_first_answer_makes_bad_prompts_before_it_dead_letters(server: FakeServer) -> None:
    bad = [ask(f"{i} fake=context", i) for i in range(100)]
    requests = [ask("fake=slow"), *bad, *good(5)]
    asked_of = teacher(server.url, max_in_flight=8)
    answers = list(first_failures.answers(asked_of, iter(requests), lambda: False))
    failed = {answer.key for answer in answers if answer.finish == "error"}
    assert failed == {request.key for request in bad}
    assert len(answers) == len(requests)


@pytest.mark.parametrize("num", [1, 20, MAX_FAILED - 1])
def test_few_bad_prompts_alone_are_given_up(server: FakeServer, num: int) -> None:
    requests = [ask(f"{i} fake=context", i) for i in range(num)]
    answers = list(teacher(server.url, max_in_flight=8).answers(requests))
    assert sorted(a.key for a in answers) == sorted(request.key for request in requests)
    assert {answer.error.partition(":")[0] for answer in answers} == {"context"}


def test_a_slow_server_with_a_long_queue_is_no_failing_one() -> None:
    with FakeServer("--serial", "--delay", "0.05") as slow:
        requests = good(90)
        answers = list(teacher(slow.url, max_in_flight=64, timeout_seconds=1.5).answers(requests))
    assert_all_answered(requests, answers)


def test_a_server_that_hangs_in_good_health_ends_the_asking() -> None:
    with FakeServer("--fail", "silent", "--fail-after", "5") as server:
        answers = teacher(server.url, timeout_seconds=1.0, max_in_flight=40).answers(good(100))
        with pytest.raises(MachineError, match=r"every server fails at every question.*no answer"):
            for answer in answers:
                assert answer.finish == "stop"
