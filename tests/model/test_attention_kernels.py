"""Kernels of TPUs and GPUs: which one computes what, what they refuse, and that they are right."""

from __future__ import annotations

import functools
import importlib.util
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import attention as attention_package
from snowcoder_jax.model import decoder
from snowcoder_jax.model.attention import (
    attention,
    attention_reference,
    chosen_kernel,
    gpu,
    kernel_on,
    splash,
)
from snowcoder_jax.model.attention.parts import Sizes
from snowcoder_jax.model.attention.sharded import Share

BF16 = jnp.dtype(jnp.bfloat16)
CAUSAL = Sizes(BF16, 1024, 128, 1, packed=False)
PACKED = CAUSAL._replace(packed=True)
# Documents of 200, 1 and 183 tokens: within a block of the kernel and across two.
FIRST_KEY = np.repeat(np.array([0, 200, 201], np.int32), [200, 1, 183])[None]


def random_inputs(B, S, N, K, H):
    rng = np.random.default_rng(0)
    shapes = [(B, S, N, H), (B, S, K, H), (B, S, K, H), (B, S, N, H)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def outputs_and_gradients(function, q, k, v, o_grad, first_key):
    def run(q, k, v, o_grad):
        o, vjp = jax.vjp(lambda *qkv: function(*qkv, first_key), q, k, v)
        return (o, *vjp(o_grad))

    return [np.asarray(x) for x in jax.jit(run)(q, k, v, o_grad)]


@pytest.mark.parametrize("first_key", [None, FIRST_KEY], ids=["causal", "document"])
def test_splash_output_and_gradients_match_float64(first_key):
    inputs = random_inputs(1, 384, 2, 1, 128)
    with jax.enable_x64(True):
        wide = [x.astype(np.float64) for x in inputs]
        want = outputs_and_gradients(attention_reference, *wide, first_key)
    interpreted = functools.partial(splash.splash_attention, share=Share(), interpret=True)
    got = outputs_and_gradients(interpreted, *inputs, first_key)
    for ours, reference in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, reference, atol=2e-5)


@pytest.mark.parametrize("first_key", [None, FIRST_KEY], ids=["causal", "document"])
def test_tokamax_is_given_the_mask(first_key):
    """By its plain definition of the operation: its kernel wants a GPU."""
    pytest.importorskip("tokamax")
    inputs = random_inputs(1, 384, 4, 2, 8)
    want = outputs_and_gradients(attention_reference, *inputs, first_key)
    plain = functools.partial(gpu.mosaic_attention, share=Share(), implementation="xla")
    got = outputs_and_gradients(plain, *inputs, first_key)
    for ours, reference in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, reference, atol=2e-5)


