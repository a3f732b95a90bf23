"""A recipe on somebody's own model: what is taken from its folder, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import foreign_model
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax import base_model, storage, strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Recipe, parse_recipe
from snowcoder_jax.tokenizer import FILE_SEP, FIM_PREFIX, REPO_NAME, Tokenizer, train

TEXTS = [p.read_text() for p in sorted(Path(__file__).parent.glob("test_[rst]*.py"))]
VOCAB = 512 + foreign_model.NUM_PADDED


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return foreign_model.write(tmp_path_factory.mktemp("base") / "model", TEXTS)


@pytest.fixture
def folder(whole: str, tmp_path: Path) -> str:
    shutil.copytree(whole, tmp_path / "model")
    base_model.fingerprint.cache_clear()
    Tokenizer.load.cache_clear()
    return str(tmp_path / "model")


def recipe_data(folder: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "base_model": folder,
        "sources": [{"name": "s", "kind": "folder", "path": "/nowhere"}],
        "selections": [{"name": "all", "metadata_share": 0.0}],
        "phases": [
            {
                "name": "continued",
                "tokens": 4096,
                "batch_size": 8,
                "sequence_length": 64,
                "schedule": {"kind": "constant"},
                "data": [{"selection": "all"}],
            }
        ],
        **changes,
    }


def recipe_of(folder: str, **changes: Any) -> Recipe:
    return parse_recipe(recipe_data(folder, **changes))


def test_model_and_vocabulary_are_the_folders(folder: str) -> None:
    recipe = recipe_of(folder)
    assert recipe.model == foreign_model.CONFIG
    assert recipe.tokenizer.vocab_size == VOCAB
    assert list(base_model.problems(recipe)) == []


def test_a_shorter_window_and_masking_are_the_recipes_to_choose(folder: str) -> None:
    recipe = recipe_of(folder, model={"max_sequence_length": 64, "attention": "document"})
    assert (recipe.model.max_sequence_length, recipe.model.attention) == (64, "document")
    assert recipe.model.rope_theta == 50_000.0


def test_the_recipe_that_is_kept_beside_a_run_is_read_again(folder: str) -> None:
    recipe = recipe_of(folder, model={"max_sequence_length": 64})
    assert parse_recipe(strict.to_plain(recipe)) == recipe


def test_what_contradicts_the_folder_is_refused_all_at_once(folder: str) -> None:
    with pytest.raises(InputError, match="3 fault") as caught:
        recipe_of(
            folder,
            model={"hidden_dim": 32, "max_sequence_length": 4096},
            tokenizer={"vocab_size": 512},
        )
    for field in ("model.hidden_dim", "model.max_sequence_length", "tokenizer.vocab_size"):
        assert f"{field}: `" in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"base_model: .*none/config\.json: there is no such file"):
        recipe_of(str(tmp_path / "none"))


def test_a_model_that_is_no_llama_is_refused_when_the_recipe_is_read(folder: str) -> None:
    path = folder + "/config.json"
    storage.write_json(path, {**storage.read_json(path), "model_type": "gpt_bigcode"})
    with pytest.raises(InputError, match=r"base_model: .*model_type is 'gpt_bigcode'"):
        recipe_of(folder)


def test_a_placeholder_is_left_to_the_preflight() -> None:
    assert recipe_of("gs://YOUR-BUCKET/model").base_model == "gs://YOUR-BUCKET/model"


def faults_of(recipe: Recipe) -> str:
    return "\n".join(map(str, base_model.problems(recipe)))


def test_missing_weights_are_named_before_any_work(folder: str) -> None:
    recipe = recipe_of(folder)
    lost = sorted(Path(folder).glob("*.safetensors"))[1]
    lost.unlink()
    assert lost.name in faults_of(recipe)


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused(folder: str) -> None:
    recipe = recipe_of(folder)
    foreign_model.write_tokenizer(Path(folder), TEXTS, VOCAB + 1)
    problem = f"its tokenizer has {VOCAB + 1} ids and its embedding {VOCAB} rows"
    assert problem in faults_of(recipe)


def change_tokenizer(folder: str, **changes: Any) -> None:
    path = folder + "/tokenizer.json"
    storage.write_json(path, {**storage.read_json(path), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}},
    ],
)
def test_a_tokenizer_that_changes_text_is_refused(folder: str, changes: dict[str, Any]) -> None:
    change_tokenizer(folder, **changes)
    assert "does not give a text back byte for byte" in faults_of(recipe_of(folder))


def test_a_tokenizer_of_characters_is_refused(folder: str) -> None:
    spec = storage.read_json(folder + "/tokenizer.json")
    spec["model"]["vocab"]["\u2581the"] = len(spec["model"]["vocab"])
    change_tokenizer(folder, **spec)
    assert "do not spell bytes" in faults_of(recipe_of(folder))


def test_a_tokenizer_that_ends_no_text_is_refused(folder: str) -> None:
    storage.write_json(folder + "/tokenizer_config.json", {})
    assert "names no eos_token" in faults_of(recipe_of(folder))


def test_markers_that_the_tokenizer_lacks_cannot_be_asked_for(folder: str) -> None:
    selections = [{"name": "all", "metadata_share": 0.5, "fim_share": 0.1}]
    text = faults_of(recipe_of(folder, selections=selections))
    assert "selections.all.metadata_share: the base model's tokenizer has no <repo_name>" in text
    assert "selections.all.fim_share: the base model's tokenizer has no <fim_prefix>" in text


def test_a_model_of_this_project_has_all_markers(tmp_path: Path) -> None:
    train(TEXTS, 400, str(tmp_path))
    tokenizer = Tokenizer.load(str(tmp_path))
    assert tokenizer.has(REPO_NAME)
    assert tokenizer.has(FIM_PREFIX)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "weights"])
def test_the_fingerprint_follows_every_file(folder: str, file: str) -> None:
    before = base_model.fingerprint(folder)
    base_model.fingerprint.cache_clear()
    assert base_model.fingerprint(folder) == before
    base_model.fingerprint.cache_clear()
    path = sorted(Path(folder).glob("*.safetensors"))[-1]
    if file != "weights":
        path = Path(folder, file)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert base_model.fingerprint(folder) != before


def test_a_large_file_is_told_by_blocks_of_it(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "_HASHED_BYTES", 1_000)
    monkeypatch.setattr(base_model, "_BLOCK_BYTES", 16)
    before = base_model.fingerprint(folder)
    for place in (0, -1):
        path = sorted(Path(folder).glob("*.safetensors"))[0]
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
        base_model.fingerprint.cache_clear()
        after = base_model.fingerprint(folder)
        assert after != before
        before = after


@pytest.fixture(scope="module")
def foreign(whole: str) -> Tokenizer:
    return Tokenizer.load(whole)


def test_a_foreign_tokenizer_splits_as_it_was_trained_to(foreign: Tokenizer, whole: str) -> None:
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(whole + "/tokenizer.json")
    for text in TEXTS:
        assert foreign.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@given(st.text())
def test_any_text_comes_back_from_a_foreign_tokenizer(foreign: Tokenizer, text: str) -> None:
    ids = foreign.encode(text)
    assert foreign.decode_bytes(ids) == text.encode()
    assert foreign.decode(ids) == text
    assert sum(foreign.token_bytes[ids]) == len(text.encode())


def test_its_own_ends_stand_for_the_markers_it_lacks(foreign: Tokenizer, whole: str) -> None:
    ids = json.loads(Path(whole, "tokenizer.json").read_text())["model"]["vocab"]
    assert foreign.end_of_text == ids[foreign_model.END]
    assert foreign.special(FILE_SEP) == ids[foreign_model.BEGIN]
    assert foreign.special(REPO_NAME) == ids[foreign_model.END]
    assert not foreign.has(FILE_SEP)
    assert foreign.encode("</s>") != [foreign.end_of_text]


def test_ids_that_only_pad_the_embedding_are_left_out_of_a_text(foreign: Tokenizer) -> None:
    ids = foreign.encode("def f")
    assert foreign.decode([*ids, VOCAB - 1]) == "def f"
    assert foreign.decode_bytes([VOCAB - 1, *ids]) == b"def f"
