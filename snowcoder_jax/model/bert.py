"""BERT (arXiv 1810.04805) as maths: parameters, forward pass, pooling, batches of windows.

`Bert` is the Flax NNX module; `apply` and `pool` are pure functions of a nested dict of float32
arrays, the blocks stacked on a leading layer dim and scanned. Loading is in `encoder.py`.

Shape legend: B batch, S positions, D hidden, N heads, H head dim, F mlp hidden, L layers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

Params = dict[str, Any]
Pooling = Literal["mean", "cls"]

# Tokens of one batch of windows. On a CPU the activations of 1,024 tokens stay in its caches
# (batches of 4,096 are a tenth slower); an accelerator needs more to be busy.
CPU_BATCH_TOKENS = 1_024
ACCELERATOR_BATCH_TOKENS = 65_536


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT, by the names of its `config.json` in this project's words."""

    vocab_size: int
    num_positions: int
    num_token_types: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    norm_eps: float

    @property
    def head_dim(self) -> int:
        return self.hidden_dim // self.num_heads


def parameter_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    D, F, L = config.hidden_dim, config.mlp_dim, config.num_layers
    return {
        "word": (config.vocab_size, D),
        "position": (config.num_positions, D),
        "token_type": (config.num_token_types, D),
        "norm": (D,),
        "norm_bias": (D,),
        "qkv": (L, D, 3 * D),
        "qkv_bias": (L, 3 * D),
        "output": (L, D, D),
        "output_bias": (L, D),
        "attention_norm": (L, D),
        "attention_norm_bias": (L, D),
        "up": (L, D, F),
        "up_bias": (L, F),
        "down": (L, F, D),
        "down_bias": (L, D),
        "mlp_norm": (L, D),
        "mlp_norm_bias": (L, D),
    }


_LAYER_WEIGHTS = (
    *("qkv", "qkv_bias", "output", "output_bias", "attention_norm", "attention_norm_bias"),
    *("up", "up_bias", "down", "down_bias", "mlp_norm", "mlp_norm_bias"),
)


class Bert(nnx.Module):
    """Token ids to hidden states, all in float32. Made of zeros: weights are always loaded."""

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        for name, shape in parameter_shapes(config).items():
            setattr(self, name, nnx.Param(jnp.zeros(shape, jnp.float32)))

    def __call__(self, ids_BS: jax.Array, mask_BS: jax.Array | None) -> jax.Array:
        """See `apply`."""
        p: Params = nnx.to_pure_dict(nnx.state(self, nnx.Param))
        eps = self.config.norm_eps
        x_BSD = p["word"][ids_BS] + p["position"][: ids_BS.shape[1]] + p["token_type"][0]
        x_BSD = layer_norm(x_BSD, p["norm"], p["norm_bias"], eps)

        def block(x_BSD: jax.Array, w: Params) -> tuple[jax.Array, None]:
            o_BSD = _attend(x_BSD @ w["qkv"] + w["qkv_bias"], mask_BS, self.config)
            x_BSD = x_BSD + o_BSD @ w["output"] + w["output_bias"]
            x_BSD = layer_norm(x_BSD, w["attention_norm"], w["attention_norm_bias"], eps)
            y_BSF = _gelu(x_BSD @ w["up"] + w["up_bias"])
            x_BSD = x_BSD + y_BSF @ w["down"] + w["down_bias"]
            return layer_norm(x_BSD, w["mlp_norm"], w["mlp_norm_bias"], eps), None

        x_BSD, _ = jax.lax.scan(block, x_BSD, {name: p[name] for name in _LAYER_WEIGHTS})
        return x_BSD


def layer_norm(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array, eps: float) -> jax.Array:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + eps) * scale_D + bias_D


def _gelu(x: jax.Array) -> jax.Array:
    """x * Phi(x), exact, through erf (a twentieth faster here than erfc, which jax.nn takes)."""
    return x * (0.5 * jax.lax.erf(x * math.sqrt(0.5)) + 0.5)


