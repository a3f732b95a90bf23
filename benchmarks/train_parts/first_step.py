"""How long the local recipe's training takes to its first step, start of the process included.

    python -m train_parts.first_step FOLDER STARTED_AT

Trains two steps of the first phase on synthetic records, by the trainer's own loop. Prints one
JSON object; the second process that is started with the same compilation cache finds it filled.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from snowcoder_jax import packed, preflight, recipe, storage
from snowcoder_jax.training.loop import train_phase

NUM_STEPS = 2


def write_records(run: recipe.Recipe, phase: recipe.Phase, folder: str) -> packed.Packed:
    """Enough records of random tokens for the steps, as a packed folder of one shard."""
    path = storage.join(folder, "Python", "part-00000.array_record")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    num_records = NUM_STEPS * phase.batch_size
    rng = np.random.default_rng(0)
    writer = ArrayRecordWriter(path, "group_size:1")
    for _ in range(num_records):
        ids = rng.integers(0, run.tokenizer.vocab_size, phase.sequence_length + 1)
        starts, masked = np.zeros(1, np.int32), np.zeros((0, 2), np.int32)
        writer.write(packed.encode_record(packed.Record(ids.astype(np.int32), starts, masked)))
    writer.close()
    storage.write_manifest(path, key="benchmark")
    num_tokens = num_records * phase.sequence_length
    shard = packed.PackedShard(
        path,
        "Python",
        num_records,
        storage.sha256_file(path),
        num_tokens=num_tokens + 1,
        source="random",
        tokens_by_language={"Python": num_tokens + 1},
    )
    made = packed.Packed(
        folder=folder,
        sequence_length=phase.sequence_length,
        vocab_size=run.tokenizer.vocab_size,
        num_records=num_records,
        num_tokens=num_tokens,
        num_documents=num_records,
        tokens_by_language={"Python": num_tokens},
        shards=(shard,),
    )
    packed.write_packed(made, key="benchmark")
    return made


def main() -> None:
    folder, started_at = sys.argv[1], float(sys.argv[2])
    run = recipe.load_recipe("configs/local.yaml", (f"output={folder}",))
    phase = run.phases[0]
    schedule = dataclasses.replace(phase.schedule, warmup_steps=0)
    tokens = NUM_STEPS * phase.tokens_per_step
    phase = dataclasses.replace(phase, tokens=tokens, schedule=schedule)
    data = {phase.data[0].selection: write_records(run, phase, storage.join(folder, "packed"))}
    preflight.configure_jax(run)
    seconds: list[float] = []

    def on_progress(done: int, total: int, text: str) -> None:
        seconds.append(time.time() - started_at)

    run_folder = storage.join(folder, f"run-{started_at}")
    train_phase(run, phase, data, run_folder, None, on_progress=on_progress)
    print(json.dumps({"seconds_to_first_step": seconds[0]}))


if __name__ == "__main__":
    main()