@pytest.fixture
def cudnn_lowers(monkeypatch):
    """JAX asks the library for its version, and the GPU for its kind, when it traces."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91_500)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda _: False)


@pytest.mark.usefixtures("cudnn_lowers")
def test_cudnn_is_lowered_with_a_causal_mask_and_its_own_backward_pass():
    q, k, v, _ = (jnp.bfloat16(x) for x in random_inputs(2, 256, 4, 2, 128))

    def summed(q, k, v):
        return gpu.cudnn_attention(q, k, v, None).astype(jnp.float32).sum()

    step = jax.jit(jax.grad(summed, argnums=(0, 1, 2)))
    text = step.trace(q, k, v).lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax(" in text
    assert "__cudnn$fmhaSoftmaxBackward(" in text
    assert text.count("CAUSAL") == 2
    assert text.count("fmha_scale\\22: 0.08838834764") == 2


@pytest.mark.usefixtures("cudnn_lowers")
@pytest.mark.parametrize(
    ("remat", "num_forward"), [("none", 1), ("minimal", 1), ("attention", 1), ("full", 2)]
)
def test_what_cudnn_returns_is_saved_where_the_policy_says_so(remat, num_forward, monkeypatch):
    monkeypatch.setattr(attention_package, "kernel_on", lambda *_, **__: "cudnn")
    model = recipe.Model(
        hidden_dim=128,
        mlp_dim=256,
        num_layers=2,
        num_heads=1,
        num_kv_heads=1,
        head_dim=128,
        max_sequence_length=256,
    )

    def summed(params, ids):
        hidden = decoder.apply(params, model, 64, ids, compute_dtype=jnp.bfloat16, remat=remat)
        return hidden.astype(jnp.float32).sum()

    params = jax.eval_shape(lambda: decoder.init_params(model, 64, 0))
    traced = jax.jit(jax.grad(summed)).trace(params, jax.ShapeDtypeStruct((1, 256), jnp.int32))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("__cudnn$fmhaSoftmax(") == num_forward
    assert text.count("__cudnn$fmhaSoftmaxBackward(") == 1


@pytest.mark.parametrize(
    ("platform", "sizes", "chosen"),
    [
        ("tpu", CAUSAL, "splash"),
        ("tpu", PACKED, "splash"),
        ("tpu", PACKED._replace(dtype=jnp.dtype(jnp.float32), num_context=8), "splash"),
        ("tpu", CAUSAL._replace(num_context=16), "blockwise"),
        ("tpu", CAUSAL._replace(head_dim=64), "blockwise"),
        ("tpu", CAUSAL._replace(length=1000), "blockwise"),
        ("gpu", CAUSAL, "cudnn"),
        ("gpu", CAUSAL._replace(dtype=jnp.dtype(jnp.float32)), "blockwise"),
        ("gpu", CAUSAL._replace(compute_capability="7.5"), "blockwise"),
        ("gpu", CAUSAL._replace(compute_capability="8.0"), "cudnn"),
        ("gpu", CAUSAL._replace(compute_capability="12.0"), "cudnn"),
        ("cpu", PACKED, "blockwise"),
        (None, CAUSAL, "blockwise"),
    ],
)
def test_auto_is_the_best_kernel_that_can(platform, sizes, chosen):
    assert chosen_kernel("auto", sizes, platform) == chosen


def test_documents_on_a_gpu_are_for_tokamax_where_it_is_installed(monkeypatch, caplog):
    attention_package._say_once.cache_clear()
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert chosen_kernel("auto", PACKED, "gpu") == "mosaic"
    assert chosen_kernel("auto", PACKED._replace(num_context=2), "gpu") == "mosaic"
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tokamax" else real(name)
    )
    with caplog.at_level(logging.WARNING):
        assert [chosen_kernel("auto", PACKED, "gpu") for _ in range(2)] == ["blockwise"] * 2
    assert len(caplog.records) == 1
    assert "pip install tokamax" in caplog.text
    with pytest.raises(InputError, match="pip install tokamax"):
        chosen_kernel("mosaic", PACKED, "gpu")


@pytest.mark.parametrize(
    ("kernel", "platform", "sizes", "reason"),
    [
        ("cudnn", "gpu", PACKED, "attend across documents"),
        ("cudnn", "gpu", CAUSAL._replace(num_context=2), "hardware.mesh.context"),
        ("cudnn", "gpu", CAUSAL._replace(head_dim=132), "head_dim 132"),
        ("cudnn", "gpu", CAUSAL._replace(dtype=jnp.dtype(jnp.float32)), "not in float32"),
        ("cudnn", "tpu", CAUSAL, "does not run on tpu"),
        ("cudnn", "gpu", CAUSAL._replace(compute_capability="7.5"), "8.0 or more.*has 7.5"),
        ("mosaic", "gpu", PACKED._replace(compute_capability="8.9"), "9.0 or 10.0.*has 8.9"),
        ("mosaic", "gpu", PACKED._replace(compute_capability="12.0"), "9.0 or 10.0.*has 12.0"),
        ("splash", "gpu", CAUSAL, "does not run on gpu"),
        ("splash", "tpu", CAUSAL._replace(head_dim=192), "head_dim 192"),
        ("splash", "tpu", CAUSAL._replace(length=1152, num_context=2), "576 positions"),
        ("splash", None, CAUSAL, "mesh"),
    ],
)
def test_a_kernel_that_cannot_honour_the_call_is_refused(kernel, platform, sizes, reason):
    with pytest.raises(InputError, match=f"hardware.attention_kernel: {kernel} .*{reason}"):
        chosen_kernel(kernel, sizes, platform)


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [("8.0", "blockwise"), ("9.0", "mosaic"), ("10.0", "mosaic"), (None, "mosaic")],
)
def test_the_gpu_is_asked_what_it_can_compute(monkeypatch, caplog, capability, chosen):
    attention_package._say_once.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    asked = {} if capability is None else {"compute_capability": capability}
    device = types.SimpleNamespace(platform="gpu", **asked)
    mesh = types.SimpleNamespace(devices=np.array([device]), shape={"context": 1})
    with caplog.at_level(logging.WARNING):
        assert kernel_on(mesh, "auto", BF16, 1024, 128, packed=True) == chosen
    assert ("this one has 8.0" in caplog.text) == (chosen == "blockwise")


def test_the_kernel_of_the_recipe_is_the_one_that_computes():
    inputs = random_inputs(1, 16, 2, 2, 8)
    with pytest.raises(InputError, match="splash"):
        attention(*inputs[:3], kernel="splash")
    np.testing.assert_array_equal(
        attention(*inputs[:3], kernel="reference"), attention_reference(*inputs[:3])
    )
