"""100,000 requests through the runner and the servers' teacher, against a fake server.

    python -m synthesis_parts.requests [NUM_REQUESTS]

The server (`tests/synthesis/fake_server.py`) is a process of its own on loopback that answers at
once, so what is measured is ours: seeds read, prompts made, asked over HTTP, answers stored. The
first 10,000 requests warm up; time, processor time and resident memory are of those after them.
Memory goes up and down with the part of the seeds that is being read, so its growth is the slope of
a line through samples of it. Prints one JSON object. Imports only what a worker needs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax.recipe_synthesis import ServerTeacher, Synthesis
from snowcoder_jax.synthesis import runner
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.teachers import Teacher
from snowcoder_jax.synthesis.teachers.make import make_teacher

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "synthesis"))
from fake_server import FakeServer

NUM_REQUESTS = 100_000
NUM_WARM_UP = 10_000
SAMPLE_EVERY = 1_000
PART_ROWS = 10_000
SEED_LINES = 40  # 2 kB


class Watched:
    """A teacher that notes seconds, seconds of the processor and memory every `SAMPLE_EVERY`."""

    def __init__(self, teacher: Teacher) -> None:
        self.name, self.mode, self.fingerprint = teacher.name, teacher.mode, teacher.fingerprint
        self.seen: list[tuple[float, float, int]] = []
        self._teacher = teacher

    def answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for num_answered, answer in enumerate(self._teacher.answers(requests), 1):
            if num_answered % SAMPLE_EVERY == 0:
                memory = psutil.Process().memory_info().rss
                self.seen.append((time.monotonic(), time.process_time(), memory))
            yield answer


def write_seeds(folder: str, num_seeds: int) -> None:
    for start in range(0, num_seeds, PART_ROWS):
        numbers = range(start, min(start + PART_ROWS, num_seeds))
        table = {
            "id": [f"{i:032x}" for i in numbers],
            "repo": [f"owner/project{i % 997}" for i in numbers],
            "path": [f"src/part{i}.py" for i in numbers],
            "language": ["Python"] * len(numbers),
            "license": ["MIT"] * len(numbers),
            "score": [0.9] * len(numbers),
            "draw": pa.array(numbers, pa.uint64()),
            "text": [_text(i) for i in numbers],
        }
        pq.write_table(pa.table(table), f"{folder}/part-{start // PART_ROWS:05d}.parquet")


def _text(number: int) -> str:
    lines = (f"value_{number}_{i} = compute({i}, {number}) + offset\n" for i in range(SEED_LINES))
    return "".join(lines)


def measure(folder: str, num_requests: int) -> dict[str, Any]:
    seeds = f"{folder}/seeds"
    Path(seeds).mkdir()
    write_seeds(seeds, NUM_WARM_UP + num_requests)
    with FakeServer() as server:
        settings = ServerTeacher("fake", (server.url,))
        synthesis = Synthesis(teacher=settings, seeds="best")
        ask = Ask(synthesis, 0, "teacher", seeds, f"{folder}/answers")
        teacher = Watched(make_teacher(ask))
        facts = runner.ask_all(ask, teacher)
    assert facts["answered"] == NUM_WARM_UP + num_requests, facts
    seen = np.array(teacher.seen[NUM_WARM_UP // SAMPLE_EVERY - 1 :])
    seconds, processor_seconds, memory = (seen - seen[0]).T
    growth = np.polyfit(np.arange(len(seen)) * SAMPLE_EVERY, memory, 1)[0]
    return {
        "num_requests": num_requests,
        "milliseconds_per_request": round(1e3 * float(seconds[-1]) / num_requests, 3),
        "processor_milliseconds_per_request": round(
            1e3 * float(processor_seconds[-1]) / num_requests, 3
        ),
        "bytes_per_request": round(float(growth), 1),
        "resident_megabytes": round(float(seen[:, 2].max()) / 1e6, 1),
    }


def main() -> None:
    num_requests = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_REQUESTS
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(folder, num_requests)))


if __name__ == "__main__":
    main()
