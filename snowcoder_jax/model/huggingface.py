"""Weights in Hugging Face Llama format, out and in.

Rotary positions already pair dims as `LlamaForCausalLM` does, so every weight is a reshaped
plain copy. RoPE settings are written both as `rope_parameters` (transformers 5) and as
`rope_theta` (transformers 4 and others): a reader that knows only one spelling and does not find
it falls back to a base of 10,000 without a word.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.model.decoder import Params
from snowcoder_jax.recipe import Model

MAX_SHARD_BYTES = 5_000_000_000

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
# Our name of a block's weight, and theirs; norms are vectors, the others matrices [out, in].
_LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_TABLE_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
}
_Array = npt.NDArray[Any]


def export_llama(
    params: Params,
    config: Model,
    vocab_size: int,
    tokenizer_folder: str,
    folder: str,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that `transformers` and vLLM load: config.json, weights, tokenizer.

    The folder comes into being whole, by rename (on an object store config.json, without which
    nothing loads it, is uploaded last); one that is there already is replaced. Weights are
    float32, split in several files above `max_shard_bytes`.

    Raises:
      InputError: the tokenizer folder has no tokenizer.json, or `folder` cannot be written.
      MachineError: the disk is full.
    """
    tokenizer_files = [f for f in _TOKENIZER_FILES if storage.exists(_in(tokenizer_folder, f))]
    if "tokenizer.json" not in tokenizer_files:
        raise InputError(
            f"{tokenizer_folder}: there is no tokenizer.json; "
            "give the folder of the tokenizer that the model was trained with"
        )
    with _atomic_folder(folder) as temporary:
        _write_weights(params, temporary, max_shard_bytes)
        for name in tokenizer_files:
            storage.write_bytes(
                _in(temporary, name), storage.read_bytes(_in(tokenizer_folder, name))
            )
        facts = _config_json(config, vocab_size, _special_ids(tokenizer_folder))
        storage.write_json(_in(temporary, "config.json"), facts)


def import_llama(folder: str) -> tuple[Params, Model, int]:
    """Parameters (float32 numpy arrays), config and vocabulary size of a Llama folder.

    Weights may be in one or several safetensors files, of any float dtype.

    Raises:
      InputError: a file is missing or broken, or the model has what the decoder does not
        (another architecture, scaled RoPE, biases, another activation).
    """
    config, vocab_size = _read_config(_in(folder, "config.json"))
    shapes = _stacked_shapes(config, vocab_size)
    params: Params = {
        name: np.empty(shapes[name], np.float32) for name in _TABLE_NAMES if name in shapes
    }
    params["layers"] = {name: np.empty(shapes[name], np.float32) for name in _LAYER_NAMES}
    targets = dict(_named_views(params))
    missing = set(targets)
    for path in _weight_files(folder):
        with _local(path) as local, _open_weights(local, path) as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                if name not in targets:
                    _check_surplus(name, config, path)
                    continue
                _copy_weight(weights.get_tensor(name), targets[name], f"{path}: {name}")
                missing.discard(name)
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} weights are missing, {min(missing)} the first; "
            "fetch the whole model again"
        )
    return params, config, vocab_size


def _named_views(params: Params) -> Iterator[tuple[str, _Array]]:
    """Hugging Face's names and [out, in] shapes, as views of our arrays."""
    for ours, theirs in _TABLE_NAMES.items():
        if ours in params:
            yield theirs, np.asarray(params[ours])
    for ours, theirs in _LAYER_NAMES.items():
        stacked = np.asarray(params["layers"][ours])
        for i, weight in enumerate(stacked):
            yield f"model.layers.{i}.{theirs}.weight", _as_matrix(ours, weight)


def _as_matrix(name: str, weight: _Array) -> _Array:
    if name.endswith("norm"):
        return weight
    rows = -1 if name == "output" else weight.shape[0]
    return weight.reshape(rows, weight.shape[-1] if name == "output" else -1).T


