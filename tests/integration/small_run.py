"""The local recipe, shrunken to run in under a minute on a folder of standard-library code."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from keyword import iskeyword
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

PACKAGES = ("json", "email", "html", "http", "logging", "urllib", "unittest", "importlib")

# A model of this size learns to write whole statements only if most of them are this simple.
NUM_SETTINGS_FILES, NUM_SETTINGS_LINES = 300, 60

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
    "selections.best.tokens=20000",
    "selections.random.tokens=20000",
    "phases.general.tokens=102400",
    "phases.continued.tokens=24576",
    "phases.enhanced.tokens=4096",
    *(
        f"phases.{phase}.{setting}"
        for phase in ("general", "continued", "enhanced")
        for setting in ("sequence_length=128", "checkpoint_every_steps=8")
    ),
    "phases.general.schedule.warmup_steps=8",
    "phases.continued.schedule.warmup_steps=2",
    "phases.enhanced.schedule.warmup_steps=1",
    "synthesis.seeds=corpus",
    "synthesis.num_seeds=160",
    "synthesis.head_tokens=40",
    "synthesis.max_new_tokens=80",
    "synthesis.min_new_tokens=8",
    "evaluation.max_heldout_bytes=20000",
    "evaluation.min_language_bytes=1000",
    "evaluation.max_new_tokens=16",
    "evaluation.bootstrap_samples=50",
)


def make_sources(folder: Path) -> Path:
    """Repositories of real code, with a licence, and some C beside the Python."""
    standard_library = Path(sysconfig.get_paths()["stdlib"])
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__", "test*")
        shutil.copytree(standard_library / package, folder / package, ignore=ignore)
    (folder / "headers").mkdir()
    for header in sorted(Path(sysconfig.get_paths()["include"]).glob("*.h"))[:30]:
        shutil.copy(header, folder / "headers")
    (folder / "settings").mkdir()
    chance = random.Random(0)
    words = [w for w in sorted(sys.stdlib_module_names) if w.isalpha() and not iskeyword(w)]
    for number in range(NUM_SETTINGS_FILES):
        lines = [
            f"{chance.choice(words)}_{chance.choice(words)} = {chance.randrange(100)}\n"
            for _ in range(NUM_SETTINGS_LINES)
        ]
        (folder / "settings" / f"settings_{number}.py").write_text("".join(lines))
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


def signal_when(
    arguments: list[str], step: str, ready: Callable[[], bool], sent: signal.Signals
) -> tuple[int, str]:
    """Start a run, wait for `step` to begin and for `ready`, send it a signal.

    Returns:
      Its exit code and its log.
    """
    process = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.rstrip().endswith(f"] {step}"):
            while not ready() and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(sent)
            break
    lines += process.stderr.readlines()
    process.stderr.close()
    return process.wait(), "".join(lines)
