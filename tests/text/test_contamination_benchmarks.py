"""Benchmark files of every format are read, and faulty ones named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from snowcoder_jax import preflight
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import load_recipe
from snowcoder_jax.text import benchmarks, contamination
from snowcoder_jax.text.benchmarks import expand, read_benchmarks

FIXTURES = Path(__file__).parents[1] / "fixtures" / "benchmarks"


def parts(path: Path | str) -> set[tuple[str, str]]:
    return {(r.part, r.text) for r in read_benchmarks([str(path)])}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (  # HumanEval, EvalPlus, EvoEval
            {"prompt": "p:", "canonical_solution": "s", "test": "t", "base_input": [[1]]},
            {("prompt", "p:"), ("solution", "s"), ("program", "p:s")},
        ),
        (  # MBPP
            {"text": "p", "code": "s", "test_list": ["assert f(1) == 2"]},
            {("prompt", "p"), ("solution", "s")},
        ),
        (  # BigCodeBench
            {
                "complete_prompt": "c",
                "instruct_prompt": "i",
                "code_prompt": "h:",
                "canonical_solution": "s",
                "test": "t",
            },
            {("prompt", "c"), ("prompt", "i"), ("solution", "s"), ("program", "h:s")},
        ),
        (  # HumanEval-X
            {"prompt": "p", "declaration": "d:", "canonical_solution": "s", "text": "t"},
            {("prompt", "p"), ("prompt", "t"), ("solution", "s"), ("program", "d:s")},
        ),
        (
            {"prompt": "p:", "declaration": "", "solution": "s"},
            {("prompt", "p:"), ("solution", "s"), ("program", "p:s")},
        ),
        ({"prompt": None, "code": "s"}, {("solution", "s")}),
    ],
)
def test_fields_of_every_format(
    tmp_path: Path, record: dict[str, object], expected: set[tuple[str, str]]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"task_id": 7, **record}))
    assert parts(path) == expected
    assert {(r.benchmark, r.item) for r in read_benchmarks([str(path)])} == {("a", "7")}


def test_every_container_holds_the_same(tmp_path: Path) -> None:
    records = [{"task_id": i, "prompt": f"p {i}", "code": f"s {i}"} for i in range(3)]
    lines = "\n".join(map(json.dumps, records)).encode()
    (tmp_path / "a.jsonl").write_bytes(lines + b"\n\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.json").write_text(json.dumps(records))
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(json.dumps(records).encode()))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "e.v1.parquet")
    found = read_benchmarks([str(tmp_path)])
    assert {r.benchmark for r in found} == set("abcde")
    for name in "bcde":
        of_file = [(r.item, r.text, r.part) for r in found if r.benchmark == name]
        assert of_file == [(r.item, r.text, r.part) for r in found if r.benchmark == "a"]


def test_a_path_is_a_file_a_folder_or_a_glob(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.json", "sub/c.jsonl.gz", "notes.txt", "d[1].jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    a, b, c, d = (str(tmp_path / n) for n in ("a.json", "b.jsonl", "sub/c.jsonl.gz", "d[1].jsonl"))
    assert expand([str(tmp_path)]) == [a, b, d, c]
    assert expand([f"{tmp_path}/*.jsonl", a]) == [b, d, a]
    assert expand([f"{tmp_path}/**/*.jsonl*", b]) == [b, d, c]
    assert expand([d]) == [d]
    assert expand([]) == []


def test_paths_may_be_urls() -> None:
    with fsspec.open("memory://benchmarks/sub/a.jsonl", "wb") as f:
        f.write(b'{"prompt": "p"}')
    a = "memory://benchmarks/sub/a.jsonl"
    for path in ("memory://benchmarks", "memory://benchmarks/*/*.jsonl", a):
        # fsspec writes the root of its memory with or without a slash.
        assert [found.replace(":///", "://") for found in expand([path])] == [a]
        assert parts(path) == {("prompt", "p")}
        assert contamination.fingerprint([path]) == contamination.fingerprint([a])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b"{"),
        ("a.jsonl", b'{"other": 1}'),
        ("a.jsonl", b'{"prompt": " ", "code": 3}'),
        ("a.json", b"{}"),
        ("a.jsonl.gz", b"no gzip"),
        # Without a time: test processes have to agree on a case's name.
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "p"}', mtime=0)[:-9]),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20),
        ("a.json", b"[" * 100_000),
        ("a.jsonl", b"\xff\xfe"),
        ("a.jsonl", b"3"),
        ("a.parquet", b"PAR1"),
    ],
)
def test_faulty_file_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"contamination\.benchmarks.*" + name):
        read_benchmarks([str(tmp_path)])


def test_all_faulty_files_are_told_at_once_and_before_a_run(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.jsonl", "gone.jsonl", "b.json")]
    (tmp_path / "a.jsonl").write_text("{")
    (tmp_path / "b.json").write_text('{"other": 1}')
    with pytest.raises(InputError) as raised:
        read_benchmarks([*paths, str(FIXTURES)])
    problems = benchmarks.problems([*paths, str(FIXTURES)])
    assert len(problems) == 3
    assert all(problem in str(raised.value) for problem in problems)
    assert all(any(problem.startswith(path) for problem in problems) for path in paths)


def test_all_missing_paths_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    paths = [str(tmp_path / "gone.jsonl"), str(tmp_path / "empty"), f"{tmp_path}/*.jsonl"]
    for function in (read_benchmarks, expand, contamination.fingerprint):
        with pytest.raises(InputError) as raised:
            function([*paths, str(FIXTURES)])
        lines = str(raised.value).splitlines()
        assert [path in line for path, line in zip(paths, lines, strict=False)] == [True] * 3
        assert str(FIXTURES) not in str(raised.value)
        assert benchmarks.MEND in lines[-1]
    assert len(benchmarks.problems([*paths, str(FIXTURES)])) == 3


def test_folders_and_globs_pass_the_check_before_a_run(tmp_path: Path) -> None:
    config = str(Path(__file__).parents[2] / "configs" / "local.yaml")

    def faults(*paths: str) -> list[str]:
        named = f"corpus.contamination.benchmarks=[{', '.join(map(repr, paths))}]"
        return [str(fault) for fault in preflight._benchmarks(load_recipe(config, (named,)))]

    assert faults(str(FIXTURES), f"{FIXTURES}/*.jsonl", f"{FIXTURES}/mbpp.jsonl") == []
    found = faults(str(tmp_path), f"{FIXTURES}/*.jsonl", "gone.jsonl")
    assert len(found) == 2
    assert str(tmp_path) in found[0]
    assert "gone.jsonl does not exist" in found[1]
