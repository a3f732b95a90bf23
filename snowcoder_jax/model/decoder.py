"""A Llama-2 style decoder (arXiv 2409.02326 section 2): parameters, forward pass, sizes.

Parameters are a nested dict of float32 arrays, those of the blocks stacked on a leading layer
dim, so that one compiled block serves all layers (`jax.lax.scan`). `Decoder` is the Flax NNX
module; `init_params` and `apply` are the same thing as pure functions of that dict, for a plain
`jax.jit`. Each parameter's logical axis names come from the function `logical_axes(config)`: a
dict of the same structure, with a tuple of names (None: never split) for an array.

Conventions: RMSNorm before each sub-layer (arXiv 1910.07467), rotary positions in float32 in
Hugging Face's half-rotation form (arXiv 2104.09864), SwiGLU (arXiv 2002.05202), grouped-query
heads (arXiv 2305.13245), no biases, no dropout.

Shape legend: B batch, S positions, D hidden, N query heads, K key and value heads, H head dim,
G query heads for each of those (N = K G), T slots of the cache, F mlp hidden, V vocabulary,
L layers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from snowcoder_jax.model.attention import attention, cached_attention
from snowcoder_jax.model.cache import Cache
from snowcoder_jax.model.products import weight_product
from snowcoder_jax.model.remat import block_input, block_part, rematerialised
from snowcoder_jax.model.rotary import Rope, rope_table, rotate
from snowcoder_jax.recipe import AttentionKernel, Model, Remat

Params = dict[str, Any]
# Attention of (q_BSNH, k_BSKH, v_BSKH): its output and what the caller's scan collects.
_Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


def _layer_shapes(config: Model) -> dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]]:
    """Shape and logical axes of each parameter of one block, the layer dim left out."""
    D, F, H = config.hidden_dim, config.mlp_dim, config.head_dim
    N, K = config.num_heads, config.num_kv_heads
    return {
        "attention_norm": ((D,), (None,)),
        "query": ((D, N, H), ("embed", "heads", "head_dim")),
        "key": ((D, K, H), ("embed", "kv_heads", "head_dim")),
        "value": ((D, K, H), ("embed", "kv_heads", "head_dim")),
        "output": ((N, H, D), ("heads", "head_dim", "embed")),
        "mlp_norm": ((D,), (None,)),
        "gate": ((D, F), ("embed", "mlp")),
        "up": ((D, F), ("embed", "mlp")),
        "down": ((F, D), ("mlp", "embed")),
    }


class Layers(nnx.Module):
    """The parameters of all blocks, each stacked on a leading dim of `config.num_layers`."""

    def __init__(self, config: Model, *, rngs: nnx.Rngs) -> None:
        L = config.num_layers
        residual_scale = 1.0 / math.sqrt(2 * L)
        for name, (shape, _) in _layer_shapes(config).items():
            if name.endswith("norm"):
                weight = jnp.ones((L, *shape), jnp.float32)
            else:
                scale = residual_scale if name in ("output", "down") else 1.0
                std = config.initializer_range * scale
                weight = std * jax.random.normal(rngs.params(), (L, *shape), jnp.float32)
            setattr(self, name, nnx.Param(weight))


class Decoder(nnx.Module):
    """Token ids to hidden states. Parameters are float32; the maths is in `compute_dtype`.

    Weights are drawn from N(0, initializer_range^2); the two projections of a block that write
    to the residual stream are scaled down by sqrt(2 L) (GPT-2, section 2.3).

    Args:
      remat: what the forward pass saves of a block besides its input; the backward pass computes
        the rest again. `none`: all of it; `minimal`: rotated queries and keys, values, the
        residual stream after attention, the MLP's two inner products, and the attention's output
        (with what its backward pass needs of it); `attention`: that output alone; `full`: nothing.
        `offload` saves what `attention` does, the block's input counted in, in the host's memory.
      scan_layers: whether one program of a block goes through all layers, or each has its own.
    """

    def __init__(
        self,
        config: Model,
        vocab_size: int,
        *,
        compute_dtype: DTypeLike = jnp.float32,
        remat: Remat = "none",
        scan_layers: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        assert remat in get_args(Remat), remat
        assert config.num_heads % config.num_kv_heads == 0, config
        self.config = config
        self.compute_dtype = jnp.dtype(compute_dtype)
        self.remat = remat
        self.scan_layers = scan_layers
        std, shape = config.initializer_range, (vocab_size, config.hidden_dim)
        self.embedding = nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32))
        self.layers = Layers(config, rngs=rngs)
        self.final_norm = nnx.Param(jnp.ones((config.hidden_dim,), jnp.float32))
        if not config.tie_embeddings:
            self.head = nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32))

    def __call__(
        self,
        ids_BS: jax.Array,
        first_key_BS: jax.Array | None = None,
        *,
        mesh: Mesh | None = None,
        attention_kernel: AttentionKernel = "auto",
    ) -> jax.Array:
        """Hidden states after the final norm, [B, S, D] in compute dtype.

        Args:
          ids_BS: int32 token ids.
          first_key_BS: int32; token s may attend to the tokens from first_key_BS[b, s] to s,
            both counted in. None: to every token up to itself.
          mesh, attention_kernel: where and by what attention is computed; see `attention`.
        """
        config, dtype = self.config, self.compute_dtype
        rope = rope_table(jnp.arange(ids_BS.shape[1])[None], config)

        def attend(
            q_BSNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array
        ) -> tuple[jax.Array, None]:
            o_BSNH = attention(
                q_BSNH, k_BSKH, v_BSKH, first_key_BS, mesh=mesh, kernel=attention_kernel
            )
            return o_BSNH, None

        def step(x_BSD: jax.Array, weights: Params) -> tuple[jax.Array, None]:
            x_BSD = block_input(_row_major(x_BSD, mesh))
            return block(weights, x_BSD, config, rope, attend)

        x_BSD = _embedded(self.embedding[...], ids_BS, mesh).astype(dtype)
        step = rematerialised(step, self.remat, in_loop=self.scan_layers)
        x_BSD, _ = jax.lax.scan(step, x_BSD, layer_weights(self), unroll=not self.scan_layers)
        return rms_norm(x_BSD, self.final_norm[...], config.norm_eps)

    def extend(
        self,
        ids_BS: jax.Array,
        cache: Cache,
        valid_BS: jax.Array | None = None,
        *,
        is_prompt: bool = False,
    ) -> tuple[jax.Array, Cache]:
        """Hidden states [B, S, D] of tokens that follow the cached ones; the cache with both.

        Args:
          ids_BS: int32; the cache must have room for S more slots.
          valid_BS: bool; a token that is not valid (padding, anywhere in its row) takes a slot
            but no position, and none attends to it. None: all are valid.
          is_prompt: the cache is empty, and its slots are not looked at.
        """
        config, S = self.config, ids_BS.shape[1]
        T = 0 if is_prompt else cache.valid.shape[1]
        if valid_BS is None:
            valid_BS = jnp.ones(ids_BS.shape, jnp.bool_)
        num_before_B = jnp.sum(cache.valid, axis=1)
        positions_BS = num_before_B[:, None] + jnp.cumsum(valid_BS, axis=1) - 1
        rope = rope_table(positions_BS, config)
        new_mask_BSS = jnp.tril(jnp.ones((S, S), jnp.bool_)) & valid_BS[:, None, :]

        def step(x_BSD: jax.Array, layer: tuple[Params, jax.Array, jax.Array]) -> tuple[Any, Any]:
            weights, k_BKTH, v_BKTH = layer

            def attend(
                q_BSNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array
            ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
                old = k_BKTH[:, :, :T], v_BKTH[:, :, :T], cache.valid[:, :T]
                return cached_attention(q_BSNH, k_BSKH, v_BSKH, *old, new_mask_BSS)

            return block(weights, x_BSD, config, rope, attend)

        x_BSD = self.embedding[...][ids_BS].astype(self.compute_dtype)
        layers = (layer_weights(self), cache.keys, cache.values)
        x_BSD, (k_LBKSH, v_LBKSH) = jax.lax.scan(step, x_BSD, layers)

        def written(old: jax.Array, new: jax.Array, axis: int) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(
                old, new.astype(old.dtype), cache.num_slots, axis
            )

        cache = Cache(
            written(cache.keys, k_LBKSH, 3),
            written(cache.values, v_LBKSH, 3),
            written(cache.valid, valid_BS, 1),
            cache.num_slots + S,
        )
        return rms_norm(x_BSD, self.final_norm[...], config.norm_eps), cache

    def output_embedding(self) -> jax.Array:
        """The matrix [V, D] whose product with a hidden state gives the logits, float32."""
        return self.embedding[...] if self.config.tie_embeddings else self.head[...]


def _embedded(embedding_VD: jax.Array, ids_BS: jax.Array, mesh: Mesh | None) -> jax.Array:
    """[B, S, D] in the dtype of the embedding.

    Where an axis besides fsdp is split, XLA would first make the whole batch's activations on
    every device, over the network between slices too; told where things lie, it gathers the
    table's D instead.
    """
    if mesh is None or mesh.size == mesh.shape["fsdp"]:
        return embedding_VD[ids_BS]
    table, rows = PartitionSpec("tensor", None), PartitionSpec(("replica", "fsdp"), "context", None)
    placed_VD = jax.lax.with_sharding_constraint(embedding_VD, NamedSharding(mesh, table))
    return jax.lax.with_sharding_constraint(placed_VD[ids_BS], NamedSharding(mesh, rows))


def _row_major(x_BSD: jax.Array, mesh: Mesh | None) -> jax.Array:
    """The same, on TPUs in the order of its dims.

    Else XLA keeps it positions-first there, as a sharded embedding hands it over, and copies
    follow in every block: 0.8 ms a layer (v5p, two rows of 8,192). Outside of `shard_map` the
    constraint loses the sharding, and every device gathers the whole batch to recompute a block.
    """
    if mesh is None or mesh.devices.flat[0].platform != "tpu":
        return x_BSD
    rows = PartitionSpec(("replica", "fsdp"), "context", None)

    def constrained(x_BSD: jax.Array) -> jax.Array:
        return with_layout_constraint(x_BSD, Layout((0, 1, 2)))

    ordered_BSD: jax.Array = jax.shard_map(constrained, mesh=mesh, in_specs=rows, out_specs=rows)(
        x_BSD
    )
    return ordered_BSD


def layer_weights(model: Decoder) -> Params:
    """The stacked weights of the blocks as a plain dict of arrays."""
    weights: Params = nnx.to_pure_dict(nnx.state(model.layers, nnx.Param))
    return weights


def block(
    weights: Params, x_BSD: jax.Array, config: Model, rope: Rope, attend: _Attend
) -> tuple[jax.Array, Any]:
    """One block: attention and SwiGLU, each added to the residual stream.

    Returns:
      The residual stream after the block, and what `attend` gave besides its output.

    Args:
      weights: one layer of the stacked parameters.
      rope: cosines and sines from `rope_table`.
      attend: attention of queries, keys and values, the rotation already applied.
    """
    w = {name: weight.astype(x_BSD.dtype) for name, weight in weights.items()}
    y_BSD = rms_norm(x_BSD, weights["attention_norm"], config.norm_eps)
    q_BSNH = block_part(rotate(weight_product("bsd,dnh->bsnh", y_BSD, w["query"]), rope))
    k_BSKH = block_part(rotate(weight_product("bsd,dnh->bsnh", y_BSD, w["key"]), rope))
    v_BSKH = block_part(weight_product("bsd,dnh->bsnh", y_BSD, w["value"]))
    o_BSNH, collected = attend(q_BSNH, k_BSKH, v_BSKH)
    x_BSD = block_part(x_BSD + weight_product("bsnh,nhd->bsd", o_BSNH, w["output"]))
    y_BSD = rms_norm(x_BSD, weights["mlp_norm"], config.norm_eps)
    gate_BSF, up_BSF = (
        block_part(weight_product("bsd,df->bsf", y_BSD, w[name])) for name in ("gate", "up")
    )
    x_BSD = x_BSD + weight_product("bsf,fd->bsd", jax.nn.silu(gate_BSF) * up_BSF, w["down"])
    return x_BSD, collected


def rms_norm(x: jax.Array, scale_D: jax.Array, eps: float) -> jax.Array:
    """x / rms(x) * scale over the last dim, in float32, back in the dtype of x."""
    x32 = x.astype(jnp.float32)
    inverse_rms = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * inverse_rms * scale_D).astype(x.dtype)


# The same, as pure functions of a dict of arrays.


@functools.cache
def _graph(
    config: Model, vocab_size: int, compute_dtype: str, remat: Remat, scan_layers: bool
) -> nnx.GraphDef[Decoder]:
    def make() -> Decoder:
        return Decoder(
            config,
            vocab_size,
            compute_dtype=compute_dtype,
            remat=remat,
            scan_layers=scan_layers,
            rngs=nnx.Rngs(0),
        )

    graph, _ = nnx.split(nnx.eval_shape(make))
    return graph


def init_params(config: Model, vocab_size: int, seed: int) -> Params:
    """Fresh float32 parameters as a nested dict; a pure function of its arguments."""
    model = Decoder(config, vocab_size, rngs=nnx.Rngs(seed))
    params: Params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params


def apply(
    params: Params,
    config: Model,
    vocab_size: int,
    ids_BS: jax.Array,
    first_key_BS: jax.Array | None = None,
    *,
    compute_dtype: DTypeLike = jnp.float32,
    remat: Remat = "none",
    scan_layers: bool = True,
    mesh: Mesh | None = None,
    attention_kernel: AttentionKernel = "auto",
) -> jax.Array:
    """`Decoder.__call__` of `params`: hidden states [B, S, D] in compute dtype."""
    graph = _graph(config, vocab_size, jnp.dtype(compute_dtype).name, remat, scan_layers)
    hidden_BSD: jax.Array = nnx.merge(graph, params)(
        ids_BS, first_key_BS, mesh=mesh, attention_kernel=attention_kernel
    )
    return hidden_BSD


def apply_cached(
    params: Params,
    config: Model,
    vocab_size: int,
    ids_BS: jax.Array,
    cache: Cache,
    valid_BS: jax.Array | None = None,
    *,
    is_prompt: bool = False,
    compute_dtype: DTypeLike = jnp.float32,
) -> tuple[jax.Array, Cache]:
    """`Decoder.extend` of `params`."""
    graph = _graph(config, vocab_size, jnp.dtype(compute_dtype).name, "none", True)
    return nnx.merge(graph, params).extend(ids_BS, cache, valid_BS, is_prompt=is_prompt)


def output_embedding(params: Params, config: Model) -> jax.Array:
    """`Decoder.output_embedding` of `params`: [V, D], float32."""
    weight: jax.Array = params["embedding" if config.tie_embeddings else "head"]
    return weight


def logical_axes(config: Model) -> Params:
    """Names of each parameter's dims, in the structure of `init_params`.

    The names are layer, vocab, embed, heads, kv_heads, head_dim, mlp; None for the dims of
    norms, which are too small to split.
    """
    layers = {name: ("layer", *axes) for name, (_, axes) in _layer_shapes(config).items()}
    axes: Params = {"embedding": ("vocab", "embed"), "layers": layers, "final_norm": (None,)}
    if not config.tie_embeddings:
        axes["head"] = ("vocab", "embed")
    return axes


def num_parameters(config: Model, vocab_size: int) -> int:
    """All parameters; a tied embedding is counted once."""
    per_layer = sum(math.prod(shape) for shape, _ in _layer_shapes(config).values())
    tables = 1 if config.tie_embeddings else 2
    return (
        config.num_layers * per_layer + config.hidden_dim + tables * vocab_size * config.hidden_dim
    )


def flops_per_token(config: Model, vocab_size: int, sequence_length: int, *, causal: bool) -> float:
    """Floating-point operations of training on one token: forward and backward, no recomputing.

    6 per parameter that multiplies (an input embedding of its own is a look-up) plus
    12 L N H S for the attention's two products (arXiv 2204.02311, appendix B); half of the
    latter where `causal`, since a token sees half of the sequence on average.
    """
    num_multiplied = num_parameters(config, vocab_size)
    if not config.tie_embeddings:
        num_multiplied -= vocab_size * config.hidden_dim
    attended = sequence_length / 2 if causal else sequence_length
    return 6.0 * num_multiplied + (
        12.0 * config.num_layers * config.num_heads * config.head_dim * attended
    )
