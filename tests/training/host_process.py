"""One of the processes that train two small phases together; started by `hosts.py`.

`python host_process.py RUN_FOLDER PACKED_FOLDER PAUSE_SECONDS [SEED]`: who the others are comes
from the environment, as for `snowcoder`. Each step's sequence ids go to RUN_FOLDER/ids/, after the
step. HOSTS_STALL=SECONDS: the second process stands still before it reads step 3 of each phase,
and stacks are printed each second without a step. HOSTS_SAVE_ALL=1: each step is saved and kept.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tiny_training import SEQUENCE_LENGTH, make_phase, make_recipe

from snowcoder_jax import cli, packed, recipe
from snowcoder_jax.errors import EXIT_DONE, EXIT_SAVED
from snowcoder_jax.training import batches, distributed, launch, loop

STEP_TOKENS = 8 * SEQUENCE_LENGTH
GENERAL = make_phase(tokens=12 * STEP_TOKENS)
CONTINUED = make_phase(
    name="continued",
    tokens=6 * STEP_TOKENS,
    schedule=recipe.Schedule("linear", peak=5e-3, warmup_steps=1),
    starts_from="general",
    checkpoint_every_steps=4,
)


def stand_still(seconds: float) -> None:
    """By its name it is told from other places where a slow machine may be found."""
    time.sleep(seconds)


class RecordedBatches(batches.Batches):
    """Remembers which sequences were in the last batches that were asked for."""

    made: dict[int, list[list[int]]] = {}  # noqa: RUF012 (one phase at a time)
    stall_seconds = float(os.environ.get("HOSTS_STALL", "0"))

    def batch(self, k: int) -> dict[str, Any]:
        if k == 3 and distributed.process_index() == 1:
            stand_still(self.stall_seconds)
        batch = super().batch(k)
        self.made[k + 1] = batch["sequence_ids"].tolist()
        return batch

    __call__ = batch


def train(run_folder: Path, packed_folder: str, pause_seconds: float, seed: int) -> int:
    distributed.initialize(launch.find_launch(None, None, None, os.environ))
    run = dataclasses.replace(make_recipe(GENERAL, CONTINUED), seed=seed)
    if "HOSTS_SAVE_ALL" in os.environ:
        phases = tuple(dataclasses.replace(p, checkpoint_every_steps=1) for p in run.phases)
        keep = recipe.Checkpointing(keep_every_steps=1)
        run = dataclasses.replace(run, phases=phases, checkpointing=keep)
    if RecordedBatches.stall_seconds:
        hardware = dataclasses.replace(run.hardware, hang_minutes=1 / 60)
        run = dataclasses.replace(run, hardware=hardware)
    distributed.require_same_recipe(run, "the same code")
    attempt = os.environ.get("HOSTS_ATTEMPT", "0")
    ids = run_folder / "ids" / f"{attempt}-{distributed.process_index()}.jsonl"
    ids.parent.mkdir(parents=True, exist_ok=True)
    data = {"all": packed.read_packed(packed_folder)}
    loop.Batches = RecordedBatches  # type: ignore[misc]
    start = None
    for phase in run.phases:

        def on_progress(done: int, total: int, text: str, name: str = phase.name) -> None:
            line = {"phase": name, "step": done, "ids": RecordedBatches.made[done]}
            with ids.open("a") as f:
                f.write(json.dumps(line) + "\n")
            print(f"{name} {done}/{total} {text}", flush=True)
            time.sleep(pause_seconds)

        try:
            result = loop.train_phase(
                run, phase, data, str(run_folder), start, on_progress=on_progress
            )
        except loop.Preempted as e:
            print(e, flush=True)
            return EXIT_SAVED
        start = result.checkpoint
    return EXIT_DONE


if __name__ == "__main__":
    folder, source, pause = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    number = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    sys.exit(cli.exit_code(lambda: train(folder, source, pause, number)))
