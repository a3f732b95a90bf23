"""A stored answer as a line of text, vouched for by its own checksum.

A line is JSON whose last member, `xxh3`, is the hash of what comes before it: one that a kill has
torn, or a disk has changed, is known by that.
"""

from __future__ import annotations

import dataclasses
import json

import xxhash

from snowcoder_jax.synthesis.requests import Answer, Request, Sampling, Seed

_CHECKSUM_CHARACTERS = len(', "xxh3": "0123456789abcdef"}')


@dataclasses.dataclass(frozen=True)
class StoredRow:
    """An answer with all that it takes to judge it: no other file is needed.

    Attributes:
      teacher: its name. seconds: since the row before of the same process, so their sum is how
        long machines worked on a set of rows.
    """

    request: Request
    answer: Answer
    teacher: str
    seconds: float = 0.0


def encode_line(row: StoredRow) -> bytes:
    request, answer = row.request, row.answer
    text = request.seed.text.rstrip()
    told = {
        "key": request.key,
        "seed": request.seed.__dict__,
        # What stands before and after the seed's text: it is long, and would stand here twice.
        "prompt": request.prompt.split(text, 1) if text else [request.prompt],
        "prompt_version": request.prompt_version,
        "random_seed": request.random_seed,
        "sampling": request.sampling.__dict__,
        "teacher": row.teacher,
        "seconds": round(row.seconds, 6),
        "answer": {k: v for k, v in answer.__dict__.items() if k != "key"},
    }
    body = json.dumps(told)[:-1].encode()
    return body + _checksum(body) + b"\n"


def decode_line(line: bytes) -> StoredRow | None:
    """The row of a line without its line break, or None where the line is not whole."""
    body, checksum = line[:-_CHECKSUM_CHARACTERS], line[-_CHECKSUM_CHARACTERS:]
    if not body or checksum != _checksum(body):
        return None
    told = json.loads(body + b"}")
    seed = Seed(**told["seed"])
    request = Request(
        told["key"],
        seed,
        seed.text.rstrip().join(told["prompt"]),
        told["prompt_version"],
        Sampling(**told["sampling"]),
        told["random_seed"],
    )
    answer = Answer(key=request.key, **told["answer"])
    return StoredRow(request, answer, told["teacher"], told["seconds"])


def _checksum(body: bytes) -> bytes:
    return b', "xxh3": "%s"}' % xxhash.xxh3_64_hexdigest(body).encode()
