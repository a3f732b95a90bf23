"""Asks a teacher what is missing: one way for all teachers, in all processes.

A run asks by `ask_from_run`; workers in other environments and on other machines take their part
by `ask_all` (`worker.py`). Requests are made one by one from the seeds, those that the store has
are passed over, and each answer is stored before the next is looked at.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from snowcoder_jax.errors import MachineError
from snowcoder_jax.recipe import Recipe
from snowcoder_jax.recipe_synthesis import VllmTeacher
from snowcoder_jax.synthesis import first_failures, meter, prompts, seed_parts
from snowcoder_jax.synthesis.answers import AnswerIndex, AnswerStore, Keys, Spent, as_key
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.requests import Request
from snowcoder_jax.synthesis.stored_row import StoredRow
from snowcoder_jax.synthesis.teachers import Teacher
from snowcoder_jax.synthesis.teachers.identity import teacher_name

# Told (answered, requests in all, a note), not more often than every so many seconds.
OnProgress = Callable[[int, int, str], None]
PROGRESS_SECONDS = 0.5
# The seeds that the estimate before the first answer is made from.
NUM_SAMPLE = 64
NUM_DEAD_SAMPLES = 10
# Stored rows are read this many at a time.
_CHUNK = 256

Facts = dict[str, Any]


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _quiet(done: int, total: int, note: str) -> None:
    pass


def ask_all(
    ask: Ask,
    teacher: Teacher,
    *,
    limit: int | None = None,
    worker: int = 0,
    num_workers: int = 1,
    on_progress: OnProgress = _quiet,
    say: Callable[[str], None] = _say,
) -> Facts:
    """Ask what the store does not have; returns what `summarize` does, of this worker's share.

    Stopped at any moment and started again, it asks for no answer that is stored.

    Args:
      limit: of the seeds, only those drawn first.
      worker: asks the requests whose keys are `worker` modulo `num_workers`; no two processes
        should have the same share at once.

    Raises:
      InputError: a faulty template, no seeds. What the teacher and the store raise.
      InputError, MachineError: all requests fail, as `first_failures.answers` has it.
    """
    asked = _Requests(ask, limit, worker, num_workers)
    settings = ask.synthesis.teacher
    with AnswerStore(ask.store, worker) as store:
        index = store.index
        if index.num_torn_lines:
            say(f"{index.num_torn_lines} answers were cut off by a kill and are asked again")
        say(asked.estimate())
        in_flight: dict[str, Request] = {}
        counter = meter.Meter(settings)

        def missing() -> Iterator[Request]:
            for request in asked:
                if request.key not in index and request.key not in in_flight:
                    in_flight[request.key] = request
                    yield request

        def is_known_to_answer() -> bool:
            numbers = asked.numbers()
            return len(index.places(numbers)) > len(index.dead(numbers))

        shown = 0.0
        answers = first_failures.answers(teacher, missing(), is_known_to_answer)
        # Whatever stops this, the teacher is stopped before the store is closed.
        with contextlib.closing(answers):
            for answer in answers:
                request = in_flight.pop(answer.key, None)
                assert request is not None, f"{teacher.name} answered what was not asked"
                row = store.append(request, answer, teacher.name)
                counter.add(answer, row.seconds)
                if (now := time.monotonic()) - shown >= PROGRESS_SECONDS:
                    shown = now
                    num_done = len(asked.keys) - len(in_flight)
                    num_before = num_done - counter.num_answered
                    total = asked.expected()
                    on_progress(num_done, total, counter.note(total - num_before))
        assert not in_flight, f"{teacher.name} left {len(in_flight)} requests without an answer"
    return _facts(ask, asked)


def ask_from_run(
    folder: str,
    ask: Ask,
    *,
    recipe: Recipe,
    load_params: Callable[[str], Any],
    limit: int | None = None,
    on_progress: OnProgress = _quiet,
    say: Callable[[str], None] = _say,
) -> Facts:
    """Write `ask.json` to `folder` and ask all that is missing, from the process of a run.

    vLLM lives in another environment, so for it a worker is started there.

    Args:
      load_params: phase name -> its last parameters.

    Raises:
      InputError, MachineError: as `ask_all`; the environment of vLLM is not there; its worker
        failed.
    """
    ask.save(folder)
    if not has_missing(ask, limit):
        # No teacher is needed, so neither its folder nor its key.
        return with_clean_letters(summarize(ask, limit))
    if not isinstance(ask.synthesis.teacher, VllmTeacher):
        from snowcoder_jax.synthesis.teachers.make import make_teacher

        teacher = make_teacher(ask, recipe=recipe, load_params=load_params)
        facts = ask_all(ask, teacher, limit=limit, on_progress=on_progress, say=say)
        return with_clean_letters(facts)
    facts = summarize(ask, limit)
    if facts["missing"]:
        from snowcoder_jax.synthesis.subprocess_worker import run_worker

        say(f"{facts['missing']:,} of {facts['requests']:,} requests have no answer yet")
        run_worker(folder, limit)
        facts = summarize(ask, limit)
    if facts["missing"]:
        raise MachineError(
            f"synthesis: the worker left {facts['missing']} requests without an answer. Start the "
            "same command again."
        )
    return with_clean_letters(facts)


def with_clean_letters(facts: Facts) -> Facts:
    """`facts` as they may be recorded and shown: names, and what a teacher said, may hold secrets.

    Looking for those needs what vLLM's environment lacks, so workers tell counts alone.
    """
    from snowcoder_jax.text.reader import clean_name

    letters = facts["dead_letters"]
    samples = [
        {**letter, **{name: clean_name(letter[name]) for name in ("repo", "path", "error")}}
        for letter in letters["samples"]
    ]
    return {**facts, "dead_letters": {**letters, "samples": samples}}


def has_missing(ask: Ask, limit: int | None = None) -> bool:
    """Whether a request has no answer yet."""
    index = AnswerIndex(ask.store)
    return any(request.key not in index for request in _Requests(ask, limit, 0, 1))


def summarize(ask: Ask, limit: int | None = None) -> Facts:
    """What the store has of an ask, in numbers; asks nothing.

    `requests`, of them `answered`, `dead` and `missing`; `seeds`, of them `skipped` by reason;
    `dead_letters` by the first word of the error, with samples; `spent`: tokens, dollars and
    seconds of all machines, of `meter.facts`; `estimate`: what was expected before.
    """
    asked = _Requests(ask, limit, 0, 1)
    for _ in asked:
        pass
    return _facts(ask, asked)


def told(ask: Ask, facts: Facts) -> str:
    """The numbers of `summarize` in a line: `40 answers, 2 dead letters (2 context); ...`"""
    dead = ", ".join(f"{n} {word}" for word, n in facts["dead_letters"]["counts"].items())
    spent = meter.describe(ask.synthesis.teacher, meter.spent_of(facts["spent"]))
    words = f"{facts['dead']} dead letters" + (f" ({dead})" if dead else "")
    return f"{facts['answered']} answers, {words}; {spent}"


def stored_rows(ask: Ask, limit: int | None = None) -> Iterator[StoredRow]:
    """The stored rows of an ask's requests, dead letters included, some at a time."""
    index, requests = AnswerIndex(ask.store), iter(_Requests(ask, limit, 0, 1))
    while chunk := [request.key for request in itertools.islice(requests, _CHUNK)]:
        yield from index.find(chunk).values()


