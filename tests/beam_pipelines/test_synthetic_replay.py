"""Seeds, acceptance and the stages after it on Dataflow, as far as that can be had here.

As `test_replay.py` does for the corpus: storage is emulated and jobs are replayed from what was
staged. The teacher's servers are asked by the launching machine.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import small_cloud
import yaml
from fake_server import FakeServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

STAGES = ("rules", "contamination", "duplicates", "secrets", "select", "tokens")


def make_recipe(folder: Path, sources: str, url: str) -> Path:
    path = small_cloud.make_recipe(folder, sources)
    recipe = yaml.safe_load(path.read_text())
    recipe["selections"] += [
        {"name": "all", "order": "natural"},
        {"name": "synthetic", "source": "synthetic", "order": "natural"},
    ]
    recipe["phases"].append(
        {
            **recipe["phases"][0],
            "name": "enhanced",
            "starts_from": "general",
            "data": [{"selection": "synthetic"}],
        }
    )
    recipe["synthesis"] = {
        "teacher": {"kind": "server", "model": "fake", "urls": [url]},
        "seeds": "all",
        "num_seeds": 24,
        "max_seed_bytes": 1500,
        "min_new_tokens": 4,
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def commands(recipe: Path, *arguments: str) -> list[list[str]]:
    fields = [a for a in arguments if not a.startswith("--")]
    options = ", ".join(a for a in arguments if a.startswith("--"))
    snowcoder = [sys.executable, "-m", "snowcoder_jax.cli", "synthesize", str(recipe), *fields]
    return [
        [*snowcoder, f"hardware.beam_options=[{options}]"],
        *(
            [sys.executable, "-m", f"beam_pipelines.{stage}", str(recipe), *arguments]
            for stage in STAGES
        ),
    ]


def synthetic(files: dict[str, bytes]) -> dict[str, bytes]:
    """The tables of seeds, of the synthetic corpus and of its stages, by path."""
    pattern = re.compile(r"(^|/)synthetic/.*part-\d+\.parquet$")
    return {path: data for path, data in files.items() if pattern.search(path)}


def test_jobs_replayed_on_a_bucket_write_the_bytes_of_one_process(tmp_path: Path) -> None:
    sources = small_cloud.make_sources(tmp_path / "sources")
    with small_cloud.emulated_storage() as storage, FakeServer(log=tmp_path / "log") as server:
        bucket = small_cloud.Bucket(storage)
        for path in sources.rglob("*.py"):
            bucket.write(f"sources/{path.relative_to(sources)}", path.read_bytes())
        recipe = make_recipe(tmp_path, "gs://bucket/sources", server.url)
        for command in commands(recipe, f"output={tmp_path}/one"):
            small_cloud.run(command, **storage)
        one = tmp_path / "one"
        written = {str(p.relative_to(one)): p for p in one.rglob("*") if p.is_file()}
        expected = synthetic({path: p.read_bytes() for path, p in written.items()})
        stages = {
            path.split("/attributes/")[1].split("-")[0] for path in expected if "/att" in path
        }
        assert stages > {"rules", "contamination", "duplicates", "secrets", "policy", "tokens"}
        assert len(server.asked()) == 24
        (tmp_path / "cloud").mkdir()
        with small_cloud.emulated_dataflow(tmp_path / "cloud", storage) as options:
            for command in commands(recipe, "output=gs://bucket/run", *options):
                small_cloud.run(command, **storage)
        assert len(server.asked()) == 48
        assert synthetic(bucket.files("run")) == expected
