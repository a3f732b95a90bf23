"""Llama folders: the same logits in transformers, and back bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import decoder
from snowcoder_jax.model.huggingface import export_llama, import_llama, open_llama
from snowcoder_jax.recipe import Model, RopeScaling

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
    "one key head, linear scaling": dataclasses.replace(
        GROUPED, num_kv_heads=1, rope_scaling=RopeScaling("linear", 4.0)
    ),
    # Wavelengths below, between and above the bounds: 64 / 4 and 64 / 1 positions.
    "llama3 scaling": dataclasses.replace(
        GROUPED, rope_theta=100.0, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 64)
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


@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_either_spelling_of_scaled_rope_is_read(exported, spelling):
    change_config(exported, rope_theta=123.0, rope_parameters=None)
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    change_config(exported, **{spelling: scaling})
    config = import_llama(exported)[1]
    assert (config.rope_theta, config.rope_scaling) == (
        123.0,
        RopeScaling("llama3", 8.0, 1.0, 4.0, 64),
    )


def change_config(folder, **changes):
    path = folder + "/config.json"
    storage.write_json(path, {**storage.read_json(path), **changes})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}, "rope_parameters": None}, "'yarn'"),
        ({"rope_scaling": {"type": "linear"}, "rope_parameters": None}, "factor of the linear"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 50_000.0, "factor": 8}},
            "low_freq_factor of the llama3",
        ),
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


def test_all_faults_of_a_config_are_named_at_once(exported):
    change_config(exported, attention_bias=True, hidden_act="gelu", hidden_size=None)
    with pytest.raises(InputError) as caught:
        import_llama(exported)
    for fault in ("attention_bias is True", "hidden_act is 'gelu'", "hidden_size is missing"):
        assert fault in str(caught.value)


def test_all_faults_of_the_weights_are_named_at_once(exported):
    path = exported + "/model.safetensors"
    weights = load_file(path)
    del weights["model.norm.weight"]
    weights["lm_head.weight"] = weights["lm_head.weight"][:, :-1].copy()
    gate = "model.layers.1.mlp.gate_proj.weight"
    weights[gate] = weights[gate].astype(np.int8)
    save_file(weights, path)
    with pytest.raises(InputError, match="3 fault") as caught:
        import_llama(exported)
    for fault in ("model.norm.weight the first", r"lm_head.weight has shape (61, 31)", "is I8"):
        assert fault in str(caught.value)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_weights_of_any_float_dtype_load(name, dtype, tmp_path, tokenizer_folder):
    config, folder = CONFIGS[name], str(tmp_path / "out")
    params = params_of(config)
    export_llama(params, config, VOCAB, tokenizer_folder, folder)
    path = folder + "/model.safetensors"
    save_file({n: np.asarray(w, dtype) for n, w in load_file(path).items()}, path)
    rounded = jax.tree.map(lambda x: np.asarray(x).astype(dtype).astype(np.float32), params)
    assert_same(rounded, import_llama(folder)[0])


@pytest.mark.parametrize("name", ["grouped, untied", "multi-head, tied"])
def test_a_slice_is_that_of_the_whole(name, tmp_path, tokenizer_folder):
    config, folder = CONFIGS[name], str(tmp_path / "out")
    params = jax.tree.map(np.asarray, params_of(config))
    export_llama(params, config, VOCAB, tokenizer_folder, folder, max_shard_bytes=20_000)
    flat = {**params.pop("layers"), **params}
    with open_llama(folder) as weights:
        for parameter, whole in flat.items():
            for part in range(4):
                # The second half of the dims that are set in `part`; head dims stay whole.
                index = [
                    slice(size // 2, size)
                    if part >> dim & 1 and size != config.head_dim
                    else slice(None)
                    for dim, size in enumerate(whole.shape)
                ]
                np.testing.assert_array_equal(weights.read(parameter, index), whole[tuple(index)])


ON_A_MESH = """
import sys, jax, numpy as np
from snowcoder_jax.model.huggingface import import_llama, load_llama
from snowcoder_jax.recipe import Mesh, Optimizer
from snowcoder_jax.training.mesh import make_mesh
from snowcoder_jax.training.state import state_shapes

whole, config, vocab_size = import_llama(sys.argv[1])
for sizes in (Mesh(), Mesh(fsdp=4, tensor=2), Mesh(replica=2, fsdp=2, tensor=2)):
    shapes = state_shapes(config, vocab_size, Optimizer(), make_mesh(sizes)).params
    params = load_llama(sys.argv[1], shapes)
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, params))
    assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s.sharding, params, shapes))
query = params["layers"]["query"]
assert query.addressable_shards[0].data.size * 4 == query.size
print("placed")
"""


@pytest.mark.slow
def test_a_model_is_placed_on_a_mesh_as_its_shardings_say(tmp_path, tokenizer_folder):
    config = dataclasses.replace(GROUPED, tie_embeddings=True, hidden_dim=64)
    params = decoder.init_params(config, 64, 0)
    folder = str(tmp_path / "out")
    export_llama(params, config, 64, tokenizer_folder, folder, max_shard_bytes=20_000)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "-c", ON_A_MESH, folder], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "placed\n", done.stderr


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
