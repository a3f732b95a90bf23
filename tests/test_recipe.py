"""Recipes: the shipped ones, overrides, and every fault at once with its mend."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax import strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Recipe, fingerprint, load_recipe, parse_recipe
from snowcoder_jax.recipe_corpus import FolderSource
from snowcoder_jax.text.licenses import is_permissive

CONFIGS = Path(__file__).parent.parent / "configs"
LOCAL = str(CONFIGS / "local.yaml")


def local_data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(Path(LOCAL).read_text())
    return data


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load_recipe(str(path))
    assert recipe.name == path.stem


def test_the_full_recipe_has_the_papers_figures() -> None:
    recipe = load_recipe(str(CONFIGS / "arctic_snowcoder_1b3.yaml"))
    general, continued, enhanced = recipe.phases
    assert [p.num_steps for p in recipe.phases] == [119_209, 11_921, 1_192]
    assert general.tokens_per_step == 4_194_304
    assert (general.schedule.kind, general.schedule.warmup_steps) == ("cosine", 600)
    assert (general.schedule.peak, general.schedule.final) == (5.3e-4, 5.3e-5)
    assert (continued.schedule.kind, continued.schedule.warmup_steps) == ("linear", 1000)
    assert continued.data[0].repeat == 4
    assert recipe.selection("best").tokens == 12_500_000_000
    assert (continued.starts_from, enhanced.starts_from) == ("general", "continued")


def test_overrides_reach_named_items_of_lists() -> None:
    recipe = load_recipe(LOCAL, ("phases.continued.schedule.peak=4e-4", "seed=7"))
    assert recipe.phase("continued").schedule.peak == 4e-4
    assert recipe.phase("general").schedule.peak != 4e-4
    assert recipe.seed == 7


def test_a_source_on_the_line_is_added() -> None:
    recipe = load_recipe(LOCAL, extra_sources=("some/folder",))
    added = recipe.sources[-1]
    assert isinstance(added, FolderSource)
    assert is_permissive(added.license)
    assert len(recipe.sources) == 2


def test_all_faults_come_at_once_with_the_nearest_name() -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(
            LOCAL,
            ("phases.continued.schedule.peek=4e-4", "modl.hidden_dim=3", "seed=many"),
        )
    text = str(caught.value)
    assert "3 fault(s)" in text
    assert "phases.continued.schedule.peek: no such field. Did you mean `peak`?" in text
    assert "modl: no such field. Did you mean `model`?" in text
    assert "seed: a whole number is wanted" in text


FAULTS = [
    ("phases.enhanced.starts_from=contined", "phases.enhanced.starts_from", "`continued`"),
    ("phases.contined.tokens=1", "phases.contined", "`continued`"),
    ("phases.general.tokens=1000", "phases.general.tokens", "less than one step"),
    ("phases.general.schedule.warmup_steps=500", "warmup_steps", "from 0 to below"),
    ("phases.general.sequence_length=512", "sequence_length", "max_sequence_length"),
    ("phases.general.data=[{selection: bst}]", "phases.general.data", "`best`"),
    ("phases.general.data=[]", "phases.general.data", "is empty"),
    ("phases.general.data=[{selection: best, weight: 0}]", "phases.general.data", "all 0"),
    ("model.num_kv_heads=3", "model.num_kv_heads", "does not divide"),
    ("model.head_dim=47", "model.head_dim", "odd"),
    ("tokenizer.vocab_size=299", "tokenizer.vocab_size", "300 or more"),
    ("corpus.heldout_share=1.0", "corpus.heldout_share", "between 0 and 1"),
    ("selections.best.tokens=null", "selections.best.tokens", "needs a budget"),
    ("selections.best.fim_share=1.1", "selections.best.fim_share", "between 0 and 1"),
    ("selections.best.fim_share=-0.1", "selections.best.fim_share", "between 0 and 1"),
    ("synthesis.seeds=bet", "synthesis.seeds", "`best`"),
    ("synthesis.teacher.phase=contnued", "synthesis.teacher.phase", "`continued`"),
    ("synthesis.max_new_tokens=161", "synthesis.max_new_tokens", "exceeds"),
    ("synthesis.language_shares={Pyton: 0.5}", "synthesis.language_shares.Pyton", "`Python`"),
    ("controls.control.of=contined", "controls.control.of", "`continued`"),
    ("sources=[{name: x, kind: foldr}]", "sources.x.kind", "`folder`"),
    ("hardware.microbatches=3", "phases.general.batch_size", "microbatches"),
    ("hardware.microbatches=0", "hardware.microbatches", "not above 0"),
    ("hardware.hang_minutes=-1", "hardware.hang_minutes", "0 for never"),
    ("hardware.hang_minutes=.inf", "hardware.hang_minutes", "0 for never"),
    ("checkpointing.keep_last=0", "checkpointing.keep_last", "not above 0"),
    ("checkpointing.keep_every_steps=150", "checkpointing.keep_every_steps", "no multiple"),
    ("checkpointing.keep_every_steps=0", "checkpointing.keep_every_steps", "no multiple"),
    ("model.num_kv_heads=0", "model.num_kv_heads", "not above 0"),
    ("model.hidden_dim=0", "model.hidden_dim", "not above 0"),
    ("corpus.duplicates.bands=0", "corpus.duplicates.bands", "not above 0"),
    ("evaluation.ngram_order=8", "evaluation.ngram_order", "1 to 7"),
    ("evaluation.bootstrap_samples=0", "evaluation.bootstrap_samples", "not above 0"),
    ("phases.general.schedule.warmup_steps=-1", "warmup_steps", "from 0"),
    ("synthesis.seeds=synthetic", "synthesis.seeds", "of the corpus"),
    ("synthesis.teacher.phase=enhanced", "synthesis.teacher.phase", "before any synthetic"),
    ("synthesis.temperature=-0.1", "synthesis.temperature", "greedy"),
    ("controls.control.of=enhanced", "controls.control.of", "one selection"),
    ("name=../x", "name", "no file name"),
    ("model.rope_scaling={kind: linear, factor: 0}", "model.rope_scaling", "or null"),
    (
        "model.rope_scaling={kind: llama3, factor: 2, low_freq_factor: 4}",
        "model.rope_scaling",
        "or null",
    ),
    ("base_model=no/such", "base_model", "Name the folder of a whole Llama model"),
    ("phases.general.keep_moments=true", "phases.general.keep_moments", "no moments to keep"),
    (
        "phases.general.schedule.warmup_tokens=40960",
        "schedule.warmup_steps, warmup_tokens",
        "Leave one of them out",
    ),
    (
        f"phases.general.schedule={{warmup_tokens: {499 * 2048 + 1024}}}",
        "schedule.warmup_tokens: 500 is not",
        "Change the warm-up",
    ),
    ("phases.general.schedule.decay_steps=3", "schedule.decay_*", "warmup_stable_decay"),
    ("phases.general.schedule.decay_shape=cosine", "schedule.decay_*", "warmup_stable_decay"),
    (
        "phases.general.schedule.kind=warmup_stable_decay",
        "schedule.decay_steps",
        "Say how long it decays",
    ),
    (
        "phases.general.schedule={kind: warmup_stable_decay, warmup_steps: 20, decay_steps: 481}",
        "schedule.decay_steps: 481 is not from 1 to the 480 steps",
        "Change the decay",
    ),
    (
        "phases.general.schedule={kind: warmup_stable_decay, decay_tokens: 1000}",
        "schedule.decay_tokens: 0 is not from 1",
        "Change the decay",
    ),
    (
        "phases.general.schedule={kind: warmup_stable_decay, decay_steps: 9, decay_tokens: 9999}",
        "decay_steps, decay_tokens",
        "Leave one of them out",
    ),
    (
        "phases.general.data=[{selection: corpus, language_weights: {Pyton: 2, C: -1}}]",
        "language_weights.Pyton",
        "`Python`",
    ),
    (
        "phases.general.data=[{selection: corpus, language_weights: {C: -1}}]",
        "language_weights.C",
        "0 or more",
    ),
]


def test_languages_can_be_weighed_only_where_they_are_packed_apart() -> None:
    weighed = "phases.continued.data=[{selection: best, repeat: 4, language_weights: {C: 2}}]"
    load_recipe(LOCAL, (weighed,))
    for selection, where in (("best", "phases.continued.data"), ("random", "controls.control")):
        mixed = f"selections.{selection}.grouping=repository"
        with pytest.raises(InputError, match=rf"{where}\.language_weights.* `repository`"):
            load_recipe(LOCAL, (weighed, mixed))


def test_a_selection_is_packed_at_the_length_of_the_first_phase_that_reads_it() -> None:
    recipe = load_recipe(LOCAL, ("phases.enhanced.sequence_length=128",))
    assert recipe.packed_length("best") == 256
    assert recipe.packed_length("synthetic") == 128


@pytest.mark.parametrize(("override", "field", "mend"), FAULTS)
def test_each_fault_names_its_field_and_mend(override: str, field: str, mend: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(LOCAL, (override,))
    assert field in str(caught.value)
    assert mend in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.ngram_order=7",
        "phases.general.schedule.warmup_steps=499",
        "phases.general.tokens=2048",
        "tokenizer.vocab_size=300",
        "synthesis.max_new_tokens=160",
        "selections.best.fim_share=1.0",
        "checkpointing={keep_last: 1, keep_every_steps: 200}",
        "hardware.hang_minutes=0",
        "phases.general.schedule={kind: warmup_stable_decay, warmup_steps: 20, decay_steps: 480}",
        "phases.general.schedule={kind: warmup_stable_decay, decay_tokens: 1025}",
        f"phases.general.schedule={{warmup_tokens: {499 * 2048 + 1023}}}",
    ],
)
def test_the_last_good_value_before_a_fault_is_taken(override: str) -> None:
    smaller = ("phases.general.schedule.warmup_steps=0",) if "tokens=2048" in override else ()
    load_recipe(LOCAL, (*smaller, override))


def test_a_missing_recipe_is_named() -> None:
    with pytest.raises(InputError, match=r"no/such\.yaml.*Name an existing recipe"):
        load_recipe("no/such.yaml")


@pytest.mark.parametrize("text", ["- a\n", "a: [1\n", "\x00", "42"])
def test_a_broken_file_is_an_input_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=str(path)):
        load_recipe(str(path))


def test_a_recipe_survives_the_way_to_yaml_and_back() -> None:
    recipe = load_recipe(LOCAL)
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(strict.to_plain(recipe)))) == recipe


def test_a_control_arm_mirrors_its_phase_but_for_the_data() -> None:
    recipe = load_recipe(LOCAL)
    phase, control = recipe.phase("continued"), recipe.phase("control")
    assert control.data[0].selection == "random"
    assert dataclasses.replace(control, name=phase.name, data=phase.data) == phase
    names = [p.name for p in recipe.all_phases()]
    assert names == ["general", "continued", "control", "enhanced"]


def test_a_new_field_that_is_off_changes_no_fingerprint() -> None:
    old = {"layers": 2, "parts": [{"name": "a"}]}
    new = {"layers": 2, "scaling": None, "is_new": False, "parts": [{"name": "a", "weights": {}}]}
    assert fingerprint(new) == fingerprint(old)
    for on in ({"scaling": 0}, {"is_new": True}, {"parts": [{"name": "a", "weights": {"C": 1.0}}]}):
        assert fingerprint({**new, **on}) != fingerprint(old)


def test_the_fingerprint_sees_every_field() -> None:
    recipe = load_recipe(LOCAL)
    other = load_recipe(LOCAL, ("corpus.rules.thresholds.all.max_lines=99999",))
    assert fingerprint(recipe) != fingerprint(other)
    assert fingerprint(recipe) == fingerprint(load_recipe(LOCAL))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.sampled_from([f.name for f in dataclasses.fields(Recipe)]), JSON)
def test_no_value_of_any_field_gives_anything_but_faults(field: str, value: Any) -> None:
    data = local_data()
    data[field] = value
    try:
        parse_recipe(data)
    except InputError as e:
        assert "fault(s)" in str(e)
