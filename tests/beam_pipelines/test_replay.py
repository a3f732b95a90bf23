"""The corpus stages as Dataflow would run them: what is staged is all that a worker has.

Covered: the whole way from `--runner=DataflowRunner` to packed shards on gs://, with the storage
emulated and the service replaced by `dataflow_double.py`. What that leaves open is told in
docs/dataflow.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_cloud

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def storage() -> Iterator[dict[str, str]]:
    with small_cloud.emulated_storage() as environment:
        yield environment


@pytest.fixture(scope="module")
def recipe(storage: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    sources = small_cloud.make_sources(folder / "sources")
    bucket = small_cloud.Bucket(storage)
    for path in sources.rglob("*.py"):
        bucket.write(f"sources/{path.relative_to(sources)}", path.read_bytes())
    return small_cloud.make_recipe(folder, "gs://bucket/sources")


@pytest.fixture(scope="module")
def in_one_process(
    recipe: Path, storage: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("one")
    for command in small_cloud.corpus_commands(recipe, f"output={output}"):
        small_cloud.run(command, **storage)
    files = small_cloud.local_files(output)
    stages = {path.split("/")[3].split("-")[0] for path in files if "/attributes/" in path}
    assert stages == {"rules", "duplicates", "contamination", "secrets", "policy", "tokens"}
    assert len(small_cloud.packed_shards(files)) > 1
    return files


def test_two_worker_processes_write_the_same_bytes_to_a_bucket(
    recipe: Path, storage: dict[str, str], in_one_process: dict[str, bytes]
) -> None:
    more = ("output=gs://bucket/two", "hardware.beam_workers=2")
    for command in small_cloud.corpus_commands(recipe, *more):
        small_cloud.run(command, **storage)
    bucket = small_cloud.Bucket(storage)
    assert small_cloud.stage_files(bucket.files("two")) == in_one_process


def test_jobs_replayed_from_what_was_staged_write_the_same_bytes(
    recipe: Path, storage: dict[str, str], in_one_process: dict[str, bytes], tmp_path: Path
) -> None:
    with small_cloud.emulated_dataflow(tmp_path, storage) as options:
        for command in small_cloud.corpus_commands(recipe, "output=gs://bucket/run", *options):
            small_cloud.run(command, **storage)
    jobs = [json.loads(job.read_text()) for job in (tmp_path / "jobs").glob("job-*.json")]
    # At least one for each stage, and two for a selection: ranks first, marks then.
    assert len(jobs) >= 10
    assert {job["currentState"] for job in jobs} == {"JOB_STATE_DONE"}
    bucket = small_cloud.Bucket(storage)
    assert small_cloud.stage_files(bucket.files("run")) == in_one_process


def test_five_kills_change_no_byte() -> None:
    script = small_cloud.ROOT / "tests/soak/corpus_kills.py"
    result = subprocess.run(
        [sys.executable, script, "5"], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout)["kills"] == 5
