"""`snowcoder plan` for each recipe on real topologies: the tables of docs/plan.md and RESULTS.md.

Usage: bash launch/bench.sh plan [TOPOLOGY ...]
Each row is a process of its own, with nothing cached; rows are printed as they come. The first
three are the settings of the figures to beat: two sequences (v5e: one) a chip, no accumulation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

# Recipe, topology, overrides.
ROWS = (
    ("1b3", "v5p:2x2x2", ("phases.general.batch_size=16",)),
    ("1b3", "v5p:4x4x4", ("phases.general.batch_size=128",)),
    ("1b3", "v5e:4x4", ("phases.general.batch_size=16",)),
    ("1b3", "v5p:2x2x2", ()),
    ("1b3", "v5p:4x4x4", ()),
    ("1b3", "v5e:4x4", ()),
    ("1b3", "v5e:16x16", ()),
    ("7b", "v5p:4x4x4", ()),
    ("7b", "v6e:16x16", ()),
    ("13b", "v5p:4x4x4", ()),
    ("13b", "v6e:16x16", ()),
    ("13b", "v5e:2x2", ()),
)
HEAD = (
    "| recipe | topology | batch | layout | peak GB of | ms a step | cautious | MFU | tokens/s | "
    "all phases: days, chip-hours | compiled in |"
)


def main(wanted: list[str]) -> None:
    print(HEAD)
    print("|---" * HEAD.count(" | ") + "|---|")
    found = []
    for size, topology, overrides in ROWS:
        if wanted and topology not in wanted:
            continue
        command = [sys.executable, "-m", "snowcoder_jax.cli", "plan"]
        command += [f"configs/arctic_snowcoder_{size}.yaml", "--topology", topology, "--json"]
        started = time.monotonic()
        done = subprocess.run(
            [*command, *overrides], capture_output=True, text=True, env={**os.environ}, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr[-2000:]}")
        facts = json.loads(done.stdout.splitlines()[-1])
        facts["plan_seconds"] = time.monotonic() - started
        found.append(facts)
        print(row(facts), flush=True)
    print(json.dumps({"plans": found}))


def row(facts: dict) -> str:
    layout = facts["layout"]
    cells = [
        facts["recipe"].removeprefix("arctic_snowcoder_"),
        facts["topology"],
        str(layout["rows_per_chip"] * layout["microbatches"]) + " a chip",
        f"{layout['rows_per_chip']} x {layout['microbatches']}, {layout['remat']}",
        f"{facts['peak_bytes'] / 1e9:.1f} of {facts['hbm_bytes'] / 1e9:.1f}",
    ]
    if facts["fits"]:
        days = sum(phase["days"] for phase in facts["phases"])
        cells += [
            f"{facts['estimated_step_seconds'] * 1e3:,.0f}",
            f"{facts['cautious_step_seconds'] * 1e3:,.0f}",
            f"{facts['estimated_mfu_causal']:.1%}",
            f"{facts['tokens_per_second']:,.0f}",
            f"{days:.1f}, {facts['chip_hours']:,.0f}",
        ]
    else:
        cells += [f"does not fit: {facts['missing_bytes'] / 1e9:.1f} GB too much", "", "", "", ""]
    return f"| {' | '.join(cells)} | {facts['compile_seconds']:.0f} s |"


if __name__ == "__main__":
    main(sys.argv[1:])
