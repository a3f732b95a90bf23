"""What a recipe may say about rules: every wrong name and every missing parse is a fault."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from snowcoder_jax.recipe import Recipe, load_recipe
from snowcoder_jax.recipe_checks import check_recipe
from snowcoder_jax.recipe_corpus import Rules

LOCAL = str(Path(__file__).parents[2] / "configs" / "local.yaml")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(LOCAL)


def faults(recipe: Recipe, rules: Rules) -> list[str]:
    corpus = dataclasses.replace(recipe.corpus, rules=rules)
    return [str(f) for f in check_recipe(dataclasses.replace(recipe, corpus=corpus))]


def test_wrong_names_come_with_the_nearest(recipe: Recipe) -> None:
    found = faults(recipe, Rules(thresholds={"Pyton": {"max_lines": 3}, "Go": {"max_line": 3}}))
    assert len(found) == 2
    assert "thresholds.Pyton: no such language" in found[0] and "`Python`" in found[0]
    assert "thresholds.Go.max_line: no such rule" in found[1] and "`max_lines`" in found[1]


def test_a_rule_of_the_tree_needs_the_tree(recipe: Recipe) -> None:
    table: dict[str, dict[str, float | None]] = {"all": {"max_parse_error_share": 0.1}}
    (fault,) = faults(recipe, Rules(thresholds=table))
    assert "max_parse_error_share: needs the syntax tree" in fault and "parse: true" in fault
    assert faults(recipe, Rules(parse=True, thresholds=table)) == []
    off: dict[str, dict[str, float | None]] = {"all": {"max_parse_error_share": None}}
    assert faults(recipe, Rules(thresholds=off)) == []


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_is_a_number(recipe: Recipe, threshold: float) -> None:
    (fault,) = faults(recipe, Rules(thresholds={"all": {"max_lines": threshold}}))
    assert "is no threshold" in fault


@pytest.mark.parametrize("preset", ["starcoder2", "opencoder", "none"])
@pytest.mark.parametrize("parse", [False, True])
def test_presets_are_without_fault(recipe: Recipe, preset: str, parse: bool) -> None:
    assert faults(recipe, Rules(preset, parse)) == []  # type: ignore[arg-type]


def test_an_override_names_one_rule() -> None:
    recipe = load_recipe(LOCAL, ("corpus.rules.thresholds.C++.max_lines=7",))
    assert recipe.corpus.rules.thresholds == {"C++": {"max_lines": 7}}
