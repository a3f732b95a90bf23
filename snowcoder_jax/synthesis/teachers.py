"""Who answers requests: one small interface, and this project's own checkpoint behind it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol

from snowcoder_jax import recipe as recipes
from snowcoder_jax.errors import InputError
from snowcoder_jax.evaluation.sampler import Sampler
from snowcoder_jax.model.decoder import Params
from snowcoder_jax.recipe import Recipe
from snowcoder_jax.synthesis.prompts import Mode, Request, Sampling
from snowcoder_jax.tokenizer import SPECIAL_TOKENS, Tokenizer

# The sampler pads prompts of like lengths to one length: looking this many batches ahead and
# sorting fills its rows with prompts instead of padding.
WINDOW_BATCHES = 16

Finish = Literal["stop", "length", "error"]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a teacher wrote for the request of that key.

    Attributes:
      text: without the prompt and without the token that ended it.
      num_tokens: that the teacher generated, for the meter.
      finish: "stop": it ended the text itself; "length": it was cut off; "error": there is no
        text, and asking again would not help. `error` then says why.
    """

    key: str
    text: str
    num_tokens: int
    finish: Finish
    error: str = ""


class Teacher(Protocol):
    """A model that answers requests.

    `answers` takes requests one by one from an iterable, only as it has room for them (that is
    the back-pressure: 100 k requests never lie in memory), and yields exactly one answer for each
    as they come, in any order. It is a plain generator, so that callers need no event loop: a
    teacher in this process runs batches between two `yield`s; a client of servers keeps its own
    event loop in a thread and yields from its queue. What may pass (a server restarting, "too
    many requests") is retried inside; what may not becomes an answer with `finish` "error", so
    one bad prompt never fails the others. It raises only where no request could be answered any
    more. Closing the generator stops what is under way; what was not yielded is asked again by
    the next run, which knows stored answers by their keys.

    Attributes:
      name: of the teacher, as in the `repo` of what it writes.
      mode: "completion": it goes on from the prompt; "instruct": it replies to it.
      fingerprint: changes whenever the same request could get another answer.
    """

    @property
    def name(self) -> str: ...
    @property
    def mode(self) -> Mode: ...
    @property
    def fingerprint(self) -> str: ...
    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]: ...


class CheckpointTeacher:
    """A base model of this project that continues the prompt.

    An answer depends on its request alone: every prompt is drawn with its own random seed.

    Args:
      params: as `model.decoder` has them. fingerprint: of the checkpoint they come from.
    """

    mode: Mode = "completion"

    def __init__(
        self,
        params: Params,
        config: recipes.Model,
        tokenizer: Tokenizer,
        *,
        name: str,
        fingerprint: str,
        batch_size: int,
        compute_dtype: str,
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self._sampler = Sampler(params, config, tokenizer.vocab_size, compute_dtype=compute_dtype)
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._max_sequence_length = config.max_sequence_length
        self._stop_ids = tuple(tokenizer.special(name) for name in SPECIAL_TOKENS)

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        # One call of the sampler has one sampling, so a batch ends where it changes.
        for sampling, alike in itertools.groupby(requests, key=lambda r: r.sampling):
            while window := list(itertools.islice(alike, WINDOW_BATCHES * self._batch_size)):
                window.sort(key=lambda r: len(r.prompt_ids))
                for start in range(0, len(window), self._batch_size):
                    yield from self._batch(window[start : start + self._batch_size], sampling)

    def _batch(self, batch: Sequence[Request], sampling: Sampling) -> Iterator[Answer]:
        fitting = []
        for request in batch:
            length = len(request.prompt_ids) + sampling.max_new_tokens
            if length > self._max_sequence_length:
                error = f"{length} tokens exceed the model's {self._max_sequence_length}"
                yield Answer(request.key, "", 0, "error", error)
            else:
                fitting.append(request)
        written = self._sampler.generate(
            [r.prompt_ids for r in fitting],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seeds=[r.random_seed for r in fitting],
            stop_ids=self._stop_ids,
            batch_size=self._batch_size,
        )
        for request, ids in zip(fitting, written, strict=True):
            # The sampler leaves the token that ended a row out.
            finish: Finish = "stop" if len(ids) < sampling.max_new_tokens else "length"
            yield Answer(request.key, self._tokenizer.decode(ids), len(ids), finish)


def make_teacher(
    recipe: Recipe,
    tokenizer: Tokenizer,
    load_checkpoint: Callable[[str], tuple[Params, str]],
) -> Teacher:
    """The teacher that the recipe names.

    Args:
      load_checkpoint: phase name -> its last parameters and their fingerprint.

    Raises:
      InputError: the recipe asks for vLLM, whose environment is not part of this project yet.
    """
    assert recipe.synthesis is not None, "no synthesis in the recipe"
    settings = recipe.synthesis.teacher
    if isinstance(settings, recipes.VllmTeacher):
        raise InputError(
            "synthesis.teacher.kind: `vllm` needs an environment with vLLM, which this version "
            "does not come with. Use `kind: checkpoint` with `phase: NAME`, which lets a "
            "checkpoint of this run write the documents, or remove `synthesis` and the phases "
            "that read what it writes."
        )
    params, fingerprint = load_checkpoint(settings.phase)
    return CheckpointTeacher(
        params,
        recipe.model,
        tokenizer,
        # Not the run's name: it would go into ids, and runs of one recipe share what is written.
        name=settings.phase,
        fingerprint=fingerprint,
        batch_size=settings.batch_size,
        compute_dtype=recipe.hardware.compute_dtype,
    )
