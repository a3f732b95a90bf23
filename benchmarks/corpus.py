"""The corpus stages against datatrove, and their speed, growth and memory by themselves.

Every side of every comparison is a process of its own, alternated; figures are medians, with the
time that the same process takes for one document (start-up) subtracted. Input: distinct files
installed in this environment, as Parquet. Prints both sides' raw figures, then one JSON object.

    bash launch/bench.sh corpus [datatrove | alone | workers | parts | beam | growth] ...
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import psutil
from corpus_parts import inputs
from corpus_parts.inputs import File

NUM_RUNS = 5
NUM_LONG_RUNS = 3  # of corpora large enough that start-up is a small part
NUM_STARTS = 2
MAX_DIFFERING = 0.01  # of the documents may pass one side's filters and not the other's
PEER_BYTES = 6_000_000
ALONE_BYTES = 30_000_000
WORKER_BYTES = 120_000_000
GROWTH = (1, 4, 16)
GROWTH_BYTES = 4_000_000  # of the smallest corpus
SMALL_DOCUMENT_LINES = 24
SMALL_DOCUMENTS = (64_000, 96_000)  # more than one sorted run of ingest, which is bounded


class Bench:
    """Runs one side on one input as a process, and remembers what start-up costs."""

    def __init__(self, folder: str, tokenizer: str) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self._count = 0

    def path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def run(self, side: str, source: str, *arguments: str) -> dict[str, Any]:
        """Seconds, peak memory of the process tree, and what the side printed."""
        self._count += 1
        output = self.path(f"output-{self._count}")
        module = f"corpus_parts.{side}"
        command = [sys.executable, "-m", module, source, self._tokenizer, output, *arguments]
        with open(self.path("log"), "w", encoding="utf-8") as log:
            start = time.monotonic()
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment()
            )
            printed, _ = process.communicate()
            seconds = time.monotonic() - start
        if process.returncode:
            with open(self.path("log"), encoding="utf-8") as log:
                sys.exit(
                    f"{' '.join(command)} failed ({process.returncode}):\n{log.read()[-3000:]}"
                )
        subprocess.run(["rm", "-rf", output], check=True)
        return {"seconds": seconds, **json.loads(printed.splitlines()[-1])}

    def alternate(
        self, sides: Mapping[str, Sequence[str]], sources: dict[str, str]
    ) -> dict[str, dict[str, Any]]:
        """Each side (name -> module and arguments) on its source, `NUM_RUNS` times in turn.

        Start-up is measured the same way, `NUM_STARTS` times, on the source `tiny`.
        """
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        starts: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(NUM_RUNS):
            for name, (side, *arguments) in sides.items():
                if number < NUM_STARTS:
                    starts[name].append(self.run(side, sources["tiny"], *arguments)["seconds"])
                runs[name].append(self.run(side, sources[name], *arguments))
        result = {}
        for name in sides:
            seconds = statistics.median(r["seconds"] for r in runs[name])
            start = statistics.median(starts[name])
            result[name] = {**runs[name][-1], "seconds": seconds - start, "start_seconds": start}
            print(f"  {name}: {seconds:.2f} s, of that start-up {start:.2f} s", flush=True)
        return result


def _environment() -> dict[str, str]:
    here = os.path.dirname(os.path.abspath(__file__))
    # One thread each, so that a worker is a core, on both sides.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
    threads |= {"TOKENIZERS_PARALLELISM": "false", "OMP_THREAD_LIMIT": "1"}
    return {**os.environ, **threads, "PYTHONPATH": here, "PYTHONHASHSEED": "0"}


def against_datatrove(bench: Bench, files: Sequence[File]) -> dict[str, float]:
    """The peer's job: filters, MinHash, tokens; one worker and two."""
    chosen = inputs.take_bytes(files, PEER_BYTES)
    num_bytes = sum(f.num_bytes for f in chosen)
    print(
        f"datatrove {version('datatrove')}, {inputs.NGRAM_WORDS}-grams, {inputs.BANDS} x "
        f"{inputs.ROWS}; {len(chosen)} distinct documents, {num_bytes / 1e6:.1f} MB"
    )
    figures: dict[str, float] = {}
    for workers in (1, 2):
        source = bench.path(f"peer-{workers}")
        inputs.write_parquet(chosen, source, workers)
        sides = {"ours": ("ours", str(workers), "tokens"), "datatrove": ("peer", str(workers))}
        sources = {"ours": source, "datatrove": source, "tiny": bench.path(f"tiny-{workers}")}
        result = bench.alternate(sides, sources)
        rates = {name: len(chosen) / side["seconds"] for name, side in result.items()}
        passed = {name: set(side["passed"]) for name, side in result.items()}
        differ = len(passed["ours"] ^ passed["datatrove"]) / len(chosen)
        print(
            f"  {workers} worker(s): ours {rates['ours']:.0f}, datatrove {rates['datatrove']:.0f} "
            f"documents/s; passed the filters {len(passed['ours'])} and "
            f"{len(passed['datatrove'])}, differing in {differ:.2%} of all documents; kept "
            f"{result['ours']['kept']} and {result['datatrove']['kept']}"
        )
        if differ > MAX_DIFFERING:
            sys.exit("the two sides do not do the same job: their filters disagree")
        name = f"datatrove_ratio_{workers}_worker" + ("s" if workers > 1 else "")
        figures[name] = rates["ours"] / rates["datatrove"]
    return figures


