"""What ends the asking before all is answered, and what is said then."""

from __future__ import annotations

from collections.abc import Sequence

from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.synthesis.teachers.endpoint import Endpoint


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
