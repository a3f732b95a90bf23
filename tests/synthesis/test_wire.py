"""What a response means: no server, bytes alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.synthesis.requests import Answer
from snowcoder_jax.synthesis.teachers import wire


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
    senseless = wire.read_response("k", 429, b"", "soon")
    assert senseless == wire.Fault("busy", "429: an empty body")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "text", "finish_reason", "usage",
                         "completion_tokens", "error", "detail", "data", "id"]), inner),
)  # fmt: skip


@given(
    st.sampled_from([200, 301, 400, 401, 404, 408, 413, 422, 429, 500, 503, 599]),
    st.binary() | _JSON.map(lambda value: json.dumps(value).encode()),
    st.none() | st.text(),
)
def test_no_response_raises(status: int, body: bytes, retry_after: str | None) -> None:
    outcome = wire.read_response("k", status, body, retry_after)
    if isinstance(outcome, Answer):
        assert outcome.key == "k"
        outcome.text.encode()
        outcome.error.encode()
        assert (outcome.finish == "error") == bool(outcome.error)
    else:
        assert outcome.retry_after is None or outcome.retry_after >= 0
    wire.model_names(body)


def test_deep_nesting_is_garbage() -> None:
    outcome = wire.read_response("k", 200, b"[" * 200_000, None)
    assert isinstance(outcome, wire.Fault) and outcome.kind == "malformed"