def alone(bench: Bench, files: Sequence[File]) -> dict[str, float]:
    """From Parquet to packed records on one core, without syntax trees and with them."""
    chosen = inputs.take_bytes(files, ALONE_BYTES)
    megabytes = sum(f.num_bytes for f in chosen) / 1e6
    print(f"from Parquet to records: {len(chosen)} distinct documents, {megabytes:.1f} MB")
    source = bench.path("alone")
    sides = {
        "records": ("ours", "1", "records"),
        "records, parsed": ("ours", "1", "records-parsed"),
    }
    sources = {**dict.fromkeys(sides, source), "tiny": bench.path("tiny-1")}
    result = bench.alternate(sides, sources)
    seconds = {name: side["seconds"] for name, side in result.items()}
    return {
        "megabytes_per_second_per_core": megabytes / seconds["records"],
        "megabytes_per_second_per_core_parsed": megabytes / seconds["records, parsed"],
    }


def two_workers(bench: Bench, files: Sequence[File]) -> dict[str, float]:
    """One worker process against two, on a corpus that is worth their start."""
    chosen = inputs.take_bytes(files, WORKER_BYTES)
    source = bench.path("workers")
    inputs.write_parquet(chosen, source, 4)
    runs: dict[str, list[float]] = {"1": [], "2": []}
    starts: dict[str, list[float]] = {"1": [], "2": []}
    for number in range(NUM_LONG_RUNS):
        for workers in runs:
            measured = [(runs, source)]
            if number < NUM_STARTS:
                measured.append((starts, bench.path("tiny-1")))
            for times, folder in measured:
                seconds = bench.run("ours", folder, workers, "records-even")["seconds"]
                times[workers].append(seconds)
    for workers in runs:
        print(
            f"  {sum(f.num_bytes for f in chosen) / 1e6:.0f} MB, {workers} worker(s): "
            f"{statistics.median(runs[workers]):.1f} s, of that start-up "
            f"{statistics.median(starts[workers]):.1f} s",
            flush=True,
        )
    alone, shared = (statistics.median(runs[w]) - statistics.median(starts[w]) for w in runs)
    return {"two_worker_gain": alone / shared}


