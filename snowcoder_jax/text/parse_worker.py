"""Parsing in a process of its own, so that no text can take its reader's process down.

Recovery from errors in a text that is no code can take a parser gigabytes and minutes without a
word in between, where no bound inside the process helps. The child has limits of memory and of
processor seconds a text; a text that breaks one has no counts, and the next gets a new child.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO

from snowcoder_jax.errors import MachineError
from snowcoder_jax.text import parsing
from snowcoder_jax.text.parsing import Counts

# Far above what code needs: a tree of 1 MB takes 60 MB and, on a slow core, a second.
MEMORY_BYTES = 2 << 30
SECONDS = 20

_READY = b"ready\n"


def count_trees(
    texts: Sequence[bytes], languages: Sequence[str], paths: Sequence[str]
) -> list[Counts | None]:
    """The counts of the trees of texts (UTF-8), None where a bound stood in the way.

    Raises:
      MachineError: the child does not start.
    """
    return [_HERE.child().count(*x) for x in zip(texts, languages, paths, strict=True)]


class _Child:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "snowcoder_jax.text.parse_worker"],
            # It finds this package where this process found it, installed or not.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a library's last words; that it died is seen
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != _READY:
            self.close()
            raise MachineError(
                "The process that parses texts does not start. Try it: "
                "python -m snowcoder_jax.text.parse_worker"
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def count(self, text: bytes, language: str, path: str) -> Counts | None:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None and answers is not None
        header = {"language": language, "path": path, "size": len(text)}
        try:
            requests.write(json.dumps(header).encode() + b"\n")
            requests.write(text)
            requests.flush()
            answer = answers.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            self.close()
            return None
        counts = json.loads(answer)
        return Counts(**counts) if counts is not None else None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Here(threading.local):
    """This thread's child, started when it is first needed and again after it died."""

    _child: _Child | None = None

    def child(self) -> _Child:
        if self._child is None or not self._child.is_alive():
            self._child = _Child()
        return self._child

    def __del__(self) -> None:
        if self._child is not None:
            self._child.close()


_HERE = _Here()


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more; the end of the input ends the child."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    answers.write(_READY)
    answers.flush()
    while line := requests.readline():
        header = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + SECONDS
        if most != resource.RLIM_INFINITY:
            seconds = min(seconds, most)  # the machine's own limit; a new child comes after it
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, most))
        text = requests.read(header["size"])
        tree = parsing.parse(text, header["language"], header["path"])
        counts = None
        if tree is not None:
            found = parsing.count(tree, header["language"], header["path"])
            counts = dataclasses.asdict(found)
        answers.write(json.dumps(counts).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
