"""What the forward pass keeps of a block, and what the backward pass computes again, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from snowcoder_jax.model.attention import SAVED_NAME, is_cudnn_forward
from snowcoder_jax.recipe import Remat

_BLOCK_INPUT = "block_input"
_BLOCK_PART = "block_part"


def block_input(x_BSD: jax.Array) -> jax.Array:
    """The residual stream before a block, under the name that `offload` looks for."""
    named_BSD: jax.Array = checkpoint_name(x_BSD, _BLOCK_INPUT)
    return named_BSD


def block_part(x: jax.Array) -> jax.Array:
    """What `minimal` saves of a block: rotated heads and the residual stream, not the products
    behind them, so that the backward pass has no rotation and no sum to do again."""
    named: jax.Array = checkpoint_name(x, _BLOCK_PART)
    return named


def rematerialised(step: Callable[..., Any], remat: Remat, *, in_loop: bool) -> Callable[..., Any]:
    """`step` with what `remat` says (see `Decoder`); `in_loop`: it is the body of a loop."""
    if remat == "none":
        return step
    policies = jax.checkpoint_policies
    named = policies.save_only_these_names
    policy = {
        "full": policies.nothing_saveable,
        "attention": policies.save_from_both_policies(named(SAVED_NAME), is_cudnn_forward),
        "minimal": policies.save_from_both_policies(
            named(SAVED_NAME, _BLOCK_PART), is_cudnn_forward
        ),
        "offload": policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[_BLOCK_INPUT, SAVED_NAME],
            offload_src="device",
            offload_dst="pinned_host",
        ),
    }[remat]
    # A loop by itself keeps XLA from merging the recomputation with the forward pass.
    return jax.checkpoint(step, policy=policy, prevent_cse=not in_loop)