def growth(bench: Bench, files: Sequence[File]) -> dict[str, float]:
    """Time over corpora of 1, 4 and 16 times the size, and memory over many small documents."""
    sources: dict[str, int] = {bench.path("tiny-1"): 0}
    rest = list(files)
    for factor in GROWTH:
        chosen = inputs.take_bytes(rest, factor * GROWTH_BYTES)
        rest = rest[len(chosen) :]  # distinct corpora, not each a part of the next
        source = bench.path(f"growth-{factor}")
        inputs.write_parquet(chosen, source, 4)
        sources[source] = sum(f.num_bytes for f in chosen)
    times: dict[str, list[float]] = {source: [] for source in sources}
    for _ in range(NUM_LONG_RUNS):
        for source, found in times.items():
            found.append(bench.run("ours", source, "1", "records")["seconds"])
    start, *seconds = (statistics.median(found) for found in times.values())
    points = [(n, s - start) for n, s in zip(list(sources.values())[1:], seconds, strict=True)]
    for num_bytes, taken in points:
        print(f"  {num_bytes / 1e6:.1f} MB: {taken:.2f} s", flush=True)
    memory = []
    small = list(_first(inputs.pieces(files, SMALL_DOCUMENT_LINES), max(SMALL_DOCUMENTS)))
    for count in SMALL_DOCUMENTS:
        source = bench.path(f"small-{count}")
        inputs.write_parquet(small[:count], source, 4)
        result = bench.run("ours", source, "1", "records-shipped")
        memory.append(result["peak_memory_bytes"])
        print(
            f"  {count} small documents: {result['seconds']:.1f} s, peak {memory[-1] / 1e6:.0f} MB",
            flush=True,
        )
    return {
        "growth_exponent": _slope(points),
        "bytes_per_added_document": (memory[1] - memory[0])
        / (SMALL_DOCUMENTS[1] - SMALL_DOCUMENTS[0]),
    }


def _first(items: Any, count: int) -> list[Any]:
    result = [item for _, item in zip(range(count), items, strict=False)]
    assert len(result) == count, f"only {len(result)} small documents"
    return result


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the least-squares line through (log x, log y)."""
    xs = [math.log(x) for x, _ in points]
    ys = [math.log(y) for _, y in points]
    return statistics.linear_regression(xs, ys).slope


def beam_overhead(bench: Bench) -> dict[str, float]:
    """The same functions through Beam and in a plain loop, alternated in one process."""
    seconds = bench.run("plain_loop", bench.path("alone"), str(NUM_RUNS))
    start = bench.run("plain_loop", bench.path("tiny-1"), str(NUM_RUNS))
    beam, loop = (
        statistics.median(seconds[name]) - statistics.median(start[name])
        for name in ("beam", "plain_loop")
    )
    print(
        f"  through Beam {beam:.2f} s, plain loop {loop:.2f} s; start-up "
        f"{statistics.median(start['beam']):.2f} and {statistics.median(start['plain_loop']):.2f} s"
    )
    return {"beam_overhead": beam / loop - 1}


def parts(bench: Bench) -> dict[str, float]:
    """Pure functions on one core."""
    result = bench.run("parts", bench.path("alone"), str(NUM_RUNS))
    return {name: value for name, value in result.items() if name != "seconds"}


def main() -> None:
    begin = time.monotonic()
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB"
    )
    print(f"machine: {machine}, Python {platform.python_version()}")
    files = inputs.installed_files()
    figures: dict[str, Any] = {"machine": machine}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = os.path.join(folder, "tokenizer")
        inputs.train_tokenizer(files, tokenizer)
        bench = Bench(folder, tokenizer)
        inputs.write_parquet(files[:1], bench.path("tiny-1"), 1)
        inputs.write_parquet(files[:2], bench.path("tiny-2"), 2)
        inputs.write_parquet(inputs.take_bytes(files, ALONE_BYTES), bench.path("alone"), 4)
        steps: dict[str, Callable[[], dict[str, float]]] = {
            "datatrove": lambda: against_datatrove(bench, files),
            "alone": lambda: alone(bench, files),
            "workers": lambda: two_workers(bench, files),
            "parts": lambda: parts(bench),
            "beam": lambda: beam_overhead(bench),
            "growth": lambda: growth(bench, files),
        }
        for name in sys.argv[1:] or steps:
            figures |= {key: round(value, 3) for key, value in steps[name]().items()}
    figures["benchmark_seconds"] = round(time.monotonic() - begin)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
