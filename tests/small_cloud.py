"""A cloud on loopback: a storage emulator as `gs://bucket`, and a stand-in for Dataflow.

Both are processes of their own. `corpus_commands` are what a user types for the corpus stages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import gcsfs
import yaml
from dataflow_double import make_environment

ROOT = Path(__file__).parent.parent

RECIPE = {
    "name": "small",
    "seed": 3,
    "tokenizer": {"vocab_size": 400, "sample_bytes": 100_000},
    "corpus": {"num_shards": 3, "heldout_share": 0.1},
    "model": {
        "hidden_dim": 32,
        "mlp_dim": 64,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 2,
        "head_dim": 16,
        "max_sequence_length": 128,
    },
    "selections": [{"name": "some", "order": "random", "tokens": 60_000}],
    "phases": [
        {
            "name": "general",
            "tokens": 8_192,
            "batch_size": 8,
            "sequence_length": 128,
            "schedule": {"kind": "constant", "peak": 1.0e-3},
            "data": [{"selection": "some"}],
        }
    ],
}

PACKAGES = ("json", "email", "html", "logging", "urllib", "http", "xml", "concurrent", "sqlite3")


def make_recipe(folder: Path, sources: str) -> Path:
    path = folder / "recipe.yaml"
    source = {"name": "code", "kind": "folder", "path": sources, "license": "PSF-2.0"}
    path.write_text(yaml.safe_dump({**RECIPE, "sources": [source]}))
    return path


def make_sources(folder: Path) -> Path:
    """Repositories of real code; one file is in two of them, another nearly so."""
    standard_library = Path(sysconfig.get_paths()["stdlib"])
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(standard_library / package, folder / package, ignore=ignore)
    shutil.copy(folder / "json/decoder.py", folder / "html/copied.py")
    text = (folder / "json/encoder.py").read_text()
    (folder / "email/changed.py").write_text(text.replace("_make_iterencode", "_make_iterator"))
    return folder


def corpus_commands(recipe: Path, *arguments: str) -> list[list[str]]:
    """Everything up to packed shards; `arguments` change the recipe or are Beam's options."""
    fields = [a for a in arguments if not a.startswith("--")]
    options = ", ".join(a for a in arguments if a.startswith("--"))
    return [
        [
            *(sys.executable, "-m", "snowcoder_jax.cli", "select", str(recipe)),
            *(*fields, f"hardware.beam_options=[{options}]"),
        ],
        [sys.executable, "-m", "beam_pipelines.pack", str(recipe), *arguments],
    ]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **more}


def run(command: list[str], **more: str) -> str:
    """Run a command from the repository's root; returns what it says on stderr."""
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment(**more), cwd=ROOT, timeout=200
    )
    assert result.returncode == 0, result.stderr[-6000:]
    return result.stderr


@contextlib.contextmanager
def emulated_storage() -> Iterator[dict[str, str]]:
    """Start the emulator; yields the environment in which `gs://bucket` is its bucket."""
    port = _free_port()
    emulator = str(Path(__file__).parent / "storage_emulator.py")
    command = [sys.executable, emulator, "start", "--in-memory", "--quiet"]
    arguments = ["--host", "localhost", "--port", str(port), "--default-bucket", "bucket"]
    with _server([*command, *arguments], port, {}):
        yield {
            "STORAGE_EMULATOR_HOST": f"http://localhost:{port}",
            "FSSPEC_GS_TOKEN": "anon",
            # The same for TensorStore, which reads and writes checkpoints.
            "TENSORSTORE_GCS_HTTP_URL": f"http://localhost:{port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            # Asking what kind of bucket it is goes over gRPC, which the emulator does not speak.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }


@contextlib.contextmanager
def emulated_dataflow(folder: Path, storage: dict[str, str]) -> Iterator[list[str]]:
    """Start the double in an environment without this project; yields Beam's options for it."""
    wheel = make_wheel(folder / "wheel")
    clean = folder / "clean"
    site_packages = sysconfig.get_paths()["purelib"]
    make_environment(clean, site_packages)
    double = Path(__file__).parent / "dataflow_double.py"
    jobs = folder / "jobs"
    jobs.mkdir()
    port = _free_port()
    command = [str(clean / "bin/python"), str(double), str(port), str(jobs), site_packages]
    with _server(command, port, storage, cwd=jobs):
        yield [
            "--runner=DataflowRunner",
            "--project=some-project",
            "--region=us-central1",
            "--temp_location=gs://bucket/tmp",
            "--no_auth",
            f"--dataflow_endpoint=http://localhost:{port}",
            "--sdk_location=container",
            f"--extra_package={wheel}",
        ]


def make_wheel(folder: Path) -> Path:
    script = ["bash", str(ROOT / "launch/dataflow/prepare.sh")]
    more = {"PYTHON": sys.executable, "WHEELS": str(folder)}
    subprocess.run(script, check=True, env={**os.environ, **more}, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def _server(
    command: list[str], port: int, more: dict[str, str], cwd: Path = ROOT
) -> Iterator[None]:
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **more}
    env.pop("PYTHONPATH", None)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=env, cwd=cwd, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command} does not answer"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://localhost:{port}/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class Bucket:
    """`gs://bucket` as the tests see it."""

    def __init__(self, environment: dict[str, str]) -> None:
        endpoint = environment["STORAGE_EMULATOR_HOST"]
        self._fs = gcsfs.core.GCSFileSystem(
            token="anon", endpoint_url=endpoint, use_listings_cache=False
        )

    def write(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(f"bucket/{path}", data)

    def files(self, folder: str) -> dict[str, bytes]:
        """Every file below a folder, by its path there."""
        root = f"bucket/{folder}/"
        # One by one: the emulator lets no more than five requests wait.
        return {p.removeprefix(root): self._fs.cat_file(p) for p in self._fs.find(root)}


def local_files(folder: Path) -> dict[str, bytes]:
    """What the stages of a run wrote to a local folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return stage_files({str(path.relative_to(folder)): path.read_bytes() for path in paths})


def stage_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """Of a run's files, those that the stages wrote: no records of seconds, no run's own files."""
    return {
        path: data
        for path, data in files.items()
        if path.split("/")[0] in ("corpora", "tokenizers", "selections", "packed")
        and not path.endswith(("step.json", ".lock"))
    }


def packed_shards(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if path.endswith(".array_record")}
