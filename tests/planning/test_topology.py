"""The real step compiled for a TPU topology; needs libtpu, no TPU."""

from __future__ import annotations

import importlib.util
import json

import pytest
import small_step

from snowcoder_jax.planning import analytic, hlo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed"
    ),
]


def test_matrix_products_of_the_compiled_step_are_exactly_the_models() -> None:
    model = small_step.MODEL
    heads = model.num_heads * model.head_dim
    block = 4 * model.hidden_dim * heads + 3 * model.hidden_dim * model.mlp_dim
    multiplied = model.num_layers * block + small_step.VOCAB_SIZE * model.hidden_dim
    tokens_per_chip = small_step.BATCH_SIZE * small_step.SEQUENCE_LENGTH / 4
    cost = hlo.module_cost(small_step.compiled().hlo)
    assert cost.matmul_flop == 6 * multiplied * tokens_per_chip
    num_tokens = small_step.BATCH_SIZE * small_step.SEQUENCE_LENGTH
    told = analytic.matmul_flop(model, small_step.VOCAB_SIZE, num_tokens, "minimal")
    assert cost.matmul_flop * 4 == told


def test_each_layer_runs_its_attention_kernels_once_each_way() -> None:
    kernels = hlo.module_cost(small_step.compiled().hlo).kernels
    forward = sum(num for name, num in kernels.items() if "_fwd" in name)
    backward = sum(num for name, num in kernels.items() if "_dkv" in name)
    assert (forward, backward) == (small_step.MODEL.num_layers,) * 2


def test_the_compiled_step_is_the_golden_one() -> None:
    golden = json.loads(small_step.GOLDEN.read_text())
    found = small_step.summary(small_step.compiled())
    changed = [
        f"{name}: {golden.get(name)} -> {value}"
        for name, value in found.items()
        if value != golden.get(name)
    ]
    assert not changed, (
        "the step compiles to something else than before:\n  "
        + "\n  ".join(changed)
        + "\nIf that is meant (or jax or libtpu is another version), write it anew with "
        "`python tests/planning/small_step.py` and say in the commit why."
    )
