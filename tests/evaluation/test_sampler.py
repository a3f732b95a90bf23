"""Sampling: greedy equals the plain forward pass; neighbours in a batch change nothing."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from snowcoder_jax.errors import InputError
from snowcoder_jax.evaluation.sampler import Sampler, _nucleus
from snowcoder_jax.model import decoder
from snowcoder_jax.recipe import Model

VOCAB = 40
CONFIG = Model(
    hidden_dim=16,
    mlp_dim=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_sequence_length=48,
    tie_embeddings=False,
    initializer_range=0.5,
)


@pytest.fixture(scope="module")
def params():
    return decoder.init_params(CONFIG, VOCAB, seed=0)


@pytest.fixture(scope="module")
def sampler(params):
    return Sampler(params, CONFIG, VOCAB)


def prompts_of(*lengths):
    rng = np.random.default_rng(5)
    return [rng.integers(0, VOCAB, size=n).tolist() for n in lengths]


def step_by_step(params, prompt, num_new):
    """Greedy continuation by the whole forward pass again for each token."""
    ids = np.zeros((1, 48), np.int32)
    ids[0, : len(prompt)] = prompt
    forward = jax.jit(lambda ids: decoder.apply(params, CONFIG, VOCAB, ids))
    for position in range(len(prompt), len(prompt) + num_new):
        logits = forward(ids)[0, position - 1] @ params["head"].T
        ids[0, position] = np.argmax(logits)
    return ids[0, len(prompt) : len(prompt) + num_new].tolist()


def test_greedy_is_the_argmax_of_the_plain_forward_pass(params, sampler):
    prompts = prompts_of(1, 7, 32, 33)
    new = sampler.generate(prompts, max_new_tokens=12, batch_size=4)
    assert new == [step_by_step(params, p, 12) for p in prompts]


def test_a_stop_id_ends_its_row_only_and_is_not_returned(sampler):
    prompts = prompts_of(3, 9, 5)
    free = sampler.generate(prompts, max_new_tokens=10, batch_size=4)
    stop = free[1][4]
    stopped = sampler.generate(prompts, max_new_tokens=10, stop_ids=[stop], batch_size=4)
    cut = [row[: row.index(stop)] if stop in row else row for row in free]
    assert stopped == cut
    assert len(cut[1]) <= 4


def test_a_sample_depends_on_prompt_seed_and_settings_not_on_the_batch(sampler):
    settings = {"max_new_tokens": 8, "temperature": 0.9, "top_p": 0.9, "batch_size": 4}
    prompts = prompts_of(4, 30, 9, 35, 17, 6)
    seeds = [11, -3, 2**64 - 1, 7, 7, 2**40]
    together = sampler.generate(prompts, seeds=seeds, **settings)
    backwards = sampler.generate(prompts[::-1], seeds=seeds[::-1], **settings)
    alone = [
        sampler.generate([p], seeds=[s], **settings)[0] for p, s in zip(prompts, seeds, strict=True)
    ]
    assert together == alone == backwards[::-1]


def test_seeds_matter_to_their_upper_bits_and_equal_seeds_agree(sampler):
    prompt = prompts_of(5)[0]
    rows = sampler.generate(
        [prompt] * 4, seeds=[1, 1, 1 + 2**32, 2], max_new_tokens=10, temperature=1.0, batch_size=4
    )
    assert rows[0] == rows[1]
    assert len({tuple(r) for r in rows}) == 3


def test_samples_follow_the_models_probabilities(params, sampler):
    prompt = prompts_of(3)[0]
    hidden = decoder.apply(params, CONFIG, VOCAB, np.asarray([prompt], np.int32))
    expected = jax.nn.softmax(hidden[0, -1] @ params["head"].T / 1.5)
    num = 2_000
    new = sampler.generate(
        [prompt] * num, seeds=range(num), max_new_tokens=1, temperature=1.5, batch_size=500
    )
    counts = np.bincount([row[0] for row in new], minlength=VOCAB)
    np.testing.assert_allclose(counts / num, expected, atol=0.045)


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p():
    logits = np.log([[0.5, 0.1, 0.3, 0.1]]).astype(np.float32)
    kept = {p: np.isfinite(_nucleus(logits, p))[0].tolist() for p in (1e-6, 0.49, 0.7, 0.95)}
    assert kept[1e-6] == kept[0.49] == [True, False, False, False]
    assert kept[0.7] == [True, False, True, False]
    assert kept[0.95] == [True, True, True, True]


def test_a_long_prompt_keeps_its_last_tokens(sampler):
    long = prompts_of(200)[0]
    settings = {"max_new_tokens": 8, "batch_size": 4}
    assert sampler.generate([long], **settings) == sampler.generate([long[-40:]], **settings)


def test_no_prompts_give_no_rows(sampler):
    assert sampler.generate([], max_new_tokens=4) == []


def test_bfloat16_runs_and_gives_ids(params):
    narrow = Sampler(params, CONFIG, VOCAB, compute_dtype="bfloat16")
    rows = narrow.generate(prompts_of(3, 4), max_new_tokens=5, batch_size=2)
    assert [len(r) for r in rows] == [5, 5]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 48}, "max_new_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"batch_size": 0}, "batch_size"),
        ({"seeds": [1, 2]}, "seeds"),
        ({"prompts": [[]]}, "prompt 0 is empty"),
        ({"prompts": [[VOCAB]]}, "prompt 0 has ids"),
        ({"prompts": [[-1]]}, "prompt 0 has ids"),
    ],
)
def test_wrong_arguments_are_named(sampler, changed, named):
    arguments = {"prompts": [[1]], "max_new_tokens": 4, **changed}
    with pytest.raises(InputError, match=named):
        sampler.generate(arguments.pop("prompts"), **arguments)


def test_grouped_and_multi_head_configs_both_run():
    config = dataclasses.replace(CONFIG, num_kv_heads=4, tie_embeddings=True)
    params = decoder.init_params(config, VOCAB, seed=1)
    rows = Sampler(params, config, VOCAB).generate([[1, 2]], max_new_tokens=3, batch_size=1)
    assert len(rows[0]) == 3
