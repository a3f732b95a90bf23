"""Text from a decoder: prompts of token ids in, new token ids out.

A prompt's new tokens depend on the prompt, its seed and the settings, never on the prompts
beside it: each is padded to a length of its own (a power of two), batched with prompts of that
padded length only, and every batch is filled up to the same number of rows. One program is
compiled per number of rows and padded length; its decode loop runs on the device and ends when
all rows have.

Shape legend: B rows of a batch, P padded prompt, M new tokens, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import DTypeLike

from snowcoder_jax.errors import InputError
from snowcoder_jax.model import decoder
from snowcoder_jax.model.cache import init_cache
from snowcoder_jax.recipe import Model

_MIN_PADDED_LENGTH = 32
_NO_STOP = -1


class Sampler:
    """Greedy and nucleus sampling from one set of parameters.

    Args:
      params: as `decoder.init_params` gives them; the matrices are kept in `compute_dtype`.
    """

    def __init__(
        self,
        params: decoder.Params,
        config: Model,
        vocab_size: int,
        *,
        compute_dtype: DTypeLike = jnp.float32,
    ) -> None:
        def in_compute_dtype(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
            is_norm = path[-1].key.endswith("norm")
            return jnp.asarray(x, jnp.float32 if is_norm else compute_dtype)

        self._params = jax.tree.map_with_path(in_compute_dtype, params)
        self._config = config
        self._vocab_size = vocab_size
        self._compute_dtype = jnp.dtype(compute_dtype)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
        stop_ids: Sequence[int] = (),
        batch_size: int = 16,
    ) -> list[list[int]]:
        """The new token ids of each prompt, in the order of the prompts.

        Args:
          prompts: token ids. Of a prompt that leaves no room for `max_new_tokens` within the
            model's `max_sequence_length` the last tokens that do are kept.
          temperature: 0 takes the likeliest token; otherwise logits are divided by it.
          top_p: only the likeliest tokens whose probabilities add up to this are drawn from
            (nucleus sampling, arXiv 1904.09751).
          seeds: one per prompt, any integer (64 bits count); None: 0 for all, so that equal
            prompts get equal samples.
          stop_ids: tokens that end a row; they are not returned.
          batch_size: rows computed at once. It is one of the settings: another number of rows
            may round differently.

        Raises:
          InputError: an argument out of its range, an empty prompt, or an id out of vocabulary.
        """
        seeds = [0] * len(prompts) if seeds is None else seeds
        self._check(prompts, max_new_tokens, temperature, top_p, seeds, batch_size)
        room = self._config.max_sequence_length - max_new_tokens
        by_length: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            by_length.setdefault(_padded_length(min(len(prompt), room), room), []).append(i)

        outputs: list[list[int]] = [[] for _ in prompts]
        for padded_length, indices in sorted(by_length.items()):
            for start in range(0, len(indices), batch_size):
                chosen = indices[start : start + batch_size]
                ids_BP = np.zeros((batch_size, padded_length), np.int32)
                lengths_B = np.zeros(batch_size, np.int32)
                keys_B2 = np.zeros((batch_size, 2), np.uint32)
                for row, i in enumerate(chosen):
                    kept = prompts[i][-room:]
                    ids_BP[row, : len(kept)] = kept
                    lengths_B[row] = len(kept)
                    keys_B2[row] = divmod(seeds[i] % 2**64, 2**32)
                new_BM, num_new_B = _generate(
                    self._params,
                    ids_BP,
                    lengths_B,
                    keys_B2,
                    np.asarray(list(stop_ids) or [_NO_STOP], np.int32),
                    np.float32(temperature or 1.0),
                    np.float32(top_p),
                    config=self._config,
                    vocab_size=self._vocab_size,
                    max_new_tokens=max_new_tokens,
                    is_greedy=temperature == 0,
                    has_nucleus=top_p < 1,
                    compute_dtype=self._compute_dtype.name,
                )
                for i, new_M, num_new in zip(chosen, *_on_host(new_BM, num_new_B), strict=False):
                    outputs[i] = new_M[:num_new].tolist()
        return outputs

    def _check(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        seeds: Sequence[int],
        batch_size: int,
    ) -> None:
        longest = self._config.max_sequence_length - 1
        if not 1 <= max_new_tokens <= longest:
            raise InputError(
                f"max_new_tokens: {max_new_tokens} is not within 1 and {longest}, "
                "one less than the model's max_sequence_length"
            )
        if not 0 <= temperature < float("inf"):
            raise InputError(f"temperature: {temperature} is not 0 or a positive number")
        if not 0 < top_p <= 1:
            raise InputError(f"top_p: {top_p} is not above 0 and at most 1")
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size} is not at least 1")
        if len(seeds) != len(prompts):
            raise InputError(f"seeds: {len(seeds)} given for {len(prompts)} prompts; give one each")
        for i, prompt in enumerate(prompts):
            if not len(prompt):
                raise InputError(f"prompt {i} is empty; start it with the end-of-text token")
            if not 0 <= min(prompt) <= max(prompt) < self._vocab_size:
                raise InputError(
                    f"prompt {i} has ids from {min(prompt)} to {max(prompt)}, outside of the "
                    f"model's {self._vocab_size}; encode it with the tokenizer of the checkpoint"
                )


def _padded_length(length: int, room: int) -> int:
    """The next power of two, at most `room`: few programs, and none depends on its neighbours."""
    power = 1 << (length - 1).bit_length()
    return min(max(power, _MIN_PADDED_LENGTH), room)


def _on_host(*arrays: jax.Array) -> tuple[npt.NDArray[np.int32], ...]:
    return tuple(np.asarray(x) for x in arrays)


@functools.partial(
    jax.jit,
    static_argnames=(
        "config",
        "vocab_size",
        "max_new_tokens",
        "is_greedy",
        "has_nucleus",
        "compute_dtype",
    ),
)
def _generate(
    params: decoder.Params,
    ids_BP: jax.Array,
    lengths_B: jax.Array,
    keys_B2: jax.Array,
    stop_ids: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    *,
    config: Model,
    vocab_size: int,
    max_new_tokens: int,
    is_greedy: bool,
    has_nucleus: bool,
    compute_dtype: str,
) -> tuple[jax.Array, jax.Array]:
    """New ids [B, M] and how many of them each row has; rows of length 0 are filling."""
    B, P = ids_BP.shape
    keys_B = jax.random.wrap_key_data(keys_B2, impl="threefry2x32")
    embedding_VD = decoder.output_embedding(params, config)

    def choose(hidden_BD: jax.Array, step: jax.Array) -> jax.Array:
        logits_BV = jnp.einsum(
            "bd,vd->bv", hidden_BD, embedding_VD, preferred_element_type=jnp.float32
        )
        if is_greedy:
            return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        logits_BV = logits_BV / temperature
        if has_nucleus:
            logits_BV = _nucleus(logits_BV, top_p)
        step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        return jax.vmap(jax.random.categorical)(step_keys_B, logits_BV).astype(jnp.int32)

    extend = functools.partial(
        decoder.apply_cached, params, config, vocab_size, compute_dtype=compute_dtype
    )

    def unfinished(state: tuple[Any, ...]) -> jax.Array:
        step, *_, done_B = state
        return (step < max_new_tokens) & ~jnp.all(done_B)

    def advance(state: tuple[Any, ...]) -> tuple[Any, ...]:
        step, hidden_BD, cache, new_BM, num_new_B, done_B = state
        chosen_B = choose(hidden_BD, step)
        done_B |= jnp.any(chosen_B[:, None] == stop_ids, axis=1)
        new_BM = jax.lax.dynamic_update_slice_in_dim(new_BM, chosen_B[:, None], step, axis=1)
        num_new_B += ~done_B
        hidden_B1D, cache = extend(chosen_B[:, None], cache, ~done_B[:, None])
        return step + 1, hidden_B1D[:, 0], cache, new_BM, num_new_B, done_B

    valid_BP = jnp.arange(P) < lengths_B[:, None]
    cache = init_cache(config, B, P + max_new_tokens, compute_dtype)
    hidden_BPD, cache = extend(ids_BP, cache, valid_BP, is_prompt=True)
    last_B = jnp.maximum(lengths_B - 1, 0)
    state = (
        jnp.int32(0),
        hidden_BPD[jnp.arange(B), last_B],
        cache,
        jnp.zeros((B, max_new_tokens), jnp.int32),
        jnp.zeros((B,), jnp.int32),
        lengths_B == 0,
    )
    _, _, _, new_BM, num_new_B, _ = jax.lax.while_loop(unfinished, advance, state)
    return new_BM, num_new_B


def _nucleus(logits_BV: jax.Array, top_p: jax.Array) -> jax.Array:
    """Logits with those outside of the smallest set of probability `top_p` at -inf."""
    probabilities_BV = jax.nn.softmax(logits_BV, axis=-1)
    sorted_BV = jnp.sort(probabilities_BV, axis=-1, descending=True)
    before_BV = jnp.cumsum(sorted_BV, axis=-1) - sorted_BV
    # A token is in where those likelier than it do not reach top_p; the likeliest always is.
    smallest_B1 = jnp.min(jnp.where(before_BV < top_p, sorted_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(probabilities_BV >= smallest_B1, logits_BV, -jnp.inf)
