"""What a synthesis costs: tokens, machine time and dollars, so far and in all.

Before the first answer the estimate comes from the bytes of the prompts and seeds, then from what
was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snowcoder_jax.recipe_synthesis import (
    CheckpointTeacher,
    ServerTeacher,
    Synthesis,
    VllmTeacher,
)
from snowcoder_jax.synthesis.answers import Spent
from snowcoder_jax.synthesis.requests import Answer, Request

# Chosen, of code under vocabularies of about 100 k tokens; only until answers were seen.
BYTES_PER_TOKEN = 3.5
# Chosen: `oss_instruct` asks for 80 to 250 lines however short the seed is, some 10 tokens each.
FILE_TOKENS = 1_500


def dollars(teacher: CheckpointTeacher | VllmTeacher | ServerTeacher, spent: Spent) -> float | None:
    """The price of it; None where the recipe gives no prices, or the seconds are not known."""
    if isinstance(teacher, VllmTeacher) and teacher.dollars_per_hour is not None:
        return teacher.dollars_per_hour * spent.seconds / 3600 if spent.seconds else None
    if isinstance(teacher, ServerTeacher):
        per_prompt_token = teacher.dollars_per_million_prompt_tokens
        per_new_token = teacher.dollars_per_million_new_tokens
        if per_prompt_token is not None or per_new_token is not None:
            return (
                spent.num_prompt_tokens * (per_prompt_token or 0.0)
                + spent.num_tokens * (per_new_token or 0.0)
            ) / 1e6
    return None


def estimate_before(synthesis: Synthesis, sample: Sequence[Request], num_requests: int) -> Spent:
    """What `num_requests` like the ones in `sample` will read and write; seconds are not known.

    An instruct teacher is taken to write as much as it is shown of a seed and `FILE_TOKENS` at
    least, a base teacher all that it may: both at most `max_new_tokens`.
    """
    if not sample:
        return Spent()
    num_prompt_tokens = sum(_num_bytes(r.prompt) for r in sample) / BYTES_PER_TOKEN
    num_tokens = 0.0
    for request in sample:
        shown = _num_bytes(request.seed.text) / BYTES_PER_TOKEN
        is_base = synthesis.teacher.mode == "completion"
        wanted = synthesis.max_new_tokens if is_base else max(shown, FILE_TOKENS)
        num_tokens += min(wanted, synthesis.max_new_tokens)
    return _scaled(Spent(round(num_prompt_tokens), round(num_tokens)), num_requests / len(sample))


def note_before(teacher: CheckpointTeacher | VllmTeacher | ServerTeacher) -> str:
    """What to add to the estimate before the first answer where it cannot give the price."""
    if isinstance(teacher, VllmTeacher) and teacher.dollars_per_hour is not None:
        return "; dollars are told after the first answers, when the machine's speed is known"
    return ""


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _scaled(spent: Spent, factor: float) -> Spent:
    return Spent(
        round(spent.num_prompt_tokens * factor),
        round(spent.num_tokens * factor),
        spent.seconds * factor,
    )


class Meter:
    """Counts what this process is answered, and says what it will have cost in the end."""

    def __init__(self, teacher: CheckpointTeacher | VllmTeacher | ServerTeacher) -> None:
        self._teacher = teacher
        self.spent = Spent()
        self.num_answered = 0
        self.num_dead = 0  # of them, dead letters

    def add(self, answer: Answer, seconds: float) -> None:
        """Count an answer that took `seconds` of this machine (all in flight share its time)."""
        spent = self.spent
        self.spent = Spent(
            spent.num_prompt_tokens + answer.num_prompt_tokens,
            spent.num_tokens + answer.num_tokens,
            spent.seconds + seconds,
        )
        self.num_answered += 1
        self.num_dead += answer.finish == "error"

    def in_all(self, num_requests: int) -> Spent | None:
        """The estimate for all of `num_requests`; None before the first answer."""
        if not self.num_answered:
            return None
        return _scaled(self.spent, num_requests / self.num_answered)

    def note(self, num_requests: int) -> str:
        """One line: dead letters, what was spent so far, and about how much in all."""
        in_all = self.in_all(num_requests)
        if in_all is None:
            return ""
        dead = f"{self.num_dead:,} dead letters; " if self.num_dead else ""
        spent = describe(self._teacher, self.spent)
        return f"{dead}{spent} of about {describe(self._teacher, in_all)}"


def describe(teacher: CheckpointTeacher | VllmTeacher | ServerTeacher, spent: Spent) -> str:
    """`2.1 M tokens read, 3.4 M written, $12.30`"""
    text = f"{_short(spent.num_prompt_tokens)} tokens read, {_short(spent.num_tokens)} written"
    price = dollars(teacher, spent)
    return text if price is None else f"{text}, ${price:,.2f}"


def facts(
    teacher: CheckpointTeacher | VllmTeacher | ServerTeacher, spent: Spent
) -> dict[str, int | float | None]:
    """For records and the report; `machine_seconds` is the sum over all workers."""
    return {
        "prompt_tokens": spent.num_prompt_tokens,
        "new_tokens": spent.num_tokens,
        "machine_seconds": round(spent.seconds, 3),
        "dollars": dollars(teacher, spent),
    }


def spent_of(told: dict[str, Any]) -> Spent:
    """The inverse of `facts`."""
    return Spent(told["prompt_tokens"], told["new_tokens"], told["machine_seconds"])


def _short(number: float) -> str:
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"
