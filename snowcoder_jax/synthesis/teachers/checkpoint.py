"""This project's own checkpoint as a teacher, in JAX."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from snowcoder_jax import recipe as recipes
from snowcoder_jax.evaluation.sampler import Sampler
from snowcoder_jax.model.decoder import Params
from snowcoder_jax.recipe_synthesis import Mode
from snowcoder_jax.synthesis.requests import Answer, Finish, Request, Sampling
from snowcoder_jax.tokenizer import FILE_SEP, SPECIAL_TOKENS, Tokenizer

# The sampler pads prompts of like lengths to one length: looking this many batches ahead and
# sorting fills its rows with prompts instead of padding.
WINDOW_BATCHES = 16


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
            while window := [
                (request, self._ids(request.prompt))
                for request in itertools.islice(alike, WINDOW_BATCHES * self._batch_size)
            ]:
                window.sort(key=lambda asked: len(asked[1]))
                for start in range(0, len(window), self._batch_size):
                    yield from self._batch(window[start : start + self._batch_size], sampling)

    def _ids(self, prompt: str) -> tuple[int, ...]:
        """As a file without names begins in training, so the model is asked what it was taught."""
        return (self._tokenizer.special(FILE_SEP), *self._tokenizer.encode(prompt))

    def _batch(
        self, batch: Sequence[tuple[Request, tuple[int, ...]]], sampling: Sampling
    ) -> Iterator[Answer]:
        fitting = []
        for request, prompt_ids in batch:
            length = len(prompt_ids) + sampling.max_new_tokens
            if length > self._max_sequence_length:
                error = f"context: {length} tokens exceed the model's {self._max_sequence_length}"
                yield Answer(request.key, "", 0, "error", error)
            else:
                fitting.append((request, prompt_ids))
        written = self._sampler.generate(
            [prompt_ids for _, prompt_ids in fitting],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seeds=[request.random_seed for request, _ in fitting],
            stop_ids=self._stop_ids,
            batch_size=self._batch_size,
        )
        for (request, prompt_ids), ids in zip(fitting, written, strict=True):
            # The sampler leaves the token that ended a row out.
            finish: Finish = "stop" if len(ids) < sampling.max_new_tokens else "length"
            text = self._tokenizer.decode(ids)
            yield Answer(request.key, text, len(ids), finish, num_prompt_tokens=len(prompt_ids))
