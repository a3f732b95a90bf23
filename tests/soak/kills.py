"""Kill a small run at random moments until it is done; it must end like one that was not killed.

Usage: bash launch/soak.sh kills [NUM_KILLS] [SEED]. Prints one JSON line.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))

import small_run


def outcome(output: Path) -> dict[str, object]:
    """What must not depend on kills: losses, packed bytes, evaluation."""
    rows = (output / "runs/local/metrics.jsonl").read_text().splitlines()
    report = json.loads((output / "runs/local/report.json").read_text())
    return {
        "losses": [(r["phase"], r["step"], r["loss"]) for r in map(json.loads, rows)],
        "packed": {
            path.parent.name: json.loads(path.read_text())["shards"]
            for path in sorted(output.glob("packed/*/packed.json"))
        },
        "heldout": {n: p["heldout_bits_per_byte"] for n, p in report["phases"].items()},
    }


def main() -> None:
    num_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        sources = small_run.make_sources(Path(folder) / "sources")
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        start = time.monotonic()
        subprocess.run(small_run.command(sources, whole), check=True, env=small_run.environment())
        whole_seconds = time.monotonic() - start
        kills = []
        while True:
            process = subprocess.Popen(
                small_run.command(sources, killed), env=small_run.environment()
            )
            # The imports take 2 s, compiling the step 5 s: most of these kills fall within a step,
            # and some run long enough to get further.
            wait_seconds = chance.uniform(2.5, 8.0)
            try:
                process.wait(wait_seconds if len(kills) < num_kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills.append(round(wait_seconds, 1))
                continue
            if process.returncode != 0:
                sys.exit(f"a run that was not killed ended with {process.returncode}")
            break
        same = {name: outcome(killed)[name] == outcome(whole)[name] for name in outcome(whole)}
        print(
            json.dumps(
                {
                    "kills": len(kills),
                    "seconds_before_each_kill": kills,
                    "uninterrupted_seconds": round(whole_seconds, 1),
                    "same": same,
                }
            )
        )
        sys.exit(0 if all(same.values()) else 1)


if __name__ == "__main__":
    main()
