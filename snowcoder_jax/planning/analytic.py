"""Memory and time of a step by arithmetic: to rank layouts before any is compiled.

Bytes are of one chip. The estimate aims at the order of layouts and at within about a fifth of
the compiler's figures, which decide.

Shape legend: D hidden, A all query heads' dims, C all key and value heads' dims, F mlp hidden,
V vocabulary, L layers.
"""

from __future__ import annotations

import dataclasses
import math

from snowcoder_jax import recipe
from snowcoder_jax.model import decoder
from snowcoder_jax.planning.chips import Topology

# Shares of the matrix units' peak that products with weights reach: v5p and v5e by compiled steps,
# GPUs by what others publish for models of this size (about half of the peak over the whole step).
MATMUL_EFFICIENCY = {"tpu": 0.85, "gpu": 0.65}
# That of attention kernels, causal operations counted: chosen, at the lower end of what is
# published for blocks of 1,024.
ATTENTION_EFFICIENCY = {"tpu": 0.6, "gpu": 0.5}
# Of what goes over the links while the chip computes, the part that still costs time: chosen.
_NOT_HIDDEN = 0.3
# One way between a chip and its host's memory, PCIe 4 shared by the chips of a host.
_HOST_BYTES_PER_SECOND = 16e9
# Under these the backward pass multiplies with no weight again.
NOTHING_AGAIN = ("none", "minimal")


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the search varies, with what follows from it.

    Attributes:
      rows_per_chip: sequences that go through one chip (or its tensor and context group) at once.
    """

    remat: recipe.Remat
    microbatches: int
    rows_per_chip: int

    def __str__(self) -> str:
        return f"{self.rows_per_chip} a chip x {self.microbatches}, remat {self.remat}"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one chip by kind."""

    parameters: int
    moments: int
    gradients: int
    gathered_weights: int
    saved_activations: int
    working_set: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Work:
    """What one step asks of one chip, and how long that takes by arithmetic.

    Attributes:
      weight_flop: of the products with weights, forward and backward, no recomputing.
      attention_flop: of causal attention alike.
      recomputed_flop: what the backward pass makes again.
      gathered_bytes: weights gathered and gradients reduced, over the links.
    """

    weight_flop: float
    attention_flop: float
    recomputed_flop: float
    gathered_bytes: float
    seconds: float


def memory(
    model: recipe.Model,
    vocab_size: int,
    layout: Layout,
    mesh_sizes: dict[str, int],
    sequence_length: int,
    loss_chunk_tokens: int,
) -> Memory:
    tensor = mesh_sizes["tensor"]
    num_shards = mesh_sizes["fsdp"] * tensor
    num_params = decoder.num_parameters(model, vocab_size)
    per_layer = _per_layer_parameters(model)
    tokens = layout.rows_per_chip * sequence_length / mesh_sizes["context"]
    table = vocab_size * model.hidden_dim / tensor
    D = model.hidden_dim
    A = model.num_heads * model.head_dim / tensor
    F = model.mlp_dim / tensor
    wide = D + 2 * A + 3 * F
    accumulated = 4 * num_params / num_shards if layout.microbatches > 1 else 0
    return Memory(
        parameters=int(4 * num_params / num_shards),
        moments=int(8 * num_params / num_shards),
        gradients=int(4 * num_params / num_shards + accumulated),
        # Two layers in bfloat16, so that one is fetched while the other is used; the embedding
        # and its gradient; every chip's own share of all weights in bfloat16.
        gathered_weights=int(
            2 * 2 * per_layer / tensor + (2 + 4) * table + 2 * num_params / num_shards
        ),
        saved_activations=int(
            model.num_layers * tokens * 2 * _saved_per_token(model, layout.remat, tensor)
        ),
        working_set=int(2 * tokens * 2 * wide + min(tokens, loss_chunk_tokens) * table / D * 10),
    )


def _saved_per_token(model: recipe.Model, remat: recipe.Remat, tensor: int) -> float:
    """bfloat16 numbers kept for each token of a layer from the forward to the backward pass."""
    D, F = model.hidden_dim, model.mlp_dim / tensor
    A = model.num_heads * model.head_dim / tensor
    C = model.num_kv_heads * model.head_dim / tensor
    normaliser = 2 * model.num_heads / tensor
    saved: dict[str, float] = {
        # In the host's memory; two layers' worth is on the chip at a time.
        "offload": 2 * (D + A) / model.num_layers,
        "full": D,
        "attention": D + A + normaliser,
        "minimal": 2 * D + 2 * A + 2 * C + normaliser + 2 * F,
        "none": 8 * D + 4 * A + 4 * C + normaliser + 4 * F,
    }
    return saved[remat]


