"""Rotary positions (arXiv 2104.09864) in Hugging Face's half-rotation form, in float32.

Shape legend: B batch, S positions, N heads, H head dim.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from snowcoder_jax.recipe import Model

# Cosines and sines [B, S, 1, H/2], float32, of each position's rotation.
Rope = tuple[jax.Array, jax.Array]


def rope_table(positions_BS: jax.Array, config: Model) -> Rope:
    """The rotations of the given positions."""
    angles = positions_BS[:, :, None, None].astype(jnp.float32) * _frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def _frequencies(config: Model) -> jax.Array:
    """float32 [H/2], radians a position, as `transformers` computes them for each rope_type."""
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    kept = jnp.zeros(half)
    if scaling.kind == "llama3":
        turns = scaling.original_max_positions * frequencies / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1 - kept) / scaling.factor)


@jax.custom_vjp
def rotate(x_BSNH: jax.Array, rope: Rope) -> jax.Array:
    """Rotate the pairs (x[i], x[i + H/2]) by their position's angle.

    The gradient is the rotation back: JAX's own, through the halves, costs a TPU three times
    what it does. None flows to the rope.
    """
    return _rotated(x_BSNH, *rope)


def _forward(x_BSNH: jax.Array, rope: Rope) -> tuple[jax.Array, Rope]:
    return _rotated(x_BSNH, *rope), rope


def _backward(rope: Rope, grad_BSNH: jax.Array) -> tuple[jax.Array, None]:
    cos, sin = rope
    return _rotated(grad_BSNH, cos, -sin), None


rotate.defvjp(_forward, _backward)


def _rotated(x_BSNH: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    return jax.lax.platform_dependent(
        x_BSNH, cos, sin, tpu=_rotated_by_product, default=_rotated_by_halves
    )


def _rotated_by_halves(x_BSNH: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    first, second = jnp.split(x_BSNH.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BSNH.dtype)


def _rotated_by_product(x_BSNH: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """The same for a TPU, whose registers are as wide as a head: halves are moved by the matrix
    units, a product with (0, 1; -1, 0), which is exact."""
    half = x_BSNH.shape[-1] // 2
    turn_HH = np.zeros((2 * half, 2 * half), np.float32)
    turn_HH[np.arange(half) + half, np.arange(half)] = -1
    turn_HH[np.arange(half), np.arange(half) + half] = 1
    with jax.named_scope("rotation"):  # `planning.hlo` tells it from the products of weights
        turned_BSNH = jnp.einsum(
            "bsnh,hj->bsnj",
            x_BSNH,
            jnp.asarray(turn_HH, x_BSNH.dtype),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
    cos_H, sin_H = (jnp.concatenate([x, x], axis=-1) for x in (cos, sin))
    return (x_BSNH.astype(jnp.float32) * cos_H + turned_BSNH * sin_H).astype(x_BSNH.dtype)
