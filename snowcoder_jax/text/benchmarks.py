"""Benchmark files: what is named by a path, and the prompts and solutions they hold.

Formats: HumanEval, EvalPlus, EvoEval and HumanEval-X (prompt, canonical_solution; declaration,
text), MBPP (text, code; sanitized and MBPP+: prompt, code), BigCodeBench (complete_prompt,
instruct_prompt, code_prompt, canonical_solution), our own problems (prompt, solution). As JSON
lines or a JSON list, either with `.gz`, or Parquet of the same fields. Tests are not read: a
training document may test a function of the same name.
"""

from __future__ import annotations

import glob
import gzip
import importlib.resources
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError

SHIPPED = "shipped"
FIELD = "corpus.contamination.benchmarks"
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
MEND = f"Name whole files, or folders or globs of them, in one of {', '.join(SUFFIXES)}."

_PROMPTS = ("prompt", "complete_prompt", "instruct_prompt", "text")
_SOLUTIONS = ("canonical_solution", "code", "solution")
# What a solution follows to make a whole program: without a description where there is one.
_SIGNATURES = ("code_prompt", "declaration")
_HEADS = ("prompt", "complete_prompt")
_ITEMS = ("task_id", "name")
# RecursionError: JSON that is nested without an end.
_UNREADABLE = (ValueError, EOFError, OSError, RecursionError, zlib.error, pa.ArrowException)
_FIELDS = {*_PROMPTS, *_SOLUTIONS, *_SIGNATURES, *_HEADS, *_ITEMS}


@dataclass(frozen=True)
class Reference:
    """What no document may hold of a benchmark's item.

    A `program` is a solution below what it completes: a short one is known by its signature.
    """

    benchmark: str
    item: str
    text: str
    part: Literal["prompt", "solution", "program"] = "prompt"


def expand(paths: Iterable[str]) -> list[str]:
    """The files that `paths` name: each a file, a folder (its files in a known format) or a glob.

    Raises:
      InputError: some name nothing; all of them are told.
    """
    files, problems = _find(paths)
    if problems:
        raise _fault(problems)
    return files


def problems(paths: Iterable[str]) -> list[str]:
    """One line for each path that names nothing, and for each file that cannot be read."""
    return _load(paths)[1]


def _find(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """The files that paths name, each once, and a line for each path that names none."""
    files_of = {path: _files_of(path) for path in paths}
    files = dict.fromkeys(file for files in files_of.values() for file in files)
    return list(files), [_nothing_at(path) for path, files in files_of.items() if not files]


def _fault(problems: Iterable[str]) -> InputError:
    return InputError("\n".join((*(f"{FIELD}: {problem}" for problem in problems), MEND)))


def _nothing_at(path: str) -> str:
    held = "holds no file in a known format" if storage.exists(path) else "does not exist"
    return f"{path} {held}"


def _files_of(path: str) -> list[str]:
    if not storage.exists(path):
        return _matching(path) if glob.has_magic(path) else []
    inside = [f for f in storage.list_files(path) if f.endswith(SUFFIXES)]
    is_file = not inside and (not storage.is_local(path) or os.path.isfile(path))
    return [path] if is_file else inside


def _matching(pattern: str) -> list[str]:
    if storage.is_local(pattern):
        return [f for f in storage.matches(pattern) if os.path.isfile(f)]
    fs, inner = fsspec.core.url_to_fs(pattern)
    return sorted(fs.unstrip_protocol(f) for f in fs.glob(inner))


def shipped_references() -> list[Reference]:
    """Prompts and solutions of the evaluation problems that the package carries."""
    folder = importlib.resources.files("snowcoder_jax") / "problems" / "evaluation"
    references: list[Reference] = []
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith((".yaml", ".yml")):
            record = yaml.safe_load(file.read_text(encoding="utf-8"))
            references += _references(SHIPPED, record)
    return references


def read_benchmarks(paths: Sequence[str]) -> list[Reference]:
    """References of benchmark files, folders and globs; a benchmark is named after its file.

    Raises:
      InputError: files are missing, broken, or their records have no known fields; all are told.
    """
    references, problems = _load(paths)
    if problems:
        raise _fault(problems)
    return references


def _load(paths: Iterable[str]) -> tuple[list[Reference], list[str]]:
    """The references, and a line for each path or file of which there are none."""
    files, problems = _find(paths)
    references: list[Reference] = []
    for path in files:
        benchmark = os.path.basename(path).split(".")[0]
        try:
            for record in _records(path):
                references += _references(benchmark, record)
        except _UNREADABLE as e:
            problems.append(f"{path} cannot be read ({e})")
    return references, problems


def _records(path: str) -> Iterator[Any]:
    data = storage.read_bytes(path)
    if path.endswith(".gz"):
        data = gzip.decompress(data)
    if path.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(data))
        known = [n for n in table.column_names if n in _FIELDS]
        yield from table.select(known).to_pylist()
    elif ".jsonl" in os.path.basename(path):
        yield from (json.loads(line) for line in data.splitlines() if line.strip())
    else:
        loaded = json.loads(data)
        if not isinstance(loaded, list):
            raise ValueError("holds no list")
        yield from loaded


def _references(benchmark: str, record: Any) -> Iterator[Reference]:
    fields = record if isinstance(record, dict) else {}

    def texts(names: Sequence[str]) -> list[str]:
        values = (fields.get(name) for name in names)
        return [value for value in values if isinstance(value, str) and value.strip()]

    prompts, solutions = texts(_PROMPTS), texts(_SOLUTIONS)
    if not prompts and not solutions:
        raise ValueError(f"a record has none of the fields {', '.join((*_PROMPTS, *_SOLUTIONS))}")
    item = next((str(fields[name]) for name in _ITEMS if name in fields), "?")
    yield from (Reference(benchmark, item, text, "prompt") for text in prompts)
    yield from (Reference(benchmark, item, text, "solution") for text in solutions)
    for head in texts(_SIGNATURES) or texts(_HEADS):
        yield from (Reference(benchmark, item, head + text, "program") for text in solutions)
