"""`snowcoder plan` for each recipe on real topologies: the tables of docs/plan.md and RESULTS.md.

Usage: bash launch/bench.sh plan [all | TOPOLOGY ... | remats TOPOLOGY]
Each row is a process of its own, with nothing cached; rows are printed as they come. Without an
argument: the settings of the figures to beat (two sequences a chip, of v5e one, no accumulation),
the largest topology and one that is too small. `all` plans every recipe, for most of an hour;
`remats` compiles every way to recompute at one of the settings to beat, for about ten minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import get_args

# Recipe, topology, overrides.
ROWS = (
    ("1b3", "v5p:2x2x2", ("phases.general.batch_size=16",)),
    ("1b3", "v5p:4x4x4", ("phases.general.batch_size=128",)),
    ("1b3", "v5e:4x4", ("phases.general.batch_size=16",)),
    ("1b3", "v5e:16x16", ()),
    ("13b", "v5e:2x2", ()),
)
MORE_ROWS = (
    ("1b3", "v5p:2x2x2", ()),
    ("1b3", "v5p:4x4x4", ()),
    ("1b3", "v5e:4x4", ()),
    ("7b", "v5p:4x4x4", ()),
    ("7b", "v6e:16x16", ()),
    ("13b", "v5p:4x4x4", ()),
    ("13b", "v6e:16x16", ()),
)
HEAD = (
    "| recipe | topology | batch | layout | peak GB of | ms a step | cautious | MFU | tokens/s | "
    "all phases: days, chip-hours | compiled in |"
)


def main(wanted: list[str]) -> None:
    print(HEAD)
    print("|---" * HEAD.count(" | ") + "|---|")
    found = []
    rows = ROWS if not wanted else (*ROWS, *MORE_ROWS)
    if wanted and wanted != ["all"]:
        rows = tuple(row for row in rows if row[1] in wanted)
        unknown = set(wanted) - {topology for _, topology, _ in rows}
        if unknown:
            sys.exit(f"no row is of {', '.join(sorted(unknown))}\n{__doc__}")
    for size, topology, overrides in rows:
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


def remats(topology_name: str) -> None:
    """Every way to recompute at the first row of a topology, whether it is the best or not."""
    from snowcoder_jax.planning.chips import parse_topology
    from snowcoder_jax.planning.topology import devices

    topology = parse_topology(topology_name)
    all_devices = devices(topology)  # before jax starts
    from snowcoder_jax import recipe
    from snowcoder_jax.planning import search
    from snowcoder_jax.planning.plan import sizes
    from snowcoder_jax.training.mesh import make_mesh

    size, _, overrides = next(row for row in ROWS if row[1] == topology_name)
    run = recipe.load_recipe(f"configs/arctic_snowcoder_{size}.yaml", overrides)
    phase, mesh_sizes = run.phases[0], sizes(run.hardware.mesh, topology)
    mesh = make_mesh(run.hardware.mesh, all_devices)
    found = []
    print("| topology | remat | ms a step | peak GB of | compiled in |\n|---|---|---|---|---|")
    for remat in get_args(recipe.Remat):
        candidate = next(
            c
            for c in search.candidates(run, phase, topology, mesh_sizes)
            if c.layout.remat == remat and c.layout.microbatches == 1
        )
        tried = search.compiled(run, phase, topology, mesh, mesh_sizes, candidate)
        step, milliseconds = tried.step, f"{tried.seconds * 1e3:,.0f}"
        seconds = tried.seconds if step.fits else None
        found.append({"remat": remat, "seconds": seconds, "peak_bytes": step.peak_bytes})
        print(
            f"| {topology_name} | {remat} | {milliseconds if step.fits else 'does not fit'} | "
            f"{step.peak_bytes / 1e9:.1f} of {topology.chip.hbm_bytes / 1e9:.1f} | "
            f"{step.seconds:.0f} s |",
            flush=True,
        )
    print(json.dumps({"topology": topology_name, "remats": found}))


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
    if sys.argv[1:2] == ["remats"] and len(sys.argv) == 3:
        remats(sys.argv[2])
    else:
        main(sys.argv[1:])
