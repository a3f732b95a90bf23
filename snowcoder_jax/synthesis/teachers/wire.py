"""What goes over the wire to an OpenAI-compatible server, and what its answers mean.

Pure functions: a request's body as bytes; of a response its answer, or the fault and whether
asking again may help.
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import json
import re
from typing import Any, Literal

from snowcoder_jax.recipe_synthesis import Mode
from snowcoder_jax.synthesis.requests import Answer, Finish, Request

# busy: the server has too much to do. refusal: of the key or the account, never a prompt's fault.
# The others may pass, or be the prompt's fault: they are tried a few times.
FaultKind = Literal["busy", "refusal", "server_error", "connection", "malformed", "timeout"]

_REFUSALS = frozenset((401, 402))
_BUSY = frozenset((429, 503, 529))
_MAY_PASS = frozenset((408, 409, 425))
_SHOWN_CHARS = 300
_MAX_COUNT = 2**32 - 1  # of tokens, that a store can hold

# What servers say of a prompt that does not fit: OpenAI, vLLM, SGLang, llama.cpp, TGI.
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|maximum (?:model|input|sequence) length|max_model_len"
    r"|max_tokens must be at least 1|must have less than \d+ tokens|(?:prompt|input) is too long",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Why a response is no answer; `retry_after` in seconds, where the server said so."""

    kind: FaultKind
    message: str
    retry_after: float | None = None


def path(mode: Mode) -> str:
    return "/v1/chat/completions" if mode == "instruct" else "/v1/completions"


def request_body(request: Request, model: str, mode: Mode) -> bytes:
    sampling = request.sampling
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.random_seed,
    }
    if mode == "instruct":
        asked["messages"] = [{"role": "user", "content": request.prompt}]
    else:
        asked["prompt"] = request.prompt
    return json.dumps(asked).encode()


def read_response(
    key: str, status: int, body: bytes, retry_after: str | None, api_key: str = ""
) -> Answer | Fault:
    """The answer to the request `key` that a response holds; a fault where asking again may help.

    Args:
      retry_after: the header of that name, seconds or a date.
      api_key: to be cut out of what errors quote.
    """
    if status == 200:
        return _read_answer(key, body, api_key)
    message = f"{status}: {shown(_error_message(body), api_key)}"
    if status in _REFUSALS or (status == 429 and b"insufficient_quota" in body):
        return Fault("refusal", message)
    if status in _BUSY:
        return Fault("busy", message, _seconds(retry_after))
    if status in _MAY_PASS or status >= 500:
        return Fault("server_error", message, _seconds(retry_after))
    word = "context" if _TOO_LONG.search(message) else "refused"
    return failed(key, word, message)


def failed(key: str, word: str, message: str) -> Answer:
    """The answer that says there is none and will be none."""
    return Answer(key, "", 0, "error", f"{word}: {message}")


def model_names(body: bytes) -> list[str]:
    """Of a response of `/v1/models`; none where it is something else."""
    try:
        listed = json.loads(body)
    except (ValueError, RecursionError):
        return []
    models = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(models, list):
        return []
    return [str(model["id"]) for model in models if isinstance(model, dict) and "id" in model]


def shown(text: str, api_key: str) -> str:
    """As an error quotes it: a short line without the key, which servers may quote."""
    if api_key:  # before it is cut: part of a key is a leak too
        text = text.replace(api_key, "[key]")
    line = " ".join(text.split())[:_SHOWN_CHARS]
    return line.encode("utf-8", "replace").decode() or "an empty body"


def _read_answer(key: str, body: bytes, api_key: str) -> Answer | Fault:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):  # half a document, no UTF-8, a proxy's page
        return Fault("malformed", f"no JSON: {shown(_text(body), api_key)}")
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return Fault("malformed", f"no choices: {shown(_text(body), api_key)}")
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    reason = choice.get("finish_reason")
    if reason == "abort":
        return Fault("server_error", "the server gave the request up")
    if reason not in ("stop", "length"):
        return failed(key, "refused", shown(f"finish_reason {reason!r}", api_key))
    if not isinstance(text, str):
        # It was written and paid for: nothing says that asking again would give a text.
        return failed(key, "malformed", f"no text: {shown(_text(body), api_key)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        return failed(key, "malformed", "the text has half a surrogate pair")
    finish: Finish = reason
    usage = reply.get("usage")
    return Answer(
        key,
        text,
        _count(usage, "completion_tokens"),
        finish,
        num_prompt_tokens=_count(usage, "prompt_tokens"),
    )


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 <= value <= _MAX_COUNT else 0


def _error_message(body: bytes) -> str:
    """The server's own words: {"error": {"message"}}, {"message"}, {"detail"}, or as it is."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return _text(body)
    if isinstance(told, dict) and isinstance(told.get("error"), dict):
        told = told["error"]
    if isinstance(told, dict):
        for name in ("message", "detail", "error"):
            if isinstance(words := told.get(name), str):
                return words
    return _text(body)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _seconds(retry_after: str | None) -> float | None:
    """Of a `Retry-After` header: seconds, or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\s*[0-9]+\s*", retry_after):
        return float(retry_after)
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
        if date.tzinfo is None:  # "-0000": UTC, of an unknown zone
            date = date.replace(tzinfo=datetime.UTC)
        return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (ValueError, OverflowError):  # no date; a zone of years
        return None
