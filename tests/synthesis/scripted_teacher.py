"""A teacher with answers by script, for the tests; run as a program it writes a corpus.

As a program it takes: the folder, a file that lists what was asked, seconds per answer.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterable, Iterator

from tokenizers import pre_tokenizers

from snowcoder_jax.recipe import (
    CheckpointTeacher,
    Part,
    Phase,
    Recipe,
    Schedule,
    Selection,
    Synthesis,
)
from snowcoder_jax.synthesis.generate import synthesize
from snowcoder_jax.synthesis.prompts import Mode, Request
from snowcoder_jax.synthesis.seeds import SeedDocument
from snowcoder_jax.synthesis.teachers import Answer
from snowcoder_jax.tokenizer import SPECIAL_TOKENS, Tokenizer

BENCHMARK_LINE = "median_of_three_sorted_neighbours"

SUBJECTS = (
    "river", "tower", "garden", "market", "signal", "window", "ladder", "copper", "violin",
    "harbor", "lantern", "meadow",
)  # fmt: skip
VERBS = (
    "measure", "collect", "arrange", "compare", "rotate", "insert", "reduce", "filter", "expand",
    "balance", "merge", "split",
)  # fmt: skip


def good_part(number: int) -> str:
    """A whole new function, unlike those of other numbers."""
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


def write_answer(request: Request, kind: int) -> Answer:
    """Realistic answers, good and bad, chosen by `kind`."""
    number = int(request.key, 16) % 1_000_003
    good = good_part(number)
    text, finish, error = {
        0: (good, "stop", ""),
        1: (good + "\n\ndef unfinished(a,\n        b=(", "length", ""),
        2: (good + "\n\nx = 1", "length", ""),
        3: ("\n)]} while for", "stop", ""),
        4: ("\n\nx = 1\n", "stop", ""),
        5: ("\n" + "value = value + step * 2\n" * 40, "stop", ""),
        6: ("", "error", "400: the prompt is too long"),
        7: ("", "stop", ""),
        8: (good.replace("return", f"{BENCHMARK_LINE} = 1\n    return", 1), "stop", ""),
        9: (seed_rest(request.seed_id), "stop", ""),
        10: (good_part(77), "stop", ""),
    }[kind]
    return Answer(request.key, text, len(text) // 3, finish, error)  # type: ignore[arg-type]


class ScriptedTeacher:
    """Answers by script, in an order drawn from `order_seed`; remembers what it was asked."""

    name = "scripted"
    mode: Mode = "completion"
    fingerprint = "scripted-1"

    def __init__(self, order_seed: int = 0, kinds: tuple[int, ...] = tuple(range(11))) -> None:
        self._order_seed = order_seed
        self._kinds = kinds
        self.asked: list[str] = []

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        shuffled = list(requests)
        random.Random(self._order_seed).shuffle(shuffled)
        for request in shuffled:
            self.asked.append(request.key)
            yield write_answer(request, self._kinds[int(request.key, 16) % len(self._kinds)])


class ContainsLine:
    """A contamination index of one line."""

    def find(self, text: str, language: str | None = None) -> str | None:
        return BENCHMARK_LINE if BENCHMARK_LINE in text else None


def seed_rest(seed_id: str) -> str:
    return f"\n\n\n{_seed_text(int(seed_id)).split(_SPLIT, 1)[1]}"


_SPLIT = "# rest\n"


def _seed_text(number: int) -> str:
    subject = SUBJECTS[number % len(SUBJECTS)]
    return (
        f'"""Tools for the {subject} of station {number}, with a few words on how they work."""\n\n'
        f"import os\nimport sys\n\nLIMIT_{number} = {number}\n{_SPLIT}"
        f"{good_part(1000 + number).strip()}\n\n\n{good_part(2000 + number).strip()}\n"
    )


def seed_documents(num: int) -> list[SeedDocument]:
    return [
        SeedDocument(str(i), f"repo{i % 3}", f"lib/m{i}.py", "Python", _seed_text(i), 0.5, "MIT")
        for i in range(num)
    ]


def small_recipe(**synthesis: object) -> Recipe:
    settings: dict[str, object] = {
        "teacher": CheckpointTeacher("general", batch_size=4),
        "seeds": "best",
        "num_seeds": 44,
        "head_tokens": 100,
        "max_new_tokens": 300,
    }
    phase = Phase("general", 64, 1, 64, Schedule(), (Part("best"),))
    return Recipe(
        name="test",
        sources=(),
        selections=(Selection("best"),),
        phases=(phase,),
        synthesis=Synthesis(**{**settings, **synthesis}),  # type: ignore[arg-type]
    )


def byte_tokenizer() -> Tokenizer:
    """Every byte a token of its own: enough to count and to cut."""
    specials = {name: i for i, name in enumerate(SPECIAL_TOKENS)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {**specials, **{c: len(specials) + i for i, c in enumerate(alphabet)}}
    added = [
        {
            "id": i,
            "content": name,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for name, i in specials.items()
    ]
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    decoder = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
    pre = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    spec = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": pre,
        "decoder": decoder,
        "model": model,
    }
    return Tokenizer(json.dumps(spec))


def main() -> None:
    folder, asked_file, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])

    class Slow(ScriptedTeacher):
        def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
            with open(asked_file, "a", encoding="utf-8") as f:
                for answer in super().answers(requests):
                    f.write(answer.key + "\n")
                    f.flush()
                    yield answer
                    time.sleep(seconds)

    facts = synthesize(
        small_recipe(head_tokens=250),
        seed_documents=seed_documents(44),
        teacher=Slow(),
        tokenizer=byte_tokenizer(),
        contamination=ContainsLine(),
        folder=folder,
        key="k",
        on_progress=lambda done, total, note: None,
    )
    print(facts["accepted"])


if __name__ == "__main__":
    main()
