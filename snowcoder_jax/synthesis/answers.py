"""Answers on disk: appended as they come, each line vouched for by its own checksum.

A line is a JSON object whose last member, `xxh3`, is the hash of what comes before it. A kill
leaves at most a torn last line, which its checksum gives away; a restart asks again only for
what has no whole line.
"""

from __future__ import annotations

import dataclasses
import json
import os

import xxhash

from snowcoder_jax import storage
from snowcoder_jax.errors import MachineError
from snowcoder_jax.synthesis.teachers import Answer

# An object store cannot append: there, this many answers make one file, and a kill costs fewer.
REMOTE_BATCH = 64

_CHECKSUM_CHARACTERS = len(', "xxh3": "0123456789abcdef"}')


def encode_line(answer: Answer) -> bytes:
    body = json.dumps(dataclasses.asdict(answer), sort_keys=True)[:-1].encode()
    return body + _checksum(body) + b"\n"


def decode_line(line: bytes) -> Answer | None:
    """The answer of a line without its line break, or None where the line is not whole."""
    body, checksum = line[:-_CHECKSUM_CHARACTERS], line[-_CHECKSUM_CHARACTERS:]
    if not body or checksum != _checksum(body):
        return None
    return Answer(**json.loads(body + b"}"))


def _checksum(body: bytes) -> bytes:
    return b', "xxh3": "%s"}' % xxhash.xxh3_64_hexdigest(body).encode()


class AnswerLog:
    """The stored answers of one synthesis, by key; `append` stores one more at once.

    Attributes:
      answers: those of former runs included.
      num_torn_lines: lines that were not whole; they count as never written.

    Raises:
      InputError, MachineError: the folder cannot be written; the disk is full.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pending: list[bytes] = []
        self.answers: dict[str, Answer] = {}
        self.num_torn_lines = 0
        for path in self._paths():
            for line in storage.read_bytes(path).split(b"\n"):
                answer = decode_line(line)
                if answer is not None:
                    self.answers.setdefault(answer.key, answer)
                elif line:
                    self.num_torn_lines += 1
        if storage.is_local(folder):
            self._file = self._open(storage.join(folder, "answers.jsonl"))

    def append(self, answer: Answer) -> None:
        self.answers[answer.key] = answer
        if not storage.is_local(self._folder):
            self._pending.append(encode_line(answer))
            if len(self._pending) >= REMOTE_BATCH:
                self.flush()
            return
        path = storage.join(self._folder, "answers.jsonl")
        line = encode_line(answer)
        with storage.machine_faults(path):
            # One write a line: what a killed process has written stays with the system.
            if os.write(self._file, line) != len(line):
                raise MachineError(
                    f"{path}: a line could not be written whole. Free some space and start the "
                    "same command again; what was finished is kept."
                )

    def flush(self) -> None:
        """Store what an object store's batch still holds back."""
        if self._pending:
            lines, self._pending = self._pending, []
            name = f"answers-{xxhash.xxh3_64_hexdigest(lines[0])}.jsonl"
            storage.write_bytes(storage.join(self._folder, name), b"".join(lines))

    def close(self) -> None:
        self.flush()
        if storage.is_local(self._folder):
            os.close(self._file)

    def _paths(self) -> list[str]:
        return storage.list_files(self._folder, ".jsonl")

    def _open(self, path: str) -> int:
        with storage.machine_faults(path):
            os.makedirs(self._folder, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            size = os.fstat(descriptor).st_size
            # So that the first new line does not continue a torn one.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                os.write(descriptor, b"\n")
            return descriptor