def _attend(qkv: jax.Array, mask_BS: jax.Array | None, config: BertConfig) -> jax.Array:
    """Softmax attention [B, S, D] of joined projections [B, S, 3D], every token to every one.

    The weights are divided by their sum after the product with the values: the same result, with
    H rather than S divisions a row.
    """
    B, S, _ = qkv.shape
    N, H = config.num_heads, config.head_dim
    q_BNSH, k_BNSH, v_BNSH = qkv.reshape(B, S, 3, N, H).transpose(2, 0, 3, 1, 4)
    scores_BNSS = jnp.einsum("bnsh,bnth->bnst", q_BNSH / math.sqrt(H), k_BNSH)
    if mask_BS is not None:
        scores_BNSS = jnp.where(mask_BS[:, None, None, :], scores_BNSS, -jnp.inf)
    weights_BNSS = jnp.exp(scores_BNSS - jnp.max(scores_BNSS, axis=-1, keepdims=True))
    o_BNSH = jnp.einsum("bnst,bnth->bnsh", weights_BNSS, v_BNSH)
    o_BNSH = o_BNSH / jnp.sum(weights_BNSS, axis=-1)[..., None]
    return o_BNSH.transpose(0, 2, 1, 3).reshape(B, S, N * H)


@functools.cache
def _graph(config: BertConfig) -> nnx.GraphDef[Bert]:
    graph, _ = nnx.split(nnx.eval_shape(lambda: Bert(config)))
    return graph


def apply(
    params: Params, config: BertConfig, ids_BS: jax.Array, mask_BS: jax.Array | None = None
) -> jax.Array:
    """Hidden states of the last layer, float32 [B, S, D].

    Args:
      ids_BS: int32 token ids, the special ones included; S at most `config.num_positions`.
      mask_BS: bool, True where a token stands, at least one in each row; None: everywhere.
    """
    assert ids_BS.shape[1] <= config.num_positions, (ids_BS.shape, config)
    hidden_BSD: jax.Array = nnx.merge(_graph(config), params)(ids_BS, mask_BS)
    return hidden_BSD


def pool(hidden_BSD: jax.Array, mask_BS: jax.Array | None, pooling: Pooling) -> jax.Array:
    """One vector a window, float32 [B, D]: its first token's, or the mean over its tokens."""
    if pooling == "cls":
        return hidden_BSD[:, 0]
    if mask_BS is None:
        return jnp.mean(hidden_BSD, axis=1)
    kept_BS1 = mask_BS[:, :, None].astype(hidden_BSD.dtype)
    return jnp.sum(hidden_BSD * kept_BS1, axis=1) / jnp.sum(kept_BS1, axis=1)


@functools.partial(jax.jit, static_argnames=("config", "pooling"))
def embed(
    params: Params,
    ids_BS: jax.Array,
    mask_BS: jax.Array | None,
    *,
    config: BertConfig,
    pooling: Pooling,
) -> jax.Array:
    """`pool` of `apply`, compiled: float32 [B, D]."""
    return pool(apply(params, config, ids_BS, mask_BS), mask_BS, pooling)


Batch = tuple[list[int], npt.NDArray[np.int32], npt.NDArray[np.bool_] | None]


def batches(windows: Sequence[Sequence[int]], num_positions: int) -> Iterator[Batch]:
    """Cut windows into batches of few shapes: (positions in `windows`, ids_BS, mask_BS or None).

    A batch's width is 32, 64, 128 or a multiple of 64, at most `num_positions`, and it holds a
    fixed number of tokens, so each width compiles once. Windows that fill their batch's width,
    as most windows of most files do, need no mask. Rows after the last position are filler.
    """
    cpu = jax.default_backend() == "cpu"
    num_tokens = CPU_BATCH_TOKENS if cpu else ACCELERATOR_BATCH_TOKENS
    groups: dict[tuple[int, bool], list[int]] = {}
    for position in sorted(range(len(windows)), key=lambda i: -len(windows[i])):
        length = len(windows[position])
        assert 0 < length <= num_positions, (length, num_positions)
        width = next((w for w in (32, 64, 128) if w >= length), -(-length // 64) * 64)
        width = min(width, num_positions)
        groups.setdefault((width, length == width), []).append(position)
    for (width, full), positions in groups.items():
        batch_size = max(num_tokens // width, 1)
        for start in range(0, len(positions), batch_size):
            chosen = positions[start : start + batch_size]
            ids_BS = np.zeros((batch_size, width), np.int32)
            mask_BS = np.zeros((batch_size, width), np.bool_)
            mask_BS[:, 0] = True
            for row, position in enumerate(chosen):
                ids_BS[row, : len(windows[position])] = windows[position]
                mask_BS[row, : len(windows[position])] = True
            yield chosen, ids_BS, None if full else mask_BS
