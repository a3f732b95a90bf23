"""The teacher behind servers, against a real server process that misbehaves as it is told."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer, answer_text
from server_teacher import PACE, SAMPLING, ask, assert_all_answered, good, teacher, text_of

from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.recipe_synthesis import ServerTeacher
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.teachers import endpoint
from snowcoder_jax.synthesis.teachers.jobs import MAX_TIMEOUTS, MAX_TRIES
from snowcoder_jax.synthesis.teachers.wire import Fault


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(log=tmp_path / "log") as running:
        yield running


@pytest.fixture
def other(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(log=tmp_path / "other") as running:
        yield running


def test_a_chat_server_gets_the_prompt_and_the_draw_and_its_answer_comes_whole(
    server: FakeServer,
) -> None:
    request = ask("write a file")
    (answer,) = teacher(server.url + "/v1/").answers([request])
    assert answer == Answer(request.key, text_of(request), 12, "stop", num_prompt_tokens=3)
    (asked,) = server.asked()
    assert asked["path"] == "/v1/chat/completions"
    assert (asked["prompt"], asked["seed"]) == (request.prompt, request.random_seed)


def test_a_base_model_is_asked_to_go_on(server: FakeServer) -> None:
    request = ask("import os\n")
    (answer,) = teacher(server.url, mode="completion").answers([request])
    assert answer.text == answer_text(request.prompt, request.random_seed, chat=False)
    assert server.asked()[0]["path"] == "/v1/completions"


def test_an_endless_answer_is_one_that_was_cut_off(server: FakeServer) -> None:
    (answer,) = teacher(server.url).answers([ask("fake=endless")])
    assert (answer.finish, answer.num_tokens) == ("length", SAMPLING.max_new_tokens)


FINAL = {
    "400": ("refused", 1),
    "403": ("refused", 1),
    "404": ("refused", 1),
    "422": ("refused", 1),
    "context": ("context", 1),
    "null": ("malformed", 1),
    "500": ("server_error", MAX_TRIES),
    "nothing": ("connection", MAX_TRIES),
    "half": ("connection", MAX_TRIES),
    "noise": ("connection", MAX_TRIES),
    "garbage": ("malformed", MAX_TRIES),
    "shapeless": ("malformed", MAX_TRIES),
    "flood": ("malformed", MAX_TRIES),
    "silent": ("timeout", MAX_TIMEOUTS),
}


def test_bad_prompts_become_errors_with_a_word_and_never_fail_the_others(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "MAX_BODY_BYTES", 1 << 16)
    bad = {ask(f"fake={kind}").key: kind for kind in FINAL}
    requests = [ask(f"fake={kind}") for kind in FINAL] + good(40)

    def slowly() -> Iterator[Request]:  # so that others are answered all the time
        for request in requests:
            yield request
            time.sleep(0.05)

    answers = list(teacher(server.url, timeout_seconds=1.5, max_in_flight=20).answers(slowly()))
    assert_all_answered(requests[len(bad) :], [a for a in answers if a.key not in bad])
    failed = {bad[a.key]: a for a in answers if a.key in bad}
    assert set(failed) == set(FINAL)
    asked = [row["prompt"] for row in server.asked()]
    for kind, (word, num_asked) in FINAL.items():
        answer = failed[kind]
        assert answer.finish == "error", kind
        assert answer.error.startswith(f"{word}: "), (kind, answer.error)
        assert num_asked == asked.count(f"fake={kind}"), kind
        assert answer.num_retries == asked.count(f"fake={kind}") - 1


def test_what_passes_is_asked_again_until_it_is_answered(server: FakeServer) -> None:
    kinds = ["408", "409", "500", "502", "503", "half", "garbage", "nothing"]
    requests = [ask(f"fake={kind}*2") for kind in kinds] + good(5)
    answers = list(teacher(server.url).answers(requests))
    assert_all_answered(requests, answers)
    retries = {answer.key: answer.num_retries for answer in answers}
    assert [retries[r.key] for r in requests] == [2] * len(kinds) + [0] * 5


def test_a_server_without_word_of_its_health_may_fail_everybody_for_a_while() -> None:
    requests = [ask(f"{i} fake=500*{2 * MAX_TRIES}", i) for i in range(3)]
    with FakeServer("--no-health") as server:
        assert_all_answered(requests, list(teacher(server.url).answers(requests)))


def test_retry_after_is_waited_for(server: FakeServer) -> None:
    requests = [ask("fake=429*1")]
    assert_all_answered(requests, list(teacher(server.url).answers(requests)))
    first, second = (row["time"] for row in server.asked())
    assert second - first >= 1.0


def test_a_busy_server_gets_less_at_once(tmp_path: Path) -> None:
    arguments = ("--max-in-flight", "4", "--delay", "0.02")
    with FakeServer(*arguments, log=tmp_path / "log") as server:
        requests = good(200)
        answers = list(teacher(server.url, max_in_flight=64).answers(requests))
        num_asked = len(server.asked())
    assert_all_answered(requests, answers)
    # 60 are refused before the first 429 is seen. Were all room filled again each time, there would
    # be 15 refusals for one answer.
    assert num_asked < 200 + 200


def test_a_busy_server_that_answers_kills_no_request() -> None:
    with FakeServer("--max-in-flight", "1", "--delay", "0.15") as server:
        requests = good(40)
        answers = list(teacher(server.url, max_in_flight=40, timeout_seconds=2.0).answers(requests))
    assert_all_answered(requests, answers)


def test_a_busy_server_that_has_answered_a_control_question_only_is_waited_for(
    server: FakeServer,
) -> None:
    requests = [ask(f"{i} fake=400", i) for i in range(20)] + [ask("fake=429*1", 99)]
    answers = list(teacher(server.url, timeout_seconds=20.0).answers(requests))
    finished = [answer.key for answer in answers if answer.finish != "error"]
    assert finished == [requests[-1].key] and len(answers) == len(requests)


def test_a_pause_that_is_asked_for_may_be_longer_than_the_time_of_an_answer(
    server: FakeServer,
) -> None:
    requests = [ask("fake=429*2")]
    assert_all_answered(requests, list(teacher(server.url, timeout_seconds=0.8).answers(requests)))


def test_servers_share_the_work_within_the_bound_of_each(
    server: FakeServer, other: FakeServer
) -> None:
    requests = [ask(f"{i} fake=slow", i) for i in range(24)]
    answers = list(teacher(server.url, other.url, max_in_flight=6).answers(requests))
    assert_all_answered(requests, answers)
    for running in (server, other):
        asked = running.asked()
        assert len(asked) == 12
        assert max(row["in_flight"] for row in asked) == 6


def test_requests_are_taken_only_as_there_is_room(server: FakeServer) -> None:
    taken = 0

    def count() -> Iterator[Request]:
        nonlocal taken
        for request in good(60):
            taken += 1
            yield request

    answers = teacher(server.url, max_in_flight=7).answers(count())
    for num_answered, _ in enumerate(answers, 1):
        assert taken <= num_answered + 2 * 7  # under way, and answered but not yielded yet
    assert taken == 60


def test_a_killed_server_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    with FakeServer("--delay", "0.05", log=tmp_path / "log") as server:
        requests = good(120)
        answers = []
        for answer in teacher(server.url, max_in_flight=8).answers(requests):
            answers.append(answer)
            if len(answers) == 40:
                server.kill()
                threading.Timer(1.0, server.start).start()
        assert len({row["pid"] for row in server.asked()}) == 2
        asked = [row["prompt"] for row in server.asked()]
    assert_all_answered(requests, answers)
    # Only what was under way when it died was asked twice.
    assert len(asked) - len(set(asked)) <= 8


def test_what_a_dead_server_had_goes_to_the_other(tmp_path: Path, other: FakeServer) -> None:
    with FakeServer("--delay", "0.05") as server:
        requests = good(100)
        answers = []
        for answer in teacher(server.url, other.url, max_in_flight=8).answers(requests):
            answers.append(answer)
            if len(answers) == 20:
                server.kill()
    assert_all_answered(requests, answers)


def test_what_a_hanging_server_had_goes_to_the_other(tmp_path: Path, other: FakeServer) -> None:
    with FakeServer("--delay", "0.05") as server:
        requests = good(60)
        answers = []
        start = time.monotonic()
        pace = dataclasses.replace(PACE, check_timeout=0.5)
        asked = teacher(server.url, other.url, pace=pace, max_in_flight=4, timeout_seconds=60.0)
        for answer in asked.answers(requests):
            answers.append(answer)
            if len(answers) == 20:
                os.kill(server.pid, signal.SIGSTOP)
        assert_all_answered(requests, answers)
        assert time.monotonic() - start < 30  # long before the requests' own time is over


def test_what_is_sent_while_a_server_is_hung_up_on_is_answered(server: FakeServer) -> None:
    async def ask_meanwhile() -> list[object]:
        settings = ServerTeacher("fake", (server.url,), timeout_seconds=20.0)
        one = endpoint.Endpoint(server.url, settings, "", PACE)
        hanging = asyncio.create_task(one.ask(ask("fake=silent")))
        one.in_flight = 1
        await asyncio.sleep(0.3)
        closing = asyncio.create_task(one.hang_up())
        await asyncio.sleep(0)
        asked = await asyncio.gather(closing, one.ask(ask("late")), hanging, return_exceptions=True)
        await one.close()
        return asked[1:]

    late, hanging = asyncio.run(ask_meanwhile())
    assert isinstance(late, Answer) and late.finish == "stop"
    assert isinstance(hanging, Fault) and hanging.kind == "connection"


def test_servers_that_start_late_are_waited_for(tmp_path: Path) -> None:
    with FakeServer() as server:
        server.kill()
        threading.Timer(0.5, server.start).start()
        requests = good(3)
        assert_all_answered(requests, list(teacher(server.url).answers(requests)))


def test_nothing_reachable_is_told_after_the_time(server: FakeServer) -> None:
    server.kill()
    with pytest.raises(MachineError, match=r"no server could be reached for 0\.5 seconds.*start"):
        list(teacher(server.url, timeout_seconds=0.5).answers(good(3)))


def test_servers_that_only_say_they_are_busy_end_the_run_and_give_no_errors(
    server: FakeServer,
) -> None:
    answers = teacher(server.url, timeout_seconds=2.0).answers([ask("fake=429")])
    with pytest.raises(MachineError, match="nothing but '429: Slow down'"):
        list(answers)


def test_a_wrong_key_is_told_at_once_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_KEY", "sk-secret")
    with FakeServer("--api-key", "sk-secret", log=tmp_path / "log") as server:
        requests = good(100)
        asked = teacher(server.url, api_key_variable="FAKE_KEY", max_in_flight=8)
        assert_all_answered(requests, list(asked.answers(requests)))
        answers = asked.answers(requests)
        next(answers)
        server.kill()
        server.arguments[1] = "another"
        server.start()
        with pytest.raises(InputError, match=r"every server refuses.*api_key_variable") as told:
            for answer in answers:
                assert answer.finish == "stop"
        assert "sk-secret" not in str(told.value)


def test_a_key_that_a_response_quotes_is_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", "told")  # a word of the server's message
    with FakeServer("--api-key", "told") as server:
        asked = teacher(server.url, api_key_variable="FAKE_KEY")
        errors = [a.error for a in asked.answers([ask("fake=400"), ask("write")])]
        assert sorted(errors) == ["", "refused: 400: as [key]: 400"]
        (broken,) = asked.answers([ask("fake=echo")])  # the HTTP client quotes it
    assert "Bearer [key]" in broken.error and "told" not in broken.error


def test_a_key_that_is_not_set_is_told_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKE_KEY", raising=False)
    with pytest.raises(InputError, match=r"api_key_variable.*FAKE_KEY"):
        teacher("http://127.0.0.1:1", api_key_variable="FAKE_KEY")


@pytest.mark.parametrize("key", ["sk-a\nsk-b", "sk a", "ключ", "sk-\x00"])
def test_a_key_that_no_header_can_hold_is_told_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(os, "environ", {"FAKE_KEY": key})
    with pytest.raises(InputError, match=r"api_key_variable.*FAKE_KEY.*no key") as told:
        teacher("http://127.0.0.1:1", api_key_variable="FAKE_KEY")
    assert key not in str(told.value)


def test_a_model_that_the_servers_do_not_have_is_told(
    server: FakeServer, other: FakeServer
) -> None:
    asked = teacher(server.url, other.url, model="llama")
    with pytest.raises(InputError, match="it has fake, not llama") as told:
        list(asked.answers(good(100)))
    assert server.url in str(told.value) and other.url in str(told.value)


def test_one_server_that_refuses_leaves_the_work_to_the_others(
    monkeypatch: pytest.MonkeyPatch, server: FakeServer
) -> None:
    with FakeServer("--model", "llama") as wrong:
        requests = good(100)
        answers = list(teacher(server.url, wrong.url).answers(requests))
    assert_all_answered(requests, answers)


def test_all_addresses_that_are_none_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKE_KEY", raising=False)
    wrong = ("localhost:8000", "ftp://host", "http://host:port", "http://", "http://a..b:80")
    with pytest.raises(InputError) as told:
        teacher(*wrong, "https://api.host/v1", api_key_variable="FAKE_KEY")
    lines = str(told.value).splitlines()
    assert [line.split("'")[1] for line in lines[:-1]] == list(wrong)
    assert "api_key_variable" in lines[-1]


def test_without_requests_no_server_is_needed() -> None:
    assert list(teacher("http://127.0.0.1:1").answers([])) == []


def test_closing_ends_what_is_under_way(server: FakeServer) -> None:
    answers = teacher(server.url, max_in_flight=4).answers(
        ask(f"{i} fake=slow", i) for i in range(1000)
    )
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert all(thread.name != "dispatcher" for thread in threading.enumerate())
    time.sleep(1.2)
    assert len(server.asked()) <= 8  # those of the first moment, and one more for each of them


def test_a_fault_of_the_requests_own_source_reaches_the_caller(server: FakeServer) -> None:
    def broken() -> Iterator[Request]:
        yield from good(30)
        raise OSError("the seeds are gone")

    with pytest.raises(OSError, match="the seeds are gone"):
        list(teacher(server.url, max_in_flight=4).answers(broken()))
    assert all(thread.name != "dispatcher" for thread in threading.enumerate())
