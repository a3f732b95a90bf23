"""What a response means: no server, bytes alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.synthesis.answer_files import Entries
from snowcoder_jax.synthesis.requests import Answer, Sampling, Seed, make_request
from snowcoder_jax.synthesis.stored_row import StoredRow, decode_line, encode_line
from snowcoder_jax.synthesis.teachers import wire

REQUEST = make_request(
    Seed("a", "repo", "a.py", "Python", "x = 1\n", 0.5),
    "write a file",
    prompt_version="1",
    teacher_fingerprint="teacher",
    sampling=Sampling(50, 0.6, 0.9),
    run_seed=0,
)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens",
        "This model's maximum context length is 4096 tokens. However, your prompt contains at "
        "least 4097 input tokens, which exceeds this limit even without any output tokens.",
        "The decoder prompt (length 9000) is longer than the maximum model length of 4096.",
        "max_tokens must be at least 1, got -186.",
        "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
        "the request exceeds the available context size, try increasing it",
        "`inputs` must have less than 4096 tokens. Given: 9000",
    ],
)
def test_servers_words_for_a_prompt_that_is_too_long_are_known(message: str) -> None:
    answer = wire.read_response("k", 400, f'{{"error": {{"message": "{message}"}}}}'.encode(), None)
    assert isinstance(answer, Answer)
    assert answer.error == f"context: 400: {message}"


def test_an_account_without_money_is_no_rate_limit() -> None:
    body = b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'
    fault = wire.read_response("k", 429, body, None)
    assert fault == wire.Fault("refusal", "429: You exceeded your quota")
    # Said of a prompt that is about such errors, it is the prompt's.
    assert isinstance(wire.read_response("k", 400, body, None), Answer)


def test_a_key_is_cut_out_whole_before_a_message_is_cut() -> None:
    key = "sk-secret-secret"
    for start in range(250, 310):
        head = "x" * start + f" Authorization: Bearer {key} and so on"
        told = json.dumps({"error": {"message": head}})
        unended = json.dumps({"choices": [{"finish_reason": head}]})
        untold = json.dumps({"choices": [{"finish_reason": "stop", "text": None, "of": head}]})
        for status, body in [(401, told), (400, head), (200, head), (200, unended), (200, untold)]:
            outcome = wire.read_response("k", status, body.encode(), None, key)
            message = outcome.error if isinstance(outcome, Answer) else outcome.message
            assert "sk-" not in message and len(message) < 350


@pytest.mark.parametrize("count", [-1, 2**32, 10**400, True, 1.5, "7", None])
def test_a_count_that_no_store_can_hold_is_none(count: object) -> None:
    usage = {"completion_tokens": count, "prompt_tokens": 2**32 - 1}
    reply = {"choices": [{"text": "x", "finish_reason": "stop"}], "usage": usage}
    answer = wire.read_response("k", 200, json.dumps(reply).encode(), None)
    assert answer == Answer("k", "x", 0, "stop", num_prompt_tokens=2**32 - 1)


@pytest.mark.parametrize("reason", ["content_filter", None, "tool_calls"])
def test_an_answer_that_ended_otherwise_is_an_error(reason: str | None) -> None:
    told = "null" if reason is None else f'"{reason}"'
    body = f'{{"choices": [{{"message": {{"content": "x"}}, "finish_reason": {told}}}]}}'
    answer = wire.read_response("k", 200, body.encode(), None)
    assert isinstance(answer, Answer)
    assert (answer.finish, answer.text) == ("error", "")


def test_text_that_no_file_can_hold_is_an_error() -> None:
    body = b'{"choices": [{"text": "a\\ud800", "finish_reason": "stop"}]}'
    answer = wire.read_response("k", 200, body, None)
    assert isinstance(answer, Answer)
    assert answer.error.startswith("malformed: ")


def test_retry_after_may_be_a_date() -> None:
    past = wire.read_response("k", 429, b"", "Fri, 31 Dec 1999 23:59:59 GMT")
    assert isinstance(past, wire.Fault) and past.retry_after == 0.0
    future = wire.read_response("k", 429, b"", "Fri, 31 Dec 2999 23:59:59 GMT")
    assert isinstance(future, wire.Fault) and (future.retry_after or 0.0) > 1e9
    zone = "Fri, 31 Dec 2999 23:59:59 +99999999999999"
    for senseless in ("soon", "\u00b2", "\u0665", "-5", "", zone, zone.replace("+", "-")):
        fault = wire.read_response("k", 429, b"", senseless)
        assert fault == wire.Fault("busy", "429: an empty body"), senseless


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "text", "finish_reason", "usage",
                         "completion_tokens", "error", "detail", "data", "id"]), inner),
)  # fmt: skip


_REPLY = st.fixed_dictionaries(
    {
        "choices": st.fixed_dictionaries(
            {"text": st.text(), "finish_reason": st.sampled_from(["stop", "length", "abort", None])}
        ).map(lambda choice: [choice]),
        "usage": st.dictionaries(
            st.sampled_from(["completion_tokens", "prompt_tokens"]),
            st.integers() | st.integers(-(2**70), 2**70) | _JSON,
        ),
    }
)
_HEADER = st.text() | st.from_regex(
    r"\A\w{3}, [0-9]{1,2} (Jan|Dec) [0-9]{1,5} \d+:[0-9]{2}:[0-9]{2} [+-]?\d+\Z"
)


@given(
    st.sampled_from([200, 301, 400, 401, 404, 408, 413, 422, 429, 500, 503, 599]),
    st.binary() | (_JSON | _REPLY).map(lambda value: json.dumps(value).encode()),
    st.none() | _HEADER,
)
def test_no_response_raises_here_or_in_the_store(
    status: int, body: bytes, retry_after: str | None
) -> None:
    outcome = wire.read_response(REQUEST.key, status, body, retry_after)
    if isinstance(outcome, Answer):
        row = StoredRow(REQUEST, outcome, "teacher")
        line = encode_line(row)
        assert decode_line(line.rstrip(b"\n")) == row
        entries = Entries()
        entries.add(row, line)
        assert entries.arrays()["num_tokens"].tolist() == [outcome.num_tokens]
        outcome.text.encode()
        outcome.error.encode()
        assert (outcome.finish == "error") == bool(outcome.error)
    else:
        assert outcome.retry_after is None or outcome.retry_after >= 0
    wire.model_names(body)


def test_deep_nesting_is_garbage() -> None:
    outcome = wire.read_response("k", 200, b"[" * 200_000, None)
    assert isinstance(outcome, wire.Fault) and outcome.kind == "malformed"
