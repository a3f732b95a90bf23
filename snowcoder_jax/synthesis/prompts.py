"""From seeds to requests: the head of a seed for a base model to go on from.

A request says everything a teacher needs and is addressed by the hash of it, so that its answer
can be kept, found again and never paid for twice.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Literal

from snowcoder_jax import storage
from snowcoder_jax.recipe import fingerprint
from snowcoder_jax.synthesis.accept import first_line, last_line, line_starts, parse_python
from snowcoder_jax.synthesis.seeds import SeedDocument
from snowcoder_jax.tokenizer import FILE_SEP, Tokenizer

Mode = Literal["completion", "instruct"]

# A shorter head says too little of what the file is about.
MIN_HEAD_TOKENS = 16


_BLANK_LINES = re.compile(r"(?:[ \t\f]*\n)*")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a teacher draws: temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float
    top_p: float


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to a teacher.

    Attributes:
      key: 16 hex digits; hash of the teacher's fingerprint, the prompt and the sampling.
      seed_id: the document it was made from.
      prompt: the head of the seed (completion) or the message (instruct), as text.
      prompt_ids: the same for a model of this project's tokenizer; empty in instruct mode.
      random_seed: in [0, 2^31); the draw depends on nothing else, so not on the batch.
    """

    key: str
    seed_id: str
    language: str
    prompt: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    random_seed: int


@dataclasses.dataclass(frozen=True)
class Requests:
    """What was asked, and why some seeds could not be.

    Attributes:
      skipped: seeds by reason: "unparsable", "short" (no head of 16 tokens).
    """

    requests: tuple[Request, ...]
    skipped: dict[str, int]


def completion_requests(
    seeds: Sequence[SeedDocument],
    *,
    tokenizer: Tokenizer,
    teacher_fingerprint: str,
    sampling: Sampling,
    head_tokens: int,
    seed: int,
) -> Requests:
    """One request for each seed: `<file_sep>` and its head, `head_tokens` ids at most in all.

    That is how a file without names begins in training, so the model is asked what it was taught.
    """
    requests = []
    skipped: dict[str, int] = {}
    for document in seeds:
        head, reason = head_of(document.text, tokenizer, head_tokens - 1)
        if reason:
            skipped[reason] = skipped.get(reason, 0) + 1
            continue
        random_seed = storage.seeded_hash(seed, "synthesis sampling", document.id) & 0x7FFFFFFF
        requests.append(
            Request(
                key=fingerprint(teacher_fingerprint, head, sampling, random_seed),
                seed_id=document.id,
                language=document.language,
                prompt=head,
                prompt_ids=(tokenizer.special(FILE_SEP), *tokenizer.encode(head)),
                sampling=sampling,
                random_seed=random_seed,
            )
        )
    return Requests(tuple(requests), skipped)


def head_of(text: str, tokenizer: Tokenizer, max_tokens: int) -> tuple[str, str]:
    """The head of a Python file and "", or "" and the reason why there is none.

    It begins at the first statement (a licence in comments would fill it and say nothing) and is
    the longest run of whole top-level statements that fits and leaves at least one out. Where
    that is under `MIN_HEAD_TOKENS`, it begins after a module docstring too long to fit; failing
    that, it is the longest run of lines that fits, inside the first big statement. The blank
    lines that follow in the file belong to it, so that the model goes on where a new line begins:
    asked at the end of a line, a small model most often lengthens the last word.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    tree = parse_python(text)
    if tree is None:
        return "", "unparsable"
    if not tree.body:
        return "", "short"
    starts = line_starts(text)
    code = tree.body[1:] if ast.get_docstring(tree) is not None and tree.body[1:] else tree.body
    file_begin, code_begin = (starts[first_line(body[0]) - 1] for body in (tree.body, code))
    for begin, ends in (
        (file_begin, _statement_ends(tree.body, starts)),
        (code_begin, _statement_ends(code, starts)),
        (code_begin, [end for end in starts if end > code_begin]),
    ):
        heads = [text[begin : _after_blank_lines(text, end)] for end in ends]
        head = _longest(heads, tokenizer, max_tokens)
        if len(tokenizer.encode(head)) >= MIN_HEAD_TOKENS and text[begin + len(head) :].strip():
            return head, ""
    return "", "short"


def _after_blank_lines(text: str, end: int) -> int:
    found = _BLANK_LINES.match(text, end)
    assert found is not None, "the pattern matches the empty text"
    return found.end()


def _statement_ends(body: Sequence[ast.stmt], starts: Sequence[int]) -> list[int]:
    """Character offsets after the last line of each top-level statement but the last one."""
    ends = []
    for statement, following in itertools.pairwise(body):
        # `a = 1; b = 2` has no line boundary between the two.
        if following.lineno > last_line(statement):
            ends.append(starts[last_line(statement)])
    return ends


def _longest(heads: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> str:
    """The longest of ascending `heads` within `max_tokens`, or ""."""
    low, high = 0, len(heads)
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.encode(heads[middle])) <= max_tokens:
            low = middle + 1
        else:
            high = middle
    return heads[low - 1] if low else ""