def work(
    model: recipe.Model,
    vocab_size: int,
    layout: Layout,
    mesh_sizes: dict[str, int],
    sequence_length: int,
    topology: Topology,
) -> Work:
    chip = topology.chip
    rows = layout.microbatches * layout.rows_per_chip
    tokens = rows * sequence_length / (mesh_sizes["context"] * mesh_sizes["tensor"])
    full = decoder.flops_per_token(model, vocab_size, sequence_length, causal=False)
    causal = decoder.flops_per_token(model, vocab_size, sequence_length, causal=True)
    attention = (full - causal) * tokens
    weights = (2 * causal - full) * tokens
    blocks = 6 * model.num_layers * _per_layer_parameters(model) * tokens
    recomputed = {
        "none": 0.0,
        "minimal": 0.0,
        "attention": blocks / 3,
        "full": blocks / 3 + attention / 3,
        "offload": blocks / 3,
    }[layout.remat]
    num_shards = mesh_sizes["fsdp"]
    num_params = decoder.num_parameters(model, vocab_size)
    # Weights for the forward and for the backward pass, gradients once; bfloat16.
    gathered = 3 * 2 * num_params / mesh_sizes["tensor"] * (1 - 1 / num_shards)
    gathered *= layout.microbatches
    replicated = 0.0
    if mesh_sizes["replica"] > 1:
        replicated = 2 * num_params / num_shards * layout.microbatches
    # Activations summed over the tensor axis: two each way in a layer, and again where recomputed.
    split = 1 - 1 / mesh_sizes["tensor"]
    summed = 8.0 * model.num_layers * tokens * mesh_sizes["tensor"] * model.hidden_dim * 2 * split
    # Saved activations are written once and read once; elementwise work moves several times that.
    moved = 6 * tokens * model.num_layers * 2 * _saved_per_token(model, "minimal", 1)
    seconds = (
        (weights + recomputed) / (MATMUL_EFFICIENCY[chip.kind] * chip.peak_flop_per_second)
        + attention * 7 / 6 / (ATTENTION_EFFICIENCY[chip.kind] * chip.peak_flop_per_second)
        + moved / chip.hbm_bytes_per_second / 4
    )
    over_links = (
        gathered / _bytes_per_second("fsdp", mesh_sizes, topology)
        + replicated / _bytes_per_second("replica", mesh_sizes, topology)
        + summed / _bytes_per_second("tensor", mesh_sizes, topology)
    )
    if layout.remat == "offload":
        saved = 2 * _saved_per_token(model, "attention", 1) * model.num_layers * tokens
        over_links = max(over_links, 2 * saved / _HOST_BYTES_PER_SECOND)
    seconds = max(seconds, over_links) + _NOT_HIDDEN * min(seconds, over_links)
    return Work(weights, attention, recomputed, gathered + replicated + summed, seconds)


def _bytes_per_second(axis: str, mesh_sizes: dict[str, int], topology: Topology) -> float:
    """Of one chip's part of a collective over a mesh axis, one direction.

    Between hosts that a network joins, what goes round reaches a host once, by the adapters of all
    of its chips that are in the same collective.
    """
    chip = topology.chip
    axes = list(mesh_sizes)
    # Chips of a host follow each other along the last axes first.
    stride = math.prod(mesh_sizes[inner] for inner in axes[axes.index(axis) + 1 :])
    is_in_host = stride * mesh_sizes[axis] <= chip.chips_per_host
    if chip.network_bytes_per_second is None or is_in_host:
        return chip.link_bytes_per_second
    num_together = max(1, chip.chips_per_host // stride)
    return min(chip.link_bytes_per_second, num_together * chip.network_bytes_per_second)


def matmul_flop(model: recipe.Model, vocab_size: int, num_tokens: int, remat: str) -> int:
    """Of the products with weights in one step: 6 for each weight and token, and 2 again for those
    of a block where the backward pass makes the block again."""
    block = _per_layer_parameters(model) - 2 * model.hidden_dim  # norms do not multiply
    again = 0 if remat in NOTHING_AGAIN else 2 * model.num_layers * block
    once = 6 * (model.num_layers * block + vocab_size * model.hidden_dim)
    return (once + again) * num_tokens


def _per_layer_parameters(model: recipe.Model) -> int:
    D, H = model.hidden_dim, model.head_dim
    heads = 2 * D * H * (model.num_heads + model.num_kv_heads)
    return heads + 3 * D * model.mlp_dim + 2 * D


def divisors(number: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
