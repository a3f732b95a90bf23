"""Products of activations and weights, with gradients that suit CPUs as well as accelerators."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def weight_product(subscripts: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    """`jnp.einsum` of activations and a weight, with a gradient that suits CPUs.

    The dims that are summed over must be the last of `x` and stand together in `weight`.

    XLA transposes the left operand of a weight's gradient for a CPU. JAX's own gradient has the
    output's gradient there, which is computed a second time for it, column by column. Here it is
    the smaller operand: 225 ms for the forward and backward pass of an MLP where there were 318.
    """
    return jnp.einsum(subscripts, x, weight)


def _forward(
    subscripts: str, x: jax.Array, weight: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return jnp.einsum(subscripts, x, weight), (x, weight)


def _backward(
    subscripts: str, saved: tuple[jax.Array, jax.Array], y_grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, weight = saved
    dims, y_dims = subscripts.split("->")
    x_dims, weight_dims = dims.split(",")
    x_grad = jnp.einsum(f"{y_dims},{weight_dims}->{x_dims}", y_grad, weight)
    shared = "".join(dim for dim in x_dims if dim in weight_dims)
    turned_dims = weight_dims.replace(shared, "") + shared

    def direct(x: jax.Array, y_grad: jax.Array) -> jax.Array:
        return jnp.einsum(f"{x_dims},{y_dims}->{weight_dims}", x, y_grad)

    def turned(x: jax.Array, y_grad: jax.Array) -> jax.Array:
        weight_grad = jnp.einsum(f"{y_dims},{x_dims}->{turned_dims}", y_grad, x)
        # Else XLA makes one product of it that has x on the left again.
        weight_grad = jax.lax.optimization_barrier(weight_grad)
        return jnp.einsum(f"{turned_dims}->{weight_dims}", weight_grad)

    if x.size <= y_grad.size:
        return x_grad, direct(x, y_grad)
    return x_grad, jax.lax.platform_dependent(x, y_grad, cpu=turned, default=direct)


weight_product.defvjp(_forward, _backward)
