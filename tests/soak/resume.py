"""Kill training in several processes at random moments until it is done; it must have learnt what
an uninterrupted run learns, from the same sequences.

Usage: bash launch/soak.sh resume [NUM_KILLS] [SEED]. The first half of the kills falls on runs of
one layout (2 processes of 4 devices: equal bit for bit), the second on runs that change the number
of processes after each kill (1, 2 or 4, of 8 devices in all: the same sequences, losses within
1e-5). A quarter of the kills fall around the boundary between the two phases. Prints one JSON line.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))

import hosts
from tiny_training import write_records

LAYOUTS = ((1, 8), (2, 4), (4, 2))
PAUSE_SECONDS = 0.05
BOUNDARY = f"general {hosts.PHASES['general']}/"
MAX_LOSS_DIFFERENCE = 1e-5


def killed(run: hosts.Hosts, chance: random.Random, usual_seconds: float) -> str | None:
    """Kill a run somewhere; returns where, or None where it was done before."""
    at_boundary = chance.random() < 0.25
    seconds = chance.uniform(0, 1.5) if at_boundary else chance.uniform(0, usual_seconds)
    since = None if at_boundary else time.monotonic()
    while any(process.poll() is None for process in run.processes):
        if since is None and (BOUNDARY in run.texts()[0] or "continued" in run.texts()[0]):
            since = time.monotonic()
        if since is not None and time.monotonic() - since >= seconds:
            run.kill()
            return "boundary" if at_boundary else "anywhere"
        time.sleep(0.01)
    return None


def loss_difference(ours: Path, want: Path) -> float:
    """The largest, over all steps; infinite where the steps are not the same."""
    one, other = hosts.losses(ours), hosts.losses(want)
    if [line[:2] for line in one] != [line[:2] for line in other]:
        return float("inf")
    return max(abs(a[2] - b[2]) for a, b in zip(one, other, strict=True))


def main() -> None:
    num_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    chance = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    kills = {"anywhere": 0, "boundary": 0}
    equal_bits, equal_ids, differences = [], [], []
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        packed, cache = write_records(str(top / "packed"), 40).folder, top / "cache"
        straight = top / "straight"
        for _ in range(2):  # the second one finds everything compiled
            shutil.rmtree(straight, ignore_errors=True)
            started = time.monotonic()
            run = hosts.trained(straight, packed, 2, 4, PAUSE_SECONDS, cache=cache)
            if run.codes(300) != [0, 0]:
                sys.exit(run.output())
        usual_seconds = time.monotonic() - started
        num_runs = 0
        for changes_hosts, last_kill in ((False, num_kills // 2), (True, num_kills)):
            while sum(kills.values()) < last_kill:
                folder = top / f"run-{num_runs}"
                num_runs += 1
                for attempt in itertools.count():
                    layout = chance.choice(LAYOUTS) if changes_hosts else (2, 4)
                    run = hosts.trained(
                        folder, packed, *layout, PAUSE_SECONDS, f"{attempt:06d}", cache=cache
                    )
                    if sum(kills.values()) < last_kill:
                        where = killed(run, chance, usual_seconds)
                        if where is not None:
                            kills[where] += 1
                            continue
                    if any(run.codes(300)):
                        sys.exit(f"a run that was not killed failed:\n{run.output()}")
                    break
                if changes_hosts:
                    differences.append(loss_difference(folder, straight))
                else:
                    equal_bits.append(hosts.losses(folder) == hosts.losses(straight))
                equal_ids.append(hosts.sequence_ids(folder) == hosts.sequence_ids(straight))
        is_right = all(equal_bits) and all(equal_ids)
        is_right &= all(difference <= MAX_LOSS_DIFFERENCE for difference in differences)
        figures = {
            "kills": kills,
            "runs": num_runs,
            "bit_equal_at_one_layout": equal_bits,
            "loss_difference_with_other_hosts": differences,
            "same_sequences": equal_ids,
            "uninterrupted_seconds": round(usual_seconds, 1),
        }
        print(json.dumps(figures))
        sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
