"""What the synthesis runner costs: beside a bare engine, and by itself.

    bash launch/bench.sh synthesis

Two parts, each a process in vLLM's environment. `engine`: tokens a second of a tiny model through
the runner over those of a bare loop that gives the same engine all prompts at once. `requests`:
time and memory of 100,000 requests against a fake server. Prints each part, then one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE.parent), str(_HERE.parent / "tests" / "synthesis")]
from vllm_model import ENVIRONMENT, PYTHON, write_model  # noqa: E402


def run_part(part: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that `synthesis_parts.<part>` prints last."""
    paths = os.pathsep.join([str(_HERE), ENVIRONMENT["PYTHONPATH"]])
    command = [PYTHON, "-m", f"synthesis_parts.{part}", *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env={**ENVIRONMENT, "PYTHONPATH": paths}
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: ended with {done.returncode}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{part}: {json.dumps(facts)}", flush=True)
    return facts


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        # With a wider model less of the time would be ours.
        model = write_model(Path(folder) / "tiny")
        engine = run_part("engine", model, f"{model}.tokenizer")
    requests = run_part("requests")
    print(json.dumps({**engine, **requests}))


if __name__ == "__main__":
    main()
