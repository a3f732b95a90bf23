"""Llama folders: the same logits in transformers, and back bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import decoder
from snowcoder_jax.model.huggingface import export_llama, import_llama
from snowcoder_jax.recipe import Model

VOCAB = 61
GROUPED = Model(
    hidden_dim=32,
    mlp_dim=56,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=12,
    max_sequence_length=128,
    rope_theta=50_000.0,
    norm_eps=1e-6,
    tie_embeddings=False,
    attention="document",
    initializer_range=0.2,
)
CONFIGS = {
    "grouped, untied": GROUPED,
    "multi-head, tied": dataclasses.replace(
        GROUPED, num_kv_heads=4, head_dim=8, tie_embeddings=True, rope_theta=10_000.0
    ),
}


@pytest.fixture
def tokenizer_folder(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": 7, "content": "<|endoftext|>", "special": True}],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    (folder / "notes.txt").write_text("not for export")
    return str(folder)


def params_of(config):
    params = decoder.init_params(config, VOCAB, seed=2)
    # Norms of 1 would hide a mix-up of norms.
    return jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.ndim), x.shape), params
    )


def assert_same(params, other):
    assert jax.tree.structure(params) == jax.tree.structure(other)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, other))


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_gives_the_same_logits(name, tmp_path, tokenizer_folder):
    import torch
    import transformers

    config = CONFIGS[name]
    params = params_of(config)
    folder = str(tmp_path / "out")
    export_llama(params, config, VOCAB, tokenizer_folder, folder)
    model, loading = transformers.LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert (model.config.bos_token_id, model.config.eos_token_id) == (None, 7)
    ids = np.random.default_rng(0).integers(0, VOCAB, size=(2, 100))
    with torch.no_grad():
        theirs = model(torch.tensor(ids)).logits.numpy()
    ours = decoder.apply(params, config, VOCAB, ids) @ decoder.output_embedding(params, config).T
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 20_000])
def test_round_trip_is_bit_equal(name, max_shard_bytes, tmp_path, tokenizer_folder):
    config = CONFIGS[name]
    params = params_of(config)
    folder = str(tmp_path / "out")
    export_llama(params, config, VOCAB, tokenizer_folder, folder, max_shard_bytes=max_shard_bytes)
    num_files = len([f for f in os.listdir(folder) if f.endswith(".safetensors")])
    assert (num_files > 1) == (max_shard_bytes == 20_000)
    again, config_again, vocab_size = import_llama(folder)
    assert_same(params, again)
    assert (config_again, vocab_size) == (config, VOCAB)


def test_what_transformers_saves_in_shards_is_read(tmp_path):
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 30_000.0},
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    params, ours, vocab_size = import_llama(str(tmp_path))
    assert (ours.rope_theta, ours.num_kv_heads, ours.tie_embeddings) == (30_000.0, 2, False)
    ids = np.arange(20)[None]
    with torch.no_grad():
        theirs = model.float()(torch.tensor(ids)).logits.numpy()
    hidden = decoder.apply(jax.tree.map(np.asarray, params), ours, vocab_size, ids)
    np.testing.assert_allclose(hidden @ params["head"].T, theirs, atol=1e-4)


@pytest.fixture
def exported(tmp_path, tokenizer_folder):
    config = CONFIGS["grouped, untied"]
    folder = str(tmp_path / "out")
    export_llama(params_of(config), config, VOCAB, tokenizer_folder, folder)
    return folder


def test_both_spellings_of_rope_are_written_and_the_tokenizer_is_there(exported):
    facts = storage.read_json(exported + "/config.json")
    assert facts["rope_theta"] == facts["rope_parameters"]["rope_theta"] == 50_000.0
    assert sorted(os.listdir(exported)) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 123.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}},
        {"rope_theta": 123.0, "rope_scaling": None},
    ],
)
def test_either_spelling_of_rope_is_read(exported, rope):
    change_config(exported, rope_theta=None, rope_parameters=None)
    change_config(exported, **rope)
    assert import_llama(exported)[1].rope_theta == 123.0


def change_config(folder, **changes):
    path = folder + "/config.json"
    storage.write_json(path, {**storage.read_json(path), **changes})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'"),
        ({"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": None}, "linear"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 50_000.0}}, "llama3"),
        ({"rope_theta": 1.0}, "rope_theta is 1.0 in one place"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"vocab_size": VOCAB + 1}, r"shape \(61, 32\)"),
        ({"num_hidden_layers": 4}, "9 weights are missing"),
        ({"num_hidden_layers": 2}, "does not have"),
        ({"tie_word_embeddings": True, "num_hidden_layers": 2}, "does not have"),
    ],
)
def test_a_model_that_the_decoder_is_not_is_refused(exported, changes, named):
    change_config(exported, **changes)
    with pytest.raises(InputError, match=named):
        import_llama(exported)


def test_a_weight_of_another_architecture_is_refused(exported):
    path = exported + "/model.safetensors"
    bias = {"model.layers.0.self_attn.q_proj.bias": np.zeros(48, np.float32)}
    save_file(load_file(path) | bias, path)
    with pytest.raises(InputError, match=r"q_proj.bias is a weight that the decoder does not"):
        import_llama(exported)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_a_missing_or_broken_file_is_named(exported, file, fault):
    path = f"{exported}/{file}"
    os.unlink(path)
    if fault == "broken":
        storage.write_bytes(path, b"{" * 100)
    with pytest.raises(InputError, match=file):
        import_llama(exported)


def test_a_file_cut_short_is_refused(exported):
    path = exported + "/model.safetensors"
    storage.write_bytes(path, storage.read_bytes(path)[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        import_llama(exported)


def test_a_tokenizer_folder_without_one_is_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        export_llama({}, GROUPED, VOCAB, str(tmp_path / "empty"), str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path)) == ["empty"]


def test_a_failed_export_leaves_the_old_one_whole(exported, tokenizer_folder):
    with pytest.raises(KeyError):
        export_llama({"embedding": np.zeros(3)}, GROUPED, VOCAB, tokenizer_folder, exported)
    assert import_llama(exported)[1] == GROUPED
    assert not [f for f in os.listdir(os.path.dirname(exported)) if f.startswith(".tmp")]


def test_an_export_replaces_the_one_before(exported, tokenizer_folder):
    other = CONFIGS["multi-head, tied"]
    params = params_of(other)
    export_llama(params, other, VOCAB, tokenizer_folder, exported)
    again, config, _ = import_llama(exported)
    assert config == other
    assert_same(params, again)


def test_an_object_store_works_as_a_folder_does(tokenizer_folder):
    params = params_of(GROUPED)
    folder = "memory://exports/tiny"
    export_llama(params, GROUPED, VOCAB, tokenizer_folder, folder, max_shard_bytes=20_000)
    again, config, _ = import_llama(folder)
    assert config == GROUPED
    assert_same(params, again)
