"""The product of activations and a weight: its gradients, and what a CPU is spared."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snowcoder_jax.model.products import weight_product

SIZES = {"b": 2, "s": 16, "d": 8, "n": 3, "k": 1, "h": 4, "f": 24}
# Of a block: outputs wider than the activations, then narrower; `bskh` are few heads of keys.
BLOCK = ("bsd,df->bsf", "bsd,dnh->bsnh", "bsd,dkh->bskh", "bsnh,nhd->bsd", "bsf,fd->bsd")


def random_array(dims: str, seed: int) -> np.ndarray:
    shape = [SIZES[dim] for dim in dims]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("subscripts", BLOCK)
def test_gradients_are_those_in_float64(subscripts: str) -> None:
    operands, y_dims = subscripts.split("->")
    x_dims, weight_dims = operands.split(",")
    x, weight, y_grad = (
        random_array(dims, i) for i, dims in enumerate((x_dims, weight_dims, y_dims))
    )
    y, pullback = jax.vjp(lambda x, weight: weight_product(subscripts, x, weight), x, weight)
    x_grad, weight_grad = pullback(jnp.asarray(y_grad))
    wide = [a.astype(np.float64) for a in (x, weight, y_grad)]
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(y, np.einsum(subscripts, *wide[:2]), **close)
    want = np.einsum(f"{y_dims},{weight_dims}->{x_dims}", wide[2], wide[1])
    np.testing.assert_allclose(x_grad, want, **close)
    want = np.einsum(f"{x_dims},{y_dims}->{weight_dims}", wide[0], wide[2])
    np.testing.assert_allclose(weight_grad, want, **close)


@pytest.mark.parametrize("subscripts", ["bsd,df->bsf", "bsf,fd->bsd"])
def test_a_cpu_transposes_the_smaller_operand_alone(subscripts: str) -> None:
    def weight_grad(x: jax.Array, y_grad: jax.Array) -> jax.Array:
        operands, _ = subscripts.split("->")
        weight = jnp.zeros([SIZES[dim] for dim in operands.split(",")[1]])
        return jax.vjp(lambda w: weight_product(subscripts, x, w), weight)[1](y_grad)[0]

    dims, y_dims = subscripts.split(",")[0], subscripts.split("->")[1]
    arrays = (random_array(dims, 0), random_array(y_dims, 1))
    text = jax.jit(weight_grad).lower(*arrays).compile().as_text()
    num_tokens = SIZES["b"] * SIZES["s"]
    assert f"f32[{SIZES['f']},{num_tokens}]" not in text
    assert f"f32[{SIZES['d']},{num_tokens}]" in text
