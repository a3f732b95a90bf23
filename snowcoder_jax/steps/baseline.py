"""The yardstick beside the model: a byte n-gram on exactly the bytes the model saw."""

from __future__ import annotations

import time

from snowcoder_jax import packed as packed_format
from snowcoder_jax.evaluation.evaluate import evaluate_ngram
from snowcoder_jax.progress import Progress
from snowcoder_jax.recipe import Phase
from snowcoder_jax.run import Facts
from snowcoder_jax.steps.builder import Builder
from snowcoder_jax.tokenizer import Tokenizer
from snowcoder_jax.training.batches import Batches


def seen_bytes(
    b: Builder, lineage: list[Phase], packs: dict[str, dict[str, str]], progress: Progress
) -> list[bytes]:
    """The text of every sequence that the lineage trained on, repetitions included."""
    tokenizer = Tokenizer.load(b.named["tokenizer"])
    num_steps = sum(phase.num_steps for phase in lineage)
    texts: list[bytes] = []
    done = 0
    for phase in lineage:
        packed = {s: packed_format.read_packed(path) for s, path in packs[phase.name].items()}
        batches = Batches(phase, packed, b.recipe.seed)
        for step in range(phase.num_steps):
            texts += [tokenizer.decode_bytes(ids.tolist()) for ids in batches(step)["ids"][:, 1:]]
            done += 1
            progress.update(done, num_steps, "reading what the model saw")
    return texts


def measure(
    b: Builder,
    lineage: list[Phase],
    packs: dict[str, dict[str, str]],
    output: str,
    progress: Progress,
) -> Facts:
    """Train the n-gram; bits per byte on held-out documents and on problem solutions."""
    from snowcoder_jax.steps.learning import heldout_documents

    start = time.monotonic()
    texts = seen_bytes(b, lineage, packs, progress)
    result = evaluate_ngram(
        b.recipe,
        texts,
        heldout=heldout_documents(b),
        output=output,
        on_progress=progress.update,
    )
    return {
        "order": b.recipe.evaluation.ngram_order,
        "trained_bytes": result["training_bytes"],
        "bits_per_byte": {
            **result["heldout_bits_per_byte"],
            "solutions": result["solutions_bits_per_byte"],
        },
        "seconds": time.monotonic() - start,
    }
