"""This project's own checkpoint as a teacher, asked through the runner."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from asking import make_ask, write_seeds

from snowcoder_jax import tokenizer
from snowcoder_jax.model import decoder
from snowcoder_jax.recipe import Model, Recipe, load_recipe
from snowcoder_jax.recipe_synthesis import CheckpointTeacher
from snowcoder_jax.synthesis import runner
from snowcoder_jax.synthesis.answers import AnswerIndex
from snowcoder_jax.synthesis.ask import Ask

VOCAB = 290
MODEL = Model(64, 128, 2, 4, 2, 16, max_sequence_length=128)
NUM_SEEDS = 10


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    recipe = load_recipe("configs/local.yaml")
    sizes = dataclasses.replace(recipe.tokenizer, vocab_size=VOCAB)
    hardware = dataclasses.replace(recipe.hardware, compute_dtype="float32")
    return dataclasses.replace(recipe, model=MODEL, tokenizer=sizes, hardware=hardware)


def load_params(_phase: str) -> Any:
    return decoder.init_params(MODEL, VOCAB, seed=3)


def ask_of(root: Path, *, batch_size: int, max_new_tokens: int = 12) -> Ask:
    write_seeds(root / "seeds", NUM_SEEDS, words="one two three\n\nX = 1\nY = 2\nZ = 3")
    texts = [f"def total_{i}(values):\n    return sum(values)\n" for i in range(99)]
    tokenizer.train(texts, VOCAB, str(root / "tokenizer"))
    teacher = CheckpointTeacher("general", batch_size=batch_size)
    ask = make_ask(root, teacher=teacher, max_new_tokens=max_new_tokens, head_tokens=90)
    return dataclasses.replace(ask, tokenizer=str(root / "tokenizer"))


def texts_of(ask: Ask) -> dict[str, str]:
    keys = [row.request.key for row in runner.stored_rows(ask)]
    rows = AnswerIndex(ask.store).find(keys)
    assert {row.teacher for row in rows.values()} == {"general"}
    return {key: row.answer.text for key, row in rows.items()}


def test_its_answers_are_stored_and_do_not_depend_on_the_batch(
    tmp_path: Path, recipe: Recipe
) -> None:
    written = []
    for batch_size in (4, 3):
        ask = ask_of(tmp_path / str(batch_size), batch_size=batch_size)
        facts = runner.ask_from_run(
            str(tmp_path / str(batch_size) / "ask"), ask, recipe=recipe, load_params=load_params
        )
        assert (facts["answered"], facts["dead"]) == (NUM_SEEDS, 0)
        assert 0 < facts["spent"]["new_tokens"] <= 12 * NUM_SEEDS
        written.append(texts_of(ask))
    assert written[0] == written[1]
    assert len(set(written[0].values())) > 1


def test_what_does_not_fit_its_context_fails_alone(tmp_path: Path, recipe: Recipe) -> None:
    ask = ask_of(tmp_path, batch_size=4, max_new_tokens=60)
    # The other part still has its five, whose heads are shorter.
    longer = "one two three\n\nX = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\nZ = 3"
    write_seeds(tmp_path / "seeds", 3, num_parts=1, words=longer)
    facts = runner.ask_from_run(str(tmp_path / "ask"), ask, recipe=recipe, load_params=load_params)
    assert (facts["answered"], facts["dead"]) == (5, 3)
    assert facts["dead_letters"]["counts"] == {"context": 3}
    assert "exceed the model's 128" in facts["dead_letters"]["samples"][0]["error"]
