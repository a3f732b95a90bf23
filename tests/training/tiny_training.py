"""A model, data and recipe that train in a second; run as a program it trains one phase.

`python tiny_training.py RUN_FOLDER PACKED_FOLDER [seconds a step takes at least]`
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from snowcoder_jax import packed, recipe, storage
from snowcoder_jax.packed import Packed, PackedShard, Record
from snowcoder_jax.training.loop import PhaseResult, train_phase

VOCAB_SIZE = 64
SEQUENCE_LENGTH = 16

MODEL = recipe.Model(
    hidden_dim=16,
    mlp_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_sequence_length=SEQUENCE_LENGTH,
)
HARDWARE = recipe.Hardware(
    mesh=recipe.Mesh(), compute_dtype="float32", remat="none", loss_chunk_tokens=32
)


def make_phase(**changes: Any) -> recipe.Phase:
    phase = recipe.Phase(
        name="general",
        tokens=12 * 8 * SEQUENCE_LENGTH,
        batch_size=8,
        sequence_length=SEQUENCE_LENGTH,
        schedule=recipe.Schedule(kind="cosine", peak=1e-2, final=1e-3, warmup_steps=2),
        data=(recipe.Part("all", repeat=4),),
        checkpoint_every_steps=5,
    )
    return dataclasses.replace(phase, **changes)


def make_recipe(*phases: recipe.Phase, **changes: Any) -> recipe.Recipe:
    run = recipe.Recipe(
        name="tiny",
        sources=(),
        selections=(recipe.Selection("all"),),
        phases=phases or (make_phase(),),
        seed=3,
        model=MODEL,
        hardware=HARDWARE,
    )
    return dataclasses.replace(run, **changes)


def make_record(rng: np.random.Generator) -> Record:
    """Learnable: a token is the one before plus 3, but for one in eight."""
    steps = np.where(rng.random(SEQUENCE_LENGTH + 1) < 0.875, 3, rng.integers(1, VOCAB_SIZE))
    ids = (np.cumsum(steps) + rng.integers(VOCAB_SIZE)) % VOCAB_SIZE
    starts = np.sort(rng.choice(SEQUENCE_LENGTH, 2, replace=False)).astype(np.int32)
    masked = np.array([[4, 6]], np.int32) if rng.random() < 0.5 else np.zeros((0, 2), np.int32)
    return Record(ids.astype(np.int32), starts, masked)


def write_records(
    folder: str, num_records: int, num_shards: int = 2, seed: int = 0, language: str = "Python"
) -> Packed:
    """A packed folder of `num_records` records, split over shards."""
    rng = np.random.default_rng(seed)
    shards = []
    for i in range(num_shards):
        path = storage.join(folder, language, f"part-{i:05d}.array_record")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        num_here = (i + 1) * num_records // num_shards - i * num_records // num_shards
        writer = ArrayRecordWriter(path, "group_size:1")
        for _ in range(num_here):
            writer.write(packed.encode_record(make_record(rng)))
        writer.close()
        storage.write_manifest(path, key="test")
        num_tokens = num_here * SEQUENCE_LENGTH + 1 if num_here else 0
        shards.append(
            PackedShard(
                path,
                language,
                num_here,
                storage.sha256_file(path),
                num_tokens=num_tokens,
                source="tiny",
                tokens_by_language={language: num_tokens},
            )
        )
    num_tokens = num_records * SEQUENCE_LENGTH
    made = Packed(
        folder=folder,
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=VOCAB_SIZE,
        num_records=num_records,
        num_tokens=num_tokens,
        num_documents=num_records,
        tokens_by_language={language: num_tokens},
        shards=tuple(shards),
    )
    packed.write_packed(made, key="test")
    return made


def train(
    run_folder: str,
    data: dict[str, Packed],
    phase: recipe.Phase | None = None,
    run: recipe.Recipe | None = None,
    start: str | None = None,
    min_step_seconds: float = 0.0,
) -> PhaseResult:
    def on_progress(done: int, total: int, text: str) -> None:
        print(f"step {done}/{total} {text}", flush=True)
        time.sleep(min_step_seconds)

    phase = phase or make_phase()
    run = run or make_recipe(phase)
    return train_phase(run, phase, data, run_folder, start, on_progress=on_progress)


if __name__ == "__main__":
    train(
        sys.argv[1],
        {"all": packed.read_packed(sys.argv[2])},
        min_step_seconds=float(sys.argv[3]) if len(sys.argv) > 3 else 0.0,
    )
