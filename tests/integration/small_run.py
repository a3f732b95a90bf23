"""The local recipe, shrunken to run in under a minute on a folder of standard-library code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

REPOSITORIES = {
    "json": "json",
    "email": "email",
    "html": "html",
    "http": "http",
    "logging": "logging",
    "urllib": "urllib",
    "xml": "xml",
    "unittest": "unittest",
    "asyncio": "asyncio",
    "importlib": "importlib",
    "headers": None,
}

SHRINK = (
    "model.hidden_dim=64",
    "model.mlp_dim=128",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.num_kv_heads=2",
    "model.head_dim=32",
    "model.max_sequence_length=128",
    "tokenizer.vocab_size=512",
    "tokenizer.sample_bytes=400000",
    "corpus.num_shards=2",
    "corpus.heldout_share=0.25",
    "annotator.window_tokens=32",
    "annotator.num_sections=2",
    "annotator.num_negatives=30",
    "annotator.epochs=3",
    "annotator.max_files=40",
    "selections.best.tokens=6000",
    "selections.random.tokens=6000",
    "phases.general.tokens=40960",
    "phases.continued.tokens=24576",
    "phases.enhanced.tokens=4096",
    *(
        f"phases.{phase}.{setting}"
        for phase in ("general", "continued", "enhanced")
        for setting in ("sequence_length=128", "checkpoint_every_steps=8")
    ),
    "phases.general.schedule.warmup_steps=2",
    "phases.continued.schedule.warmup_steps=2",
    "phases.enhanced.schedule.warmup_steps=1",
    "synthesis.num_seeds=12",
    "synthesis.head_tokens=40",
    "synthesis.max_new_tokens=80",
    # A model of this size writes little that parses: what is tested here is the way through.
    "synthesis.min_new_tokens=1",
    "synthesis.temperature=1.0",
    "synthesis.top_p=1.0",
    "evaluation.max_heldout_bytes=20000",
    "evaluation.min_language_bytes=1000",
    "evaluation.max_new_tokens=16",
    "evaluation.bootstrap_samples=50",
)


def make_sources(folder: Path) -> Path:
    """Repositories of real code, with a licence, and some C beside the Python."""
    standard_library = Path(sysconfig.get_paths()["stdlib"])
    for name, package in REPOSITORIES.items():
        target = folder / name
        if package is None:
            headers = sorted(Path(sysconfig.get_paths()["include"]).glob("*.h"))[:30]
            target.mkdir(parents=True)
            for header in headers:
                shutil.copy(header, target)
        else:
            ignore = shutil.ignore_patterns("__pycache__", "test*")
            shutil.copytree(standard_library / package, target, ignore=ignore)
    return folder


def command(sources: Path, output: Path, *more: str, verb: str = "run") -> list[str]:
    source = f"sources=[{{name: code, kind: folder, path: {sources}, license: PSF-2.0}}]"
    return [
        sys.executable,
        "-m",
        "snowcoder_jax.cli",
        verb,
        str(ROOT / "configs/local.yaml"),
        source,
        f"output={output}",
        *SHRINK,
        *more,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=280
    )


def kill_when(arguments: list[str], step: str, after_seconds: float) -> str:
    """Start a run, wait for `step` to begin, and SIGKILL it a little later; returns its log."""
    process = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.rstrip().endswith(f"] {step}"):
            time.sleep(after_seconds)
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stderr.close()
    return "".join(lines)
