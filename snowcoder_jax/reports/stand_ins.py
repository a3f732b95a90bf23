"""What stands in, in a small run, for what the full recipe asks for."""

from __future__ import annotations

from snowcoder_jax.recipe import Recipe
from snowcoder_jax.recipe_corpus import InstalledSource
from snowcoder_jax.recipe_synthesis import CheckpointTeacher


def stand_ins(recipe: Recipe) -> list[dict[str, str]]:
    """Rows of (what, here, in the full recipe: arXiv 2409.02326)."""
    model, phases = recipe.model, recipe.phases
    rows = [
        _row(
            "model",
            f"{model.num_layers} layers of {model.hidden_dim}, context "
            f"{model.max_sequence_length}, vocabulary {recipe.tokenizer.vocab_size:,}",
            "24 layers of 2,048, context 8,192, vocabulary 64,000 (1.36 B parameters)",
        ),
        _row(
            "tokens of the phases",
            " + ".join(f"{p.tokens:,}" for p in phases),
            "500 B + 50 B + 5 B",
        ),
        _row(
            "batch",
            " / ".join(f"{p.batch_size} x {p.sequence_length}" for p in phases),
            "512 x 8,192 in every phase",
        ),
        _row(
            "peak learning rate",
            " / ".join(f"{p.schedule.peak:g}" for p in phases),
            "5.3e-4 in every phase, re-warmed",
        ),
    ]
    if any(isinstance(s, InstalledSource) for s in recipe.sources):
        rows.append(
            _row(
                "raw code",
                "the standard library and installed distributions of this machine: Python, with "
                "some C and C++; a distribution counts as a repository",
                "The Stack v1 and GitHub crawls in 18 languages, 400 B unique tokens",
            )
        )
    annotator = recipe.annotator
    rows.append(
        _row(
            "annotator",
            f"encoder {annotator.encoder}, windows of {annotator.window_tokens} tokens",
            "Snowflake-arctic-embed-m, windows of 512 tokens",
        )
    )
    if set(annotator.positives) <= {"shipped_problems", "good_modules"}:
        rows.append(
            _row(
                "positives of the annotator",
                "problem-and-solution files shipped with the project and standard-library "
                "modules held up as good code",
                "220 k high-quality code files and 80 k instruction examples",
            )
        )
    if annotator.max_files is not None:
        rows.append(
            _row(
                "files scored",
                f"a seeded sample of at most {annotator.max_files:,}",
                "every file of the corpus",
            )
        )
    if recipe.synthesis is not None and isinstance(recipe.synthesis.teacher, CheckpointTeacher):
        rows.append(
            _row(
                "teacher of phase 3",
                f"this run's own `{recipe.synthesis.teacher.phase}` checkpoint, continuing the "
                "heads of high-scoring Python files",
                "Llama-3.1-70B-Instruct, writing whole files from phase-2 seeds",
            )
        )
    rows.append(
        _row(
            "pass@1",
            "the project's own 30 Python problems",
            "HumanEval+, MBPP+, EvoEval, BigCodeBench",
        )
    )
    return rows


def _row(what: str, here: str, full: str) -> dict[str, str]:
    return {"what": what, "here": here, "full": full}
