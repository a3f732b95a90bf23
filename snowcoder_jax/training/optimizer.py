"""AdamW with a global-norm clip, for parameters that are stacked by layer."""

from __future__ import annotations

from typing import Any

import jax
import optax

from snowcoder_jax import recipe


def make_optimizer(
    config: recipe.Optimizer, logical_axes: dict[str, Any]
) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW (arXiv 1711.05101) at a learning rate of 1.

    The step multiplies the update by its learning rate: the compiled step then serves every
    phase, and a skipped update does not shift the schedule.

    Args:
      logical_axes: the names of each parameter's dims, as `decoder.logical_axes` gives them.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            1.0,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decay_mask(logical_axes),
        ),
    )


def decay_mask(logical_axes: dict[str, Any]) -> Any:
    """Which parameters decay: matrices, not norms. The stacked layer dim does not count."""
    return jax.tree.map(
        lambda names: sum(name != "layer" for name in names) > 1,
        logical_axes,
        is_leaf=lambda node: isinstance(node, tuple),
    )
