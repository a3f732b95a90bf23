"""What tests of the asking side share: a folder of seeds, an ask of servers or of nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax.recipe_synthesis import Mode, ServerTeacher, Synthesis
from snowcoder_jax.synthesis import prompts, seed_parts
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.seeds import SEED_SCHEMA, seed_hash

FINGERPRINT = "feedfacefeedface"


def write_seeds(folder: Path, num_seeds: int, *, num_parts: int = 2, words: str = "") -> None:
    """Seeds `id-0` and so on, spread over parts; `words` goes into every text."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": f"id-{i}",
            "repo": f"owner/repo-{i % 7}",
            "path": f"src/module_{i}.py",
            "language": "Python",
            "license": "MIT",
            "score": i / num_seeds,
            "draw": seed_hash(0, f"id-{i}"),
            "text": f"def total_{i}(values):\n    return sum(values) + {i}  # {words}\n",
        }
        for i in range(num_seeds)
    ]
    for part in range(num_parts):
        table = pa.Table.from_pylist(rows[part::num_parts], schema=SEED_SCHEMA)
        pq.write_table(table, folder / f"part-{part:05d}.parquet")


def make_ask(root: Path, *urls: str, **synthesis: object) -> Ask:
    """An ask of the seeds in `root/seeds`, answers in `root/store`."""
    teacher = ServerTeacher("fake", urls or ("http://127.0.0.1:9",), max_in_flight=32)
    settings: dict[str, object] = {"teacher": teacher, "seeds": "best", "max_new_tokens": 64}
    return Ask(
        Synthesis(**{**settings, **synthesis}),  # type: ignore[arg-type]
        run_seed=0,
        teacher_fingerprint=FINGERPRINT,
        seeds=str(root / "seeds"),
        store=str(root / "store"),
    )


def requests_of(ask: Ask) -> list[Request]:
    return list(prompts.requests(ask, seed_parts.read_seeds(ask.seeds)))


class ListTeacher:
    """Answers by rote and remembers what it was asked; `refused` keys become dead letters.

    It ends with an error after `num_answers`, as a machine that dies.
    """

    name = "list"
    mode: Mode = "instruct"
    fingerprint = FINGERPRINT

    def __init__(self, refused: Iterable[str] = (), num_answers: int | None = None) -> None:
        self._refused = set(refused)
        self._num_answers = num_answers
        self.asked: list[str] = []
        self.is_stopped = False

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        try:
            yield from self._answers(requests)
        finally:
            self.is_stopped = True

    def _answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for number, request in enumerate(requests):
            if number == self._num_answers:
                raise RuntimeError("the machine died")
            self.asked.append(request.key)
            if request.key in self._refused:
                yield Answer(request.key, "", 0, "error", "context: too long")
            else:
                yield Answer(request.key, f"text of {request.key}", 10, "stop", "", 20)
