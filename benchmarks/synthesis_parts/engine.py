"""Tokens a second of vLLM through the runner, and of a bare loop around the same engine.

    python -m synthesis_parts.engine MODEL TOKENIZER

One engine serves both, in turns, each first as often as the other; its prefix cache is emptied
before every run. The bare loop hands over all prompts and steps until they are done, as
`vllm.LLM.generate` does; the runner reads seeds, makes prompts and stores every answer. Where there
are two cores or more, this process has one for itself and vLLM's processes have the others. No
answer ends before its 256th token. Prints one JSON object, seconds included.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax.recipe_synthesis import Synthesis, VllmTeacher
from snowcoder_jax.synthesis import prompts, runner, seed_parts
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.requests import Request
from snowcoder_jax.synthesis.teachers.vllm_engine import VllmEngine

NUM_PROMPTS = 256
NUM_NEW_TOKENS = 256
NUM_ROUNDS = 5
# A round that was not measured fills caches and warms the allocator.
NUM_WARM_UP = 1


class EndlessEngine(VllmEngine):
    """Goes on after the token that ends a text, so that every answer has the same length."""

    def _sampling_params(self, request: Request) -> Any:
        params = super()._sampling_params(request)
        params.ignore_eos, params.stop_token_ids = True, []
        return params

    def bare(self, requests: list[Request]) -> int:
        """The tokens written for all requests, given to the engine at once."""
        for request in requests:
            params = self._sampling_params(request)
            self._engine.add_request(request.key, request.prompt, params)
        num_tokens = 0
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                num_tokens += len(output.outputs[0].token_ids)
        return num_tokens

    def forget(self) -> None:
        self._engine.reset_prefix_cache()


def share_cores() -> None:
    """One core for this process, the others for vLLM's."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return
    for child in psutil.Process().children(recursive=True):
        for thread in child.threads():
            os.sched_setaffinity(thread.id, cores[1:])
    for thread in psutil.Process().threads():
        os.sched_setaffinity(thread.id, cores[:1])


def write_seeds(folder: str) -> None:
    numbers = range(NUM_PROMPTS)
    table = {
        "id": [f"{i:032x}" for i in numbers],
        "repo": [f"owner/project{i % 97}" for i in numbers],
        "path": [f"src/part{i}.py" for i in numbers],
        "language": ["Python"] * NUM_PROMPTS,
        "license": ["MIT"] * NUM_PROMPTS,
        "score": [0.9] * NUM_PROMPTS,
        "draw": pa.array(numbers, pa.uint64()),
        "text": [f"def part_{i}(a, b):\n    return a + b * {i}\n" * 40 for i in numbers],
    }
    os.makedirs(folder)
    pq.write_table(pa.table(table), f"{folder}/part-00000.parquet")


def measure(folder: str, model: str, tokenizer: str) -> dict[str, Any]:
    seeds = f"{folder}/seeds"
    write_seeds(seeds)
    settings = VllmTeacher(model, mode="completion", dtype="float32")
    synthesis = Synthesis(settings, seeds="best", max_new_tokens=NUM_NEW_TOKENS)
    teacher = EndlessEngine(settings, name="tiny", fingerprint="tiny")
    share_cores()
    num_tokens = NUM_PROMPTS * NUM_NEW_TOKENS

    def ask_to(name: str) -> Ask:
        return Ask(synthesis, 0, "tiny", seeds, f"{folder}/{name}", tokenizer)

    def run_bare(name: str) -> None:
        requests = list(prompts.requests(ask_to(name), seed_parts.read_seeds(seeds)))
        assert teacher.bare(requests) == num_tokens

    def run_runner(name: str) -> None:
        facts = runner.ask_all(ask_to(name), teacher, say=lambda line: None)
        assert facts["spent"]["new_tokens"] == num_tokens, facts

    seconds: dict[str, list[float]] = {"bare": [], "runner": []}
    for number in range(NUM_WARM_UP + NUM_ROUNDS):
        sides = [("bare", run_bare), ("runner", run_runner)]
        for side, run in sides if number % 2 else reversed(sides):
            teacher.forget()
            started = time.perf_counter()
            run(f"{side}{number}")
            if number >= NUM_WARM_UP:
                seconds[side].append(time.perf_counter() - started)
    teacher.close()
    ratios = [b / r for b, r in zip(seconds["bare"], seconds["runner"], strict=True)]
    return {
        "throughput_ratio_vs_bare_engine": round(statistics.median(ratios), 3),
        "throughput_ratios": [round(ratio, 3) for ratio in ratios],
        "num_prompts": NUM_PROMPTS,
        "num_new_tokens": NUM_NEW_TOKENS,
        "bare_tokens_per_second": round(num_tokens / statistics.median(seconds["bare"])),
        "runner_tokens_per_second": round(num_tokens / statistics.median(seconds["runner"])),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        facts = measure(folder, *map(str, map(Path, sys.argv[1:3])))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
