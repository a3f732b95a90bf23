"""The graph of a run: which steps a recipe comes down to, in order.

`corpus.py` makes documents and their columns, `quality.py` the annotator and its scores,
`learning.py` packs, trains and evaluates, `synthetic.py` writes the phase-3 documents,
`comparison.py` measures how they differ from selected ones.
"""

from __future__ import annotations

from snowcoder_jax.recipe import Recipe
from snowcoder_jax.steps import comparison, corpus, learning, quality, synthetic
from snowcoder_jax.steps.builder import Builder


def build(recipe: Recipe) -> Builder:
    """Every step of a recipe, in an order in which each finds what it reads (`.steps`)."""
    b = Builder(recipe)
    corpus.add_steps(b)
    quality.add_steps(b)
    for phase in recipe.all_phases():
        needs_synthetic = any(
            recipe.selection(p.selection).source == "synthetic" for p in phase.data
        )
        if needs_synthetic:
            synthetic.add_steps(b)
        learning.add_phase(b, phase)
    comparison.add_steps(b)
    learning.add_baseline(b)
    learning.add_report(b)
    return b
