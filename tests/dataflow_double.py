"""A stand-in for the Dataflow service on loopback: it runs what was submitted, and knows no more.

Usage: dataflow_double.py PORT FOLDER DEPENDENCIES, with a Python in which this project is not.
A submitted job is read back from where its launcher staged it: the pipeline, and the files that
workers are to install. Beam's FnApiRunner runs that pipeline; its workers are processes of a
virtual environment that holds DEPENDENCIES (a site-packages folder) and the staged files, nothing
else. The answer to the submission comes when the job has ended.
"""

from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import fsspec
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms import environments


def run_job(job: dict[str, Any], folder: Path, dependencies: str) -> None:
    """Run a job to its end; raises what its workers raise."""
    given = job["environment"]["sdkPipelineOptions"]["options"]
    # A protobuf struct has no whole numbers, and options that count take no others.
    given = {k: int(v) if isinstance(v, float) else v for k, v in given.items()}
    options = folder / f"options-of-{job['id']}"
    options.write_text(json.dumps({"options": given}))
    pipeline = beam_runner_api_pb2.Pipeline.FromString(read(given["pipelineUrl"]))
    for environment in pipeline.components.environments.values():
        python = worker_python(list(environment.dependencies), folder, dependencies)
        worker = environments.SubprocessSDKEnvironment.from_command_string(
            f"cd {folder / 'empty'} && PIPELINE_OPTIONS_FILE={options} exec {python} "
            "-m apache_beam.runners.worker.sdk_worker_main"
        )
        environment.CopyFrom(worker.to_runner_api(None))
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([]))


def read(url: str) -> bytes:
    with fsspec.open(url, "rb") as f:
        return bytes(f.read())


def worker_python(dependencies: list[Any], folder: Path, site_packages: str) -> Path:
    """An environment of workers, with the staged files installed as Beam's containers do it."""
    files = {}
    for dependency in dependencies:
        assert dependency.type_urn == common_urns.artifact_types.URL.urn, dependency
        payload = beam_runner_api_pb2.ArtifactUrlPayload.FromString(dependency.type_payload)
        role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(dependency.role_payload)
        files[role.staged_name] = read(payload.url)
    assert "pickled_main_session" not in files, "the launching module's globals were staged"
    digest = hashlib.sha256(b"".join(files.values())).hexdigest()[:16]
    environment = folder / f"worker-{digest}"
    python = environment / "bin" / "python"
    if not environment.exists():
        make_environment(environment, site_packages)
        staged = folder / f"staged-{digest}"
        staged.mkdir()
        for name, data in files.items():
            (staged / name).write_bytes(data)
        extra = files.get("extra_packages.txt", b"").decode().split()
        install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--ignore-installed",
        ]
        if extra:
            subprocess.run([python, *install, *(staged / name for name in extra)], check=True)
    return python


def make_environment(environment: Path, site_packages: str) -> None:
    """A virtual environment that sees the packages of another, but not what is editable there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A folder named in a .pth file is searched, but the .pth files in it are not read: what is
    # installed there as editable, such as this project, stays out of sight.
    own = environment / "lib" / version / "site-packages"
    (own / "dependencies.pth").write_text(site_packages + "\n")


class Service(http.server.BaseHTTPRequestHandler):
    """The two calls of the Dataflow API that a launcher makes: create a job, and ask for it."""

    folder: Path
    dependencies: str
    numbers = itertools.count()

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        job["id"] = f"job-{next(self.numbers)}"
        try:
            run_job(job, self.folder, self.dependencies)
            job["currentState"] = "JOB_STATE_DONE"
        except Exception:  # as the service: any error of a worker is a failed job
            traceback.print_exc()
            job["currentState"] = "JOB_STATE_FAILED"
        (self.folder / f"{job['id']}.json").write_text(json.dumps(job, indent=1))
        self.answer(job)

    def do_GET(self) -> None:
        job = self.path.split("/")[-1].split("?")[0]
        self.answer(json.loads((self.folder / f"{job}.json").read_text()) if job else {})

    def answer(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    port, folder, dependencies = sys.argv[1:]
    try:
        import snowcoder_jax
    except ImportError:
        pass
    else:
        sys.exit(f"the double sees the project, in {snowcoder_jax.__file__}")
    Service.folder, Service.dependencies = Path(folder), dependencies
    os.makedirs(Service.folder / "empty", exist_ok=True)
    http.server.ThreadingHTTPServer(("localhost", int(port)), Service).serve_forever()


if __name__ == "__main__":
    main()