def print_prompts(ask: Ask, num_prompts: int, write: Callable[[str], object]) -> None:
    """Show what would be asked first, and about what it costs; asks nothing.

    Raises:
      InputError: as `ask_all`.
    """
    asked = _Requests(ask, None, 0, 1)
    for request in itertools.islice(_Requests(ask, num_prompts, 0, 1), num_prompts):
        seed = request.seed
        lines = f", lines {seed.first_line} to {seed.last_line}" if seed.first_line else ""
        write(f"--- {request.key} ({seed.language}) from {seed.repo}: {seed.path}{lines}\n")
        write(request.prompt.encode("utf-8", "replace").decode() + "\n")
    write(f"---\n{asked.estimate()}\n")


class _Requests:
    """Iterates over a worker's share of the requests of an ask, and remembers their keys.

    Attributes:
      keys: of the requests so far, 8 bytes each. num_seeds: of all workers.
    """

    def __init__(self, ask: Ask, limit: int | None, worker: int, num_workers: int) -> None:
        self._ask, self._limit = ask, limit
        self._worker, self._num_workers = worker, num_workers
        self.num_seeds = seed_parts.count_seeds(ask.seeds, limit)
        self._requests = self._make()
        self.keys = array.array("Q")

    def _make(self) -> prompts.Requests:
        return prompts.requests(self._ask, seed_parts.read_seeds(self._ask.seeds, self._limit))

    def __iter__(self) -> Iterator[Request]:
        for request in self._requests:
            number = int(request.key, 16)
            if number % self._num_workers == self._worker:
                self.keys.append(number)
                yield request

    @property
    def version(self) -> str:
        """Of the prompts."""
        return self._requests.version

    @property
    def skipped(self) -> Counter[str]:
        """Seeds of all workers that no request was made of, so far."""
        return self._requests.skipped

    def expected(self) -> int:
        """How many requests there will be of this share, from what was seen so far."""
        num_left = max(0, self.num_seeds - self.skipped.total())
        return max(len(self.keys), num_left // self._num_workers)

    def before(self) -> Spent:
        """What is expected before any answer was seen, for all requests of the share."""
        num_sample = NUM_SAMPLE if self._limit is None else min(NUM_SAMPLE, self._limit)
        seeds = seed_parts.sample_seeds(self._ask.seeds, num_sample)
        sample = list(prompts.requests(self._ask, seeds))
        if not sample:  # of the first, none gives a prompt
            sample = list(itertools.islice(self._make(), NUM_SAMPLE))
        return meter.estimate_before(
            self._ask.synthesis, sample, self.num_seeds // self._num_workers
        )

    def estimate(self) -> str:
        teacher = self._ask.synthesis.teacher
        told = meter.describe(teacher, self.before())
        note = meter.note_before(teacher)
        return f"{self.num_seeds:,} seeds; about {told} in all, judged by their bytes{note}"

    def numbers(self) -> Keys:
        return np.unique(np.frombuffer(self.keys, np.uint64))


def _facts(ask: Ask, asked: _Requests) -> Facts:
    index, numbers, settings = AnswerIndex(ask.store), asked.numbers(), ask.synthesis.teacher
    num_stored = len(index.places(numbers))
    dead = index.dead(numbers)
    words, samples = _dead_letters(index, dead)
    return {
        "teacher": teacher_name(settings),
        "fingerprint": ask.teacher_fingerprint,
        "prompt_version": asked.version,
        "seeds": asked.num_seeds,
        "skipped": dict(sorted(asked.skipped.items())),
        "requests": len(numbers),
        "answered": num_stored - len(dead),
        "dead": len(dead),
        "missing": len(numbers) - num_stored,
        "dead_letters": {"counts": dict(sorted(words.items())), "samples": samples},
        "spent": meter.facts(settings, index.spent(numbers)),
        "estimate": meter.facts(settings, asked.before()),
    }


def _dead_letters(index: AnswerIndex, dead: Keys) -> tuple[Counter[str], list[dict[str, str]]]:
    words: Counter[str] = Counter()
    samples: list[dict[str, str]] = []
    for start in range(0, len(dead), _CHUNK):
        keys = [as_key(number) for number in dead[start : start + _CHUNK].tolist()]
        for key, row in sorted(index.find(keys).items()):
            words[row.answer.error.partition(":")[0]] += 1
            if len(samples) < NUM_DEAD_SAMPLES:
                seed = dataclasses.asdict(row.request.seed)
                told = {name: seed[name] for name in ("id", "repo", "path", "language")}
                samples.append({"key": key, **told, "error": row.answer.error})
    return words, samples
