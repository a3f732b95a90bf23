"""What ends the asking before all is answered, and what is said then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.synthesis.requests import Answer

if TYPE_CHECKING:  # vLLM's engine needs no HTTP
    from snowcoder_jax.synthesis.teachers.endpoint import Endpoint

# A limit below `max_new_tokens`, or a context too small for any prompt, fails every request. So
# many bad prompts in a row, without one answer, are less likely than a bad setting.
MAX_FAILED = 64
_OF_THE_REQUEST = ("refused", "context", "malformed")


def nothing_answered(failed: Sequence[Answer]) -> InputError | MachineError:
    """The first requests of a run failed, all of them."""
    told = (
        f"of the first {len(failed)} requests none was answered ({failed[-1].error}). No dead "
        "letters were made of them: the same command asks them again."
    )
    if not failed[-1].error.startswith(_OF_THE_REQUEST):
        return MachineError(f"synthesis.teacher: {told} Mend or restart the teacher.")
    return InputError(
        f"synthesis.teacher: {told} Lower synthesis.max_new_tokens or max_seed_bytes, raise the "
        "teacher's own limits (max_model_len), or mend what it says."
    )


def all_are_busy(url: str, message: str, seconds: float) -> MachineError:
    """Nobody was answered for so long."""
    return MachineError(
        f"{url} has answered nothing but {message!r} for {seconds:g} seconds. Answers so far are "
        "kept: start the same command again, with a smaller max_in_flight if that goes on."
    )


def none_is_left(servers: Sequence[Endpoint]) -> InputError | MachineError | None:
    """Every server refuses or fails everybody; None: one does not."""
    if all(server.state == "refusing" for server in servers):
        return InputError(
            f"synthesis.teacher: every server refuses ({_told(servers)}). Mend `model`, `urls`, "
            "`mode`, the key in the environment variable that `api_key_variable` names, its "
            "account, or the servers' own settings. Answers so far are kept, and what was refused "
            "is asked again by the same command."
        )
    if all(server.is_dropped for server in servers):
        return MachineError(
            f"synthesis.teacher.urls: every server fails at every question ({_told(servers)}). "
            "Answers so far are kept: mend or restart the servers, then start the same command "
            "again."
        )
    return None


def none_is_reachable(servers: Sequence[Endpoint], seconds: float) -> MachineError:
    """No server was up for so long."""
    return MachineError(
        f"synthesis.teacher.urls: no server could be reached for {seconds:g} seconds "
        f"({_told(servers)}). Answers so far are kept: start the servers and the same command "
        "again."
    )


def _told(servers: Sequence[Endpoint]) -> str:
    return "; ".join(f"{server.url}: {server.why}" for server in servers)
