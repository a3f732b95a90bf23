"""What the synthesis part of a recipe must satisfy beyond its types, by itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from snowcoder_jax.recipe_synthesis import Mode, ServerTeacher, Synthesis, VllmTeacher
from snowcoder_jax.strict import Fault

_AT = "synthesis.teacher"
# Bytes a token of dense code, and the tokens of the templates that the project ships: of a prompt
# that has to fit.
_BYTES_PER_TOKEN = 3
_TEMPLATE_TOKENS = 800
_KEY = re.compile(r"[!-~]+")  # what a header may hold
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_numbers(synthesis: Synthesis) -> Iterator[Fault]:
    """Faults of the numbers that all teachers share."""
    positive = {
        "num_seeds": synthesis.num_seeds,
        "max_seed_bytes": synthesis.max_seed_bytes,
        "head_tokens": synthesis.head_tokens,
        "min_new_tokens": synthesis.min_new_tokens,
        "max_new_tokens": synthesis.max_new_tokens,
        "top_p": synthesis.top_p,
        "max_similarity": synthesis.max_similarity,
    }
    for where, value in positive.items():
        if value is not None and not value > 0:
            yield Fault(f"synthesis.{where}", f"{value} is not above 0", "Raise it.")
    for where, share in (("top_p", synthesis.top_p), ("max_similarity", synthesis.max_similarity)):
        if share > 1:
            yield Fault(f"synthesis.{where}", f"{share} is above 1", "Give a share up to 1.")
    if not 0 <= synthesis.temperature < float("inf"):
        problem = f"{synthesis.temperature} is no temperature"
        yield Fault("synthesis.temperature", problem, "Give 0 (greedy) or more.")
    if 0 < synthesis.max_new_tokens < synthesis.min_new_tokens:
        problem = f"{synthesis.min_new_tokens} is above max_new_tokens {synthesis.max_new_tokens}"
        yield Fault("synthesis.min_new_tokens", problem, "No answer could be accepted: lower it.")


def check_teacher(synthesis: Synthesis) -> Iterator[Fault]:
    """Faults of a teacher that is no checkpoint of the run."""
    teacher = synthesis.teacher
    if isinstance(teacher, VllmTeacher):
        yield from _vllm(teacher, synthesis)
    elif isinstance(teacher, ServerTeacher):
        yield from _servers(teacher)


def _vllm(teacher: VllmTeacher, synthesis: Synthesis) -> Iterator[Fault]:
    yield from _positive("tensor_parallel", teacher.tensor_parallel)
    yield from _positive("max_in_flight", teacher.max_in_flight)
    if not 0 < teacher.gpu_memory_share <= 1:
        problem = f"{teacher.gpu_memory_share} is not between 0 and 1"
        yield Fault(f"{_AT}.gpu_memory_share", problem, "Give a share such as 0.9.")
    if teacher.max_model_len is not None:
        yield from _context(teacher.max_model_len, teacher.mode, synthesis)
    yield from _price("dollars_per_hour", teacher.dollars_per_hour)


def _context(max_model_len: int, mode: Mode, synthesis: Synthesis) -> Iterator[Fault]:
    """Prompts that do not fit beside the answer would be dead letters."""
    at, max_new_tokens = f"{_AT}.max_model_len", synthesis.max_new_tokens
    if max_model_len <= max_new_tokens:
        yield Fault(
            at,
            f"{max_model_len} leaves no room for a prompt beside synthesis.max_new_tokens "
            f"{max_new_tokens}",
            "Raise it, or leave it out for the model's own.",
        )
    elif mode == "instruct":
        beside = _TEMPLATE_TOKENS + max_new_tokens
        wanted = math.ceil(synthesis.max_seed_bytes / _BYTES_PER_TOKEN) + beside
        room = (max_model_len - beside) * _BYTES_PER_TOKEN
        if wanted > max_model_len:
            lower = f", lower synthesis.max_seed_bytes to {room}," if room > 0 else ""
            yield Fault(
                at,
                f"{max_model_len} is too little for a dense seed of synthesis.max_seed_bytes "
                f"{synthesis.max_seed_bytes}, its prompt and synthesis.max_new_tokens "
                f"{max_new_tokens}: many prompts would be dead letters",
                f"Raise it to {wanted}{lower} or lower max_new_tokens.",
            )


def _servers(teacher: ServerTeacher) -> Iterator[Fault]:
    if not teacher.urls:
        yield Fault(f"{_AT}.urls", "is empty", "Name at least one server.")
    for number, url in enumerate(teacher.urls):
        at = f"{_AT}.urls[{number}]"
        if _may_hold_a_key(url):
            # It would be written into the recipe of the run, so it is not repeated here either.
            mend = "Put the key into the environment, and name its variable in api_key_variable."
            yield Fault(at, "holds a password, a query or a fragment", mend)
        elif not is_address(url):
            mend = "Write it like http://gpu-1:8000, without /v1."
            yield Fault(at, f"`{url}` is no address of a server", mend)
        elif url in teacher.urls[:number]:
            yield Fault(at, f"`{url}` stands there twice", "Name each server once.")
    yield from _positive("max_in_flight", teacher.max_in_flight)
    yield from _positive("timeout_seconds", teacher.timeout_seconds)
    variable = teacher.api_key_variable
    if variable is not None and not _VARIABLE.fullmatch(variable):
        # It may be the key itself, so it is not repeated.
        problem = "is no name of an environment variable"
        mend = "Name the variable that holds the key, such as TEACHER_API_KEY."
        yield Fault(f"{_AT}.api_key_variable", problem, mend)
    for name in ("dollars_per_million_prompt_tokens", "dollars_per_million_new_tokens"):
        yield from _price(name, getattr(teacher, name))


def _may_hold_a_key(url: str) -> bool:
    return any(mark in url for mark in "@?#")


def is_address(url: str) -> bool:
    """Whether a server may be there: http or https, a host that has a name, a port that is one."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if parts.scheme not in ("http", "https") or not host or port == 0:
            return False
        host.encode("idna")  # as sockets do: of an empty or too long label nobody can be asked
    except ValueError:  # brackets that nothing closes, a port that is none; UnicodeError, too
        return False
    return not any(char.isspace() for char in host)


def is_key(key: str) -> bool:
    """Whether it can be sent as a key: no line breaks, spaces, characters beyond ASCII."""
    return _KEY.fullmatch(key) is not None


def _positive(name: str, value: float) -> Iterator[Fault]:
    if not value > 0:
        yield Fault(f"{_AT}.{name}", f"{value} is not above 0", "Give a positive number.")


def _price(name: str, value: float | None) -> Iterator[Fault]:
    if value is not None and not 0 <= value < float("inf"):
        yield Fault(f"{_AT}.{name}", f"{value} is no price", "Give dollars, or leave it out.")
