"""config.json of a Llama model in Hugging Face format, in and out.

RoPE settings are written both as `rope_parameters` (transformers 5) and as `rope_theta` and
`rope_scaling` (transformers 4 and others): a reader that knows only one spelling and does not find
it falls back to a base of 10,000 without a word. Imports no JAX: a recipe that names a base model
is read with it.
"""

from __future__ import annotations

import json
from typing import Any

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Model, RopeScaling

CONFIG = "config.json"

# What the decoder has; anything else would be left out of its maths.
_WANTED: dict[str, object] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
}
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "vocab_size",
)


def config_json(
    config: Model, vocab_size: int, special_ids: dict[str, int | None]
) -> dict[str, Any]:
    """What config.json holds for a model of this shape.

    Args:
      special_ids: `bos_token_id` and `eos_token_id`.
    """
    rope: dict[str, Any] = {"rope_type": "default"}
    if (scaling := config.rope_scaling) is not None:
        rope = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            rope |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }
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
        "rope_parameters": {**rope, "rope_theta": config.rope_theta},
        **({"rope_scaling": rope} if scaling is not None else {}),
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


def read_config(folder: str) -> tuple[Model, int]:
    """The shape and the vocabulary size of the model in a folder.

    Raises:
      InputError: config.json is missing or broken, or the model has what the decoder does not
        (another architecture, RoPE scaled in another way, biases, another activation): all of it
        at once.
    """
    path = storage.join(folder, CONFIG)
    facts = read_json(path)
    problems = [
        f"{name} is {facts.get(name)!r}, and the decoder only has {wanted!r}"
        for name, wanted in _WANTED.items()
        if facts.get(name, wanted) != wanted or (name == "model_type" and name not in facts)
    ]
    problems += [f"{name} is missing" for name in _SIZES if facts.get(name) is None]
    theta, scaling = _rope(facts, problems)
    if problems:
        lines = "; ".join(problems)
        raise InputError(f"{path}: {lines}. Choose a plain Llama model, and fetch it whole.")
    num_heads = int(facts["num_attention_heads"])
    config = Model(
        hidden_dim=int(facts["hidden_size"]),
        mlp_dim=int(facts["intermediate_size"]),
        num_layers=int(facts["num_hidden_layers"]),
        num_heads=num_heads,
        num_kv_heads=int(facts.get("num_key_value_heads") or num_heads),
        head_dim=int(facts.get("head_dim") or facts["hidden_size"] // num_heads),
        max_sequence_length=int(facts["max_position_embeddings"]),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=float(facts["rms_norm_eps"]),
        tie_embeddings=bool(facts.get("tie_word_embeddings", False)),
        attention=facts.get("snowcoder_attention", "causal"),
        initializer_range=float(facts.get("initializer_range", 0.02)),
    )
    return config, int(facts["vocab_size"])


def _rope(facts: dict[str, Any], problems: list[str]) -> tuple[float, RopeScaling | None]:
    """Base and scaling of RoPE; what cannot be honoured becomes a problem."""
    # transformers 4 keeps scaling apart, transformers 5 in the same dict as theta.
    rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    thetas = {float(d["rope_theta"]) for d in (facts, rope) if d.get("rope_theta") is not None}
    if len(thetas) > 1:
        problems.append(
            f"rope_theta is {min(thetas)} in one place and {max(thetas)} in another: "
            "keep the one that the model was trained with"
        )
    theta = thetas.pop() if thetas else 10_000.0
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    names = {"factor": "factor"}
    if kind == "llama3":
        names |= {
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_max_positions": "original_max_position_embeddings",
        }
    elif kind != "linear":
        problems.append(f"rope_type is {kind!r}, and the decoder has 'linear' and 'llama3' only")
        return theta, None
    missing = [theirs for theirs in names.values() if rope.get(theirs) is None]
    problems += [f"{name} of the {kind} RoPE scaling is missing" for name in missing]
    if missing:
        return theta, None
    return theta, RopeScaling(kind, **{ours: rope[theirs] for ours, theirs in names.items()})


def read_json(path: str) -> Any:
    """Raises InputError where the file is missing or no JSON."""
    if not storage.exists(path):
        raise InputError(f"{path}: there is no such file; give the folder of a whole model")
    try:
        return json.loads(storage.read_bytes(path))
    except ValueError as e:
        raise InputError(f"{path}: not JSON ({e}); fetch it again") from e
