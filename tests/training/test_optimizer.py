"""The update against AdamW written out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import MODEL

from snowcoder_jax import recipe
from snowcoder_jax.model import decoder
from snowcoder_jax.training.optimizer import decay_mask, make_optimizer

AXES = {"matrix": ("layer", "embed", "mlp"), "norm": ("layer", "embed"), "last": ("embed",)}


def test_stacked_norms_do_not_decay_and_matrices_do() -> None:
    assert decay_mask(AXES) == {"matrix": True, "norm": False, "last": False}
    mask = decay_mask(decoder.logical_axes(MODEL))
    assert mask["embedding"]
    assert not mask["final_norm"]
    assert {name for name, decays in mask["layers"].items() if not decays} == {
        "attention_norm",
        "mlp_norm",
    }


@pytest.mark.parametrize("clip_norm", [1e-2, 1e3])
def test_two_updates_equal_the_formula(clip_norm: float) -> None:
    config = recipe.Optimizer(clip_norm=clip_norm)
    rng = np.random.default_rng(0)
    shapes = {"matrix": (2, 3, 4), "norm": (2, 3), "last": (3,)}
    params = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    transform = make_optimizer(config, AXES)
    state = transform.init(jax.tree.map(jnp.asarray, params))
    mean = {n: np.zeros(s) for n, s in shapes.items()}
    square = {n: np.zeros(s) for n, s in shapes.items()}
    for step in (1, 2):
        grads = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
        updates, state = transform.update(grads, state, params)
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        for name, grad in grads.items():
            grad = grad * min(1.0, clip_norm / norm)
            mean[name] = config.beta1 * mean[name] + (1 - config.beta1) * grad
            square[name] = config.beta2 * square[name] + (1 - config.beta2) * grad**2
            unbiased_mean = mean[name] / (1 - config.beta1**step)
            unbiased_square = square[name] / (1 - config.beta2**step)
            want = -unbiased_mean / (np.sqrt(unbiased_square) + config.eps)
            if name == "matrix":
                want = want - config.weight_decay * params[name]
            np.testing.assert_allclose(updates[name], want, rtol=2e-5, atol=1e-6)
