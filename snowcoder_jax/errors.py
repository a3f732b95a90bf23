"""The one exception a user is meant to read."""

from __future__ import annotations

import re


class InputError(ValueError):
    """A fault of what the user gave: a recipe, a file, a folder, a flag.

    Its text names the field or file and the mend. The command line prints it without a
    traceback and exits with code 2 (0: all done; 75: saved, start again; 1: the machine).
    """


class MachineError(RuntimeError):
    """A fault of the machine: a full disk, a dead worker. The command exits with code 1."""


EXIT_DONE = 0
EXIT_MACHINE = 1
EXIT_INPUT = 2
EXIT_SAVED = 75

# Beam adds where it was to the message, and a worker process sends the whole traceback as text.
_RAISED = re.compile(
    r"(?:^|[\s.])(InputError|MachineError): (.+?)(?: \[while running|\n|$)", re.DOTALL
)
_WHERE = re.compile(r" \[while running .*", re.DOTALL)
_INTERRUPTED = re.compile(r"^KeyboardInterrupt\b", re.MULTILINE)


def is_interrupt(error: BaseException) -> bool:
    """Whether somebody stopped the program: a KeyboardInterrupt, or what Beam makes of one that
    is raised inside a stage, a RuntimeError of its name."""
    return isinstance(error, KeyboardInterrupt) or bool(_INTERRUPTED.search(str(error)))


def plain_error(error: BaseException) -> InputError | MachineError | None:
    """The error a user should read behind `error`, without the dress that libraries put on it.

    None where it is a fault of the program itself, whose traceback must be seen.
    """
    if isinstance(error, (InputError, MachineError)):
        return type(error)(_WHERE.sub("", str(error)))
    found = _RAISED.findall(str(error))
    if found:
        kind, message = found[-1]
        return InputError(message) if kind == "InputError" else MachineError(message)
    # Orbax, Arrow and ArrayRecord report a full disk each in a type of its own.
    if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
        return MachineError(
            "the disk is full. Free some space and start the same command again; what was "
            f"finished is kept. ({str(error).splitlines()[0][:200]})"
        )
    return None
