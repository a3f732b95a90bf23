"""The words of a synthesis: a seed, a request made from it, a teacher's answer.

A request says everything a teacher needs and is addressed by the hash of it, so that its answer
can be kept, found again and never paid for twice. Nothing here needs JAX, Beam or vLLM: the
processes that ask run in environments of their own.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from snowcoder_jax import storage
from snowcoder_jax.recipe import fingerprint

Finish = Literal["stop", "length", "error"]


@dataclasses.dataclass(frozen=True)
class Seed:
    """A document of the seed selection, read through the one reader; or a window of its lines.

    Attributes:
      score: the annotator's, kept for provenance.
      license: SPDX expression; what is written from the seed inherits it.
      first_line, last_line: of the document that `text` holds, from 1; 0 and 0: all of it.
    """

    id: str
    repo: str
    path: str
    language: str
    text: str
    score: float
    license: str = ""
    first_line: int = 0
    last_line: int = 0


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
      key: 16 hex digits; hash of the teacher's fingerprint, the prompt, the sampling, the draw.
      seed: what it was made from; its text is what the prompt shows of it.
      prompt: the head of the seed (completion) or the user's message (instruct).
      prompt_version: of the template and the code that wrote the prompt.
      random_seed: in [0, 2^31); the draw depends on nothing else, so not on the batch.
    """

    key: str
    seed: Seed
    prompt: str
    prompt_version: str
    sampling: Sampling
    random_seed: int

    @property
    def language(self) -> str:
        return self.seed.language


def make_request(
    seed: Seed,
    prompt: str,
    *,
    prompt_version: str,
    teacher_fingerprint: str,
    sampling: Sampling,
    run_seed: int,
) -> Request:
    """The request that asks `prompt` of the teacher; equal questions have equal keys."""
    random_seed = storage.seeded_hash(run_seed, "synthesis sampling", seed.id) & 0x7FFFFFFF
    key = fingerprint(teacher_fingerprint, prompt, sampling, random_seed)
    return Request(key, seed, prompt, prompt_version, sampling, random_seed)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a teacher wrote for the request of that key.

    Attributes:
      text: without the prompt and without the token that ended it.
      num_tokens: that the teacher generated; num_prompt_tokens: that it read; for the meter.
      finish: "stop": it ended the text itself; "length": it was cut off; "error": there is no
        text, and asking again would not help. `error` then says why: a word that can be counted
        (`context`, `refused`, `malformed`, ...), a colon, the teacher's own words.
      num_retries: how often it was asked again before.
    """

    key: str
    text: str
    num_tokens: int
    finish: Finish
    error: str = ""
    num_prompt_tokens: int = 0
    num_retries: int = 0
