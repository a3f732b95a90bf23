"""Kill the corpus stages at random moments until they are done; the bytes must be those of a run
that was not killed.

Usage: bash launch/soak.sh corpus_kills [NUM_KILLS] [SEED]. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import small_cloud

# How long after a command's first step began it is killed, at most: about what all steps take.
LATEST_SECONDS = 4.0


def killed(command: list[str], wait_seconds: float | None) -> bool:
    """Run a command; kill it and its children so long after its first step began.

    Returns:
      False where it came to its end before that (or `wait_seconds` is None).
    """
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=small_cloud.environment(),
        cwd=small_cloud.ROOT,
        start_new_session=True,
    )
    assert process.stderr is not None
    with process.stderr:
        log = []
        for line in process.stderr:
            log.append(line)
            if line.startswith("["):  # `[1/8] ingest`: the imports are over
                break
        try:
            process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        if process.returncode != 0:
            sys.exit("a run that was not killed failed:\n" + "".join([*log, *process.stderr]))
    return False


def main() -> None:
    num_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = small_cloud.make_recipe(folder, str(small_cloud.make_sources(folder / "sources")))
        whole, output = folder / "whole", folder / "killed"
        for command in small_cloud.corpus_commands(recipe, f"output={whole}"):
            small_cloud.run(command)
        expected = small_cloud.local_files(whole)
        commands = small_cloud.corpus_commands(recipe, f"output={output}")
        kills: list[float] = []
        num_runs = 0
        different: set[str] = set()
        while len(kills) < num_kills:
            shutil.rmtree(output, ignore_errors=True)
            left = list(commands)
            while left:
                wait_seconds = chance.uniform(0, LATEST_SECONDS) if len(kills) < num_kills else None
                if killed(left[0], wait_seconds):
                    kills.append(round(wait_seconds or 0.0, 2))
                else:
                    del left[0]
            num_runs += 1
            found = small_cloud.local_files(output)
            different |= {
                n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n)
            }
    facts = {
        "kills": len(kills),
        "seconds_from_first_step_to_kill": kills,
        "runs": num_runs,
        "files": len(expected),
        "different": sorted(different),
    }
    print(json.dumps(facts))
    sys.exit(1 if different or not small_cloud.packed_shards(expected) else 0)


if __name__ == "__main__":
    main()