def _stacked_shapes(config: Model, vocab_size: int) -> dict[str, tuple[int, ...]]:
    L, D, F, H = config.num_layers, config.hidden_dim, config.mlp_dim, config.head_dim
    N, K = config.num_heads, config.num_kv_heads
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (vocab_size, D),
        "final_norm": (D,),
        "attention_norm": (L, D),
        "query": (L, D, N, H),
        "key": (L, D, K, H),
        "value": (L, D, K, H),
        "output": (L, N, H, D),
        "mlp_norm": (L, D),
        "gate": (L, D, F),
        "up": (L, D, F),
        "down": (L, F, D),
    }
    if not config.tie_embeddings:
        shapes["head"] = (vocab_size, D)
    return shapes


def _write_weights(params: Params, folder: str, max_shard_bytes: int) -> None:
    shards: list[dict[str, _Array]] = [{}]
    size = total = 0
    for name, view in _named_views(params):
        if size and size + view.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = view
        size += view.nbytes
        total += view.nbytes
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, start=1):
        several = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        file = _WEIGHTS if len(shards) == 1 else several
        # safetensors writes an array's memory as it lies: views would come out scrambled.
        whole = {name: np.ascontiguousarray(view, np.float32) for name, view in shard.items()}
        save_file(whole, os.path.join(folder, file), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        storage.write_json(_in(folder, _INDEX), index)


def _config_json(
    config: Model, vocab_size: int, special_ids: dict[str, int | None]
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": config.hidden_dim,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_sequence_length,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.initializer_range,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "dtype": "float32",
        "torch_dtype": "float32",
        **special_ids,
        # Not known to Llama: how documents packed together were masked in training.
        "snowcoder_attention": config.attention,
    }


def _special_ids(tokenizer_folder: str) -> dict[str, int | None]:
    """bos_token_id and eos_token_id; None (and not Llama's own 1 and 2) where there is none."""
    tokenizer = _read_json(_in(tokenizer_folder, "tokenizer.json"))
    ids = dict(tokenizer["model"].get("vocab", {})) | {
        token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []
    }
    path = _in(tokenizer_folder, "tokenizer_config.json")
    settings = _read_json(path) if storage.exists(path) else {}
    found: dict[str, int | None] = {}
    for kind in ("bos", "eos"):
        token = settings.get(f"{kind}_token")
        content = token.get("content") if isinstance(token, dict) else token
        if content is not None and content not in ids:
            raise InputError(f"{path}: {kind}_token {content!r} is not in tokenizer.json")
        found[f"{kind}_token_id"] = None if content is None else ids[content]
    return found


def _read_config(path: str) -> tuple[Model, int]:
    facts = _read_json(path)
    # transformers 4 keeps scaling apart, transformers 5 in the same dict as theta.
    rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    thetas = {float(d["rope_theta"]) for d in (facts, rope) if d.get("rope_theta") is not None}
    _require(path, "model_type", facts.get("model_type"), "llama")
    _require(path, "hidden_act", facts.get("hidden_act", "silu"), "silu")
    _require(path, "attention_bias", facts.get("attention_bias", False), False)
    _require(path, "mlp_bias", facts.get("mlp_bias", False), False)
    _require(path, "rope_type", rope_type, "default")
    if len(thetas) > 1:
        raise InputError(
            f"{path}: rope_theta is {min(thetas)} in one place and {max(thetas)} in another; "
            "keep the one that the model was trained with"
        )
    try:
        num_heads = int(facts["num_attention_heads"])
        config = Model(
            hidden_dim=int(facts["hidden_size"]),
            mlp_dim=int(facts["intermediate_size"]),
            num_layers=int(facts["num_hidden_layers"]),
            num_heads=num_heads,
            num_kv_heads=int(facts.get("num_key_value_heads") or num_heads),
            head_dim=int(facts.get("head_dim") or facts["hidden_size"] // num_heads),
            max_sequence_length=int(facts["max_position_embeddings"]),
            rope_theta=thetas.pop() if thetas else 10_000.0,
            norm_eps=float(facts["rms_norm_eps"]),
            tie_embeddings=bool(facts.get("tie_word_embeddings", False)),
            attention=facts.get("snowcoder_attention", "causal"),
            initializer_range=float(facts.get("initializer_range", 0.02)),
        )
        return config, int(facts["vocab_size"])
    except KeyError as e:
        raise InputError(f"{path}: {e.args[0]} is missing; fetch the whole model again") from e


def _require(path: str, field: str, value: object, wanted: object) -> None:
    if value != wanted:
        raise InputError(
            f"{path}: {field} is {value!r}, and the decoder only has {wanted!r}; "
            "choose a plain Llama model"
        )


def _weight_files(folder: str) -> list[str]:
    if storage.exists(_in(folder, _INDEX)):
        weight_map = _read_json(_in(folder, _INDEX))["weight_map"]
        return [_in(folder, name) for name in sorted(set(weight_map.values()))]
    return [_in(folder, _WEIGHTS)]


@contextlib.contextmanager
def _open_weights(local: str, path: str) -> Iterator[Any]:
    # JAX's numpy dtypes (ml_dtypes) make bfloat16 readable without another framework.
    try:
        opened = safe_open(local, framework="numpy")
    except SafetensorError as e:
        raise InputError(f"{path}: not a whole safetensors file ({e}); fetch it again") from e
    with opened as weights:
        yield weights


def _check_surplus(name: str, config: Model, path: str) -> None:
    """Refuse a weight that the decoder would leave out of its maths."""
    is_tied_copy = config.tie_embeddings and name == _TABLE_NAMES["head"]
    # Old exports carry RoPE's frequencies, which the config gives as well.
    if not (is_tied_copy or name.endswith("rotary_emb.inv_freq")):
        raise InputError(
            f"{path}: {name} is a weight that the decoder does not have; choose a plain Llama model"
        )


def _copy_weight(weight: _Array, target: _Array, where: str) -> None:
    if weight.shape != target.shape:
        raise InputError(
            f"{where} has shape {weight.shape}, and config.json asks for {target.shape}; "
            "the two are not of the same model"
        )
    target[...] = weight.astype(np.float32)


def _read_json(path: str) -> Any:
    if not storage.exists(path):
        raise InputError(f"{path}: there is no such file; give the folder of a whole model")
    try:
        return storage.read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: not JSON ({e}); fetch it again") from e


def _in(folder: str, name: str) -> str:
    return storage.join(folder, name)


@contextlib.contextmanager
def _local(path: str) -> Iterator[str]:
    """`path` itself, or a local copy of it for as long as it is needed."""
    if not storage.exists(path):
        raise InputError(f"{path}: there is no such file; fetch the whole model again")
    if storage.is_local(path):
        yield path
        return
    fs, inner = fsspec.core.url_to_fs(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, os.path.basename(path))
        fs.get_file(inner, copy)
        yield copy


@contextlib.contextmanager
def _atomic_folder(folder: str) -> Iterator[str]:
    """A local folder to fill; on a clean exit it becomes `folder`, whole."""
    if not storage.is_local(folder):
        with tempfile.TemporaryDirectory() as temporary:
            yield temporary
            names = sorted(os.listdir(temporary), key=lambda name: name == "config.json")
            storage.remove(_in(folder, "config.json"))
            fs, inner = fsspec.core.url_to_fs(folder)
            for name in names:
                fs.put_file(os.path.join(temporary, name), _in(inner, name))
        return
    target = os.path.abspath(folder)
    with storage.machine_faults(folder):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary, old = (
            os.path.join(
                os.path.dirname(target), f".tmp-{os.getpid()}-{kind}{os.path.basename(target)}"
            )
            for kind in ("", "old-")
        )
        storage.remove(temporary)
        os.mkdir(temporary)
        try:
            yield temporary
            if os.path.exists(target):
                os.rename(target, old)
            os.rename(temporary, target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
