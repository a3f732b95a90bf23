"""The local run as a user has it: a fresh run, then the same command again.

Prints the report's main figures and the whole-process times as one JSON line.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any


def run_local(output: str) -> float:
    """Seconds of one whole `snowcoder run configs/local.yaml`."""
    start = time.monotonic()
    command = [sys.executable, "-m", "snowcoder_jax.cli", "run", "configs/local.yaml"]
    subprocess.run([*command, f"output={output}"], check=True)
    return time.monotonic() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as output:
        first_seconds = run_local(output)
        second_seconds = run_local(output)
        with open(os.path.join(output, "runs/local/report.json"), encoding="utf-8") as f:
            report: dict[str, Any] = json.load(f)
    phases = report["phases"]
    figures = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "first_run_seconds": round(first_seconds, 1),
        "second_run_seconds": round(second_seconds, 1),
        "peak_memory_bytes": report["peak_memory_bytes"],
        "heldout_bits_per_byte": {n: p["heldout_bits_per_byte"]["all"] for n, p in phases.items()},
        "solutions_bits_per_byte": {n: p["solutions_bits_per_byte"] for n, p in phases.items()},
        "ngram_bits_per_byte": report["baseline_bits_per_byte"]["all"],
        "control_difference": report["control"]["difference"],
        "tokens_per_second": {n: p["tokens_per_second"] for n, p in phases.items()},
        "annotator_auc": report["annotator"]["auc"],
        "synthesis_yield": report["synthesis"]["yield"],
        "seconds": report["seconds"],
    }
    print(json.dumps(figures))
    if figures["heldout_bits_per_byte"]["enhanced"] >= figures["ngram_bits_per_byte"]:
        sys.exit("the model is not below the byte n-gram on held-out code")


if __name__ == "__main__":
    main()
