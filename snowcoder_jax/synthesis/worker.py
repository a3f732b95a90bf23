"""A worker: asks its share of an ask's requests, in an environment without JAX and Beam.

    python -m snowcoder_jax.synthesis.worker ASK_FOLDER --worker K --num-workers N

Worker K of N takes the requests whose keys are K modulo N. Any may die and be started again; no
worker waits for another. Exit codes are those of `snowcoder`: 0 all of the share is answered; 75
stopped, start me again; 2 a fault of the input; 1 a fault of the machine.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from snowcoder_jax.errors import (
    EXIT_DONE,
    EXIT_INPUT,
    EXIT_MACHINE,
    EXIT_SAVED,
    InputError,
    plain_error,
)
from snowcoder_jax.progress import Progress
from snowcoder_jax.synthesis import runner
from snowcoder_jax.synthesis.ask import load_ask
from snowcoder_jax.synthesis.teachers.make import make_teacher

_STOPS = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Do a worker's share; returns the exit code."""
    for number in _STOPS:
        signal.signal(number, _interrupt)
    args = _parser().parse_args(argv)
    if args.watch_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        _work(args)
        return EXIT_DONE
    except KeyboardInterrupt:
        code, message = EXIT_SAVED, "stopped; start the same command again to go on"
    except Exception as e:
        error = plain_error(e)
        if error is None:
            raise
        code, message = EXIT_INPUT if isinstance(error, InputError) else EXIT_MACHINE, str(error)
    print(f"worker {args.worker}: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m snowcoder_jax.synthesis.worker",
        description="Ask one worker's share of a synthesis.",
    )
    parser.add_argument("ask", metavar="ASK_FOLDER", help="the folder of ask.json")
    parser.add_argument("--worker", type=int, default=0, metavar="K", help="from 0 to N - 1")
    parser.add_argument("--num-workers", type=int, default=1, metavar="N")
    parser.add_argument("--limit", type=int, metavar="N", help="only of the first N seeds drawn")
    parser.add_argument(
        "--watch-stdin", action="store_true", help="stop where standard input is closed"
    )
    return parser


def _work(args: argparse.Namespace) -> None:
    if not 0 <= args.worker < args.num_workers:
        raise InputError(
            f"--worker {args.worker}: is not from 0 to {args.num_workers - 1}, of --num-workers "
            f"{args.num_workers}. Number the workers from 0."
        )
    ask = load_ask(args.ask)
    teacher = make_teacher(ask)
    with Progress(f"worker {args.worker} of {args.num_workers}") as progress:
        facts = runner.ask_all(
            ask,
            teacher,
            limit=args.limit,
            worker=args.worker,
            num_workers=args.num_workers,
            on_progress=progress.update,
        )
    print(f"worker {args.worker}: {runner.told(ask, facts)}", file=sys.stderr)


def _end_with_stdin() -> None:
    """The process that started this one is gone when the pipe from it is closed."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Stop, once: Ctrl-C comes from the terminal and again, as SIGTERM, from the parent."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
