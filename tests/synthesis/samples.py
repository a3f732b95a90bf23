"""Seeds, asks and code for the tests of this folder; nothing here needs a teacher."""

from __future__ import annotations

import dataclasses
import json
import random
import re

from tokenizers import pre_tokenizers

from snowcoder_jax.recipe_synthesis import CheckpointTeacher, ServerTeacher, Synthesis
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.requests import Answer, Request, Seed
from snowcoder_jax.tokenizer import SPECIAL_TOKENS, Tokenizer

SUBJECTS = (
    "river", "tower", "garden", "market", "signal", "window", "ladder", "copper", "violin",
    "harbor", "lantern", "meadow",
)  # fmt: skip
VERBS = (
    "measure", "collect", "arrange", "compare", "rotate", "insert", "reduce", "filter", "expand",
    "balance", "merge", "split",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """A request and its answer, as the acceptance wants them."""

    request: Request
    answer: Answer


def count_words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def good_part(number: int) -> str:
    """A whole new Python function, unlike those of other numbers."""
    draw = random.Random(number)
    a, b, c = draw.sample(SUBJECTS, 3)
    v, w, x, y = draw.sample(VERBS, 4)
    return (
        f"\n\n\ndef {v}_{a}_{number}({b}, {c}):\n"
        f'    """The {w}d {a} of {b} after {c} number {number} would {x}."""\n'
        f"    {a}_{number} = [{w}({b}, item_{number}) for item_{number} in {c}]\n"
        f"    if len({a}_{number}) > {number}:\n"
        f"        return {x}({a}_{number}[{draw.randrange(99)}:], {y}={b})\n"
        f"    return {a}_{number} or {c}.{y}_{number}()\n"
    )


def seed_text(number: int) -> str:
    subject = SUBJECTS[number % len(SUBJECTS)]
    return (
        f'"""Tools for the {subject} of station {number}, with a few words on how they work."""\n\n'
        f"import os\nimport sys\n\nLIMIT_{number} = {number}\n\n"
        f"{good_part(1000 + number).strip()}\n\n\n{good_part(2000 + number).strip()}\n"
    )


def make_seed(number: int = 0, **changed: object) -> Seed:
    seed = Seed(
        str(number), f"repo{number % 3}", f"lib/m{number}.py", "Python", seed_text(number), 0.5,
        "MIT",
    )  # fmt: skip
    return dataclasses.replace(seed, **changed)  # type: ignore[arg-type]


def instruct_ask(**synthesis: object) -> Ask:
    """An ask of an instruct model."""
    teacher = ServerTeacher("model", ("http://127.0.0.1:1",))
    settings = Synthesis(teacher, "best")
    return Ask(dataclasses.replace(settings, **synthesis), 0, "teacher-1", "seeds", "store")  # type: ignore[arg-type]


def completion_ask(**synthesis: object) -> Ask:
    """An ask of a base model; without its tokenizer."""
    settings = Synthesis(CheckpointTeacher("general"), "best", head_tokens=100)
    return Ask(dataclasses.replace(settings, **synthesis), 0, "teacher-1", "seeds", "store")  # type: ignore[arg-type]


def byte_tokenizer() -> Tokenizer:
    """Every byte a token of its own: enough to count and to cut."""
    specials = {name: i for i, name in enumerate(SPECIAL_TOKENS)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {**specials, **{c: len(specials) + i for i, c in enumerate(alphabet)}}
    common = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    added = [{"id": i, "content": n, "special": True, **common} for n, i in specials.items()]
    byte_level = {"type": "ByteLevel", "trim_offsets": True}
    spec = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {**byte_level, "add_prefix_space": False, "use_regex": False},
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    return Tokenizer(json.dumps(spec))
