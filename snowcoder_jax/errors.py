"""The one exception a user is meant to read."""

from __future__ import annotations


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
