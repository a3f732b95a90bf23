"""What both sides train, and how it is timed: one model, one batch of random tokens. Imports
nothing of either."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Setting:
    """A Llama with tied embeddings and as many key as query heads, and a batch for it.

    `scan_layers` is of our side alone; `microbatches` is each side's own.
    """

    hidden_dim: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    vocab_size: int
    batch_size: int
    sequence_length: int
    dtype: str
    learning_rate: float = 3e-4
    scan_layers: bool = True
    microbatches: int = 1

    @property
    def head_dim(self) -> int:
        return self.hidden_dim // self.num_heads

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.sequence_length

    def ids(self) -> np.ndarray:
        """int64 [B, S + 1], the same on both sides."""
        shape = (self.batch_size, self.sequence_length + 1)
        return np.random.default_rng(0).integers(0, self.vocab_size, shape)


CPU = Setting(
    hidden_dim=256,
    mlp_dim=704,
    num_layers=6,
    num_heads=4,
    vocab_size=8_192,
    batch_size=16,
    sequence_length=512,
    dtype="float32",
    scan_layers=False,
)
# The paper's 1.3 B model (arXiv 2409.02326 section 2).
GPU = Setting(
    hidden_dim=2_048,
    mlp_dim=5_632,
    num_layers=24,
    num_heads=16,
    vocab_size=64_000,
    batch_size=4,
    sequence_length=8_192,
    dtype="bfloat16",
)
SETTINGS = {"cpu": CPU, "gpu": GPU}


def setting(name: str, batch_size: int, microbatches: int) -> Setting:
    return dataclasses.replace(SETTINGS[name], batch_size=batch_size, microbatches=microbatches)


def timed(step: Callable[[], float], num_steps: int) -> dict[str, Any]:
    """Seconds and processor seconds of each step after a first one that is not counted, and the
    last loss; `step` returns its loss, and so waits for the device."""
    step()
    seconds, cpu_seconds = [], []
    for _ in range(num_steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        loss = step()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "loss": loss}
