"""Somebody's own model in a Hugging Face folder, as the one that a recipe's phases start from.

The folder gives the recipe its `model` and its vocabulary, the run its tokenizer, and every phase
that starts from no other its weights.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

from snowcoder_jax import storage, strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import llama_config
from snowcoder_jax.recipe import PLACEHOLDER, Recipe
from snowcoder_jax.strict import Fault
from snowcoder_jax.tokenizer import (
    FILE_SEP,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    REPO_NAME,
    TOKENIZER_FILES,
    Tokenizer,
)

# Up to here a weight file is hashed whole; of a larger one, this many blocks of this size.
_HASHED_BYTES = 1 << 28
_NUM_BLOCKS, _BLOCK_BYTES = 64, 1 << 16

# What must come back from a tokenizer byte for byte; normalisers and added spaces do not pass.
_PROBE = "def f(x):\r\n\n\treturn 'ﬁ é e\u0301 日本 \U0001f44d' #  \u00a0\u200b1234   "


def fill_in(data: dict[str, Any], faults: list[Fault]) -> None:
    """Give a recipe's plain data the `model` and `tokenizer.vocab_size` of its base model.

    Of `model` a recipe may give `attention`, and a lower `max_sequence_length`; what else it gives
    must be what the folder says (the recipe kept beside a run is written out whole).
    """
    folder = data.get("base_model")
    if not isinstance(folder, str) or PLACEHOLDER in folder:
        return
    model, tokenizer = (data.get(name) or {} for name in ("model", "tokenizer"))
    if not isinstance(model, dict) or not isinstance(tokenizer, dict):
        return  # the types are checked later
    try:
        config, vocab_size = llama_config.read_config(folder)
    except InputError as e:
        faults.append(strict.as_fault(e, "base_model", "Name the folder of a whole Llama model."))
        return
    for name, value in strict.to_plain(config).items():
        given = model.get(name, value)
        is_free = name == "attention" or (
            name == "max_sequence_length" and isinstance(given, int) and given < value
        )
        if given != value and not is_free:
            mend = "Leave it out: the base model decides."
            faults.append(Fault(f"model.{name}", f"`{given}`, and {folder} has {value}", mend))
    if tokenizer.get("vocab_size", vocab_size) != vocab_size:
        problem = f"`{tokenizer['vocab_size']}`, and {folder} has {vocab_size}"
        faults.append(
            Fault("tokenizer.vocab_size", problem, "Leave it out: the base model decides.")
        )
    data["model"] = {**strict.to_plain(config), **model}
    data["tokenizer"] = {**tokenizer, "vocab_size": vocab_size}


def problems(recipe: Recipe) -> Iterator[Fault]:
    """What keeps a recipe from starting at its base model: its weights, tokenizer, markers."""
    folder = recipe.base_model
    if folder is None:
        return
    try:
        _check_weights(folder)
    except InputError as e:
        yield strict.as_fault(e, "base_model", "Fetch the whole model, or choose another.")
    try:
        tokenizer = Tokenizer.load(folder)
    except InputError as e:
        yield strict.as_fault(e, "base_model", "Choose a model whose tokenizer can be used.")
        return
    if tokenizer.vocab_size > recipe.tokenizer.vocab_size:
        yield Fault(
            "base_model",
            f"its tokenizer has {tokenizer.vocab_size} ids and its embedding "
            f"{recipe.tokenizer.vocab_size} rows",
            "Fetch both of the same model.",
        )
    if tokenizer.decode_bytes(tokenizer.encode(_PROBE)) != _PROBE.encode():
        yield Fault(
            "base_model",
            "its tokenizer does not give a text back byte for byte",
            "Choose a model whose tokenizer changes nothing (no normaliser, no added space).",
        )
    has_names = tokenizer.has(REPO_NAME) and tokenizer.has(FILE_SEP)
    has_fim = all(tokenizer.has(name) for name in (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX))
    for selection in recipe.selections:
        at = f"selections.{selection.name}"
        if selection.metadata_share > 0 and not has_names:
            problem = f"the base model's tokenizer has no {REPO_NAME} and {FILE_SEP}"
            yield Fault(f"{at}.metadata_share", problem, "Set it to 0.")
        if selection.fim_share > 0 and not has_fim:
            problem = f"the base model's tokenizer has no {FIM_PREFIX} and its like"
            yield Fault(f"{at}.fim_share", problem, "Set it to 0.")


def _check_weights(folder: str) -> None:
    from snowcoder_jax.model import huggingface

    if storage.is_local(folder):
        with huggingface.open_llama(folder):
            return
    for path in huggingface.weight_files(folder):  # fetched when they are needed, and not before
        if not storage.exists(path):
            raise InputError(f"{path}: there is no such file")


@functools.cache
def fingerprint(folder: str) -> str:
    """Of config, tokenizer and weights: what a run that starts there depends on.

    A weight file above 256 MiB is told by its size and 64 blocks of 64 KiB spread over it, the
    first and the last among them: training changes all of them.
    """
    from snowcoder_jax.model import huggingface

    digest = hashlib.sha256(tokenizer_fingerprint(folder).encode())
    digest.update(storage.read_bytes(storage.join(folder, llama_config.CONFIG)))
    for path in huggingface.weight_files(folder):
        size = storage.size_bytes(path)
        digest.update(f"{path.rsplit('/', 1)[-1]} {size}".encode())
        if size <= _HASHED_BYTES:
            digest.update(storage.sha256_file(path).encode())
            continue
        with storage.open_read(path) as f:
            for i in range(_NUM_BLOCKS):
                f.seek((size - _BLOCK_BYTES) * i // (_NUM_BLOCKS - 1))
                digest.update(f.read(_BLOCK_BYTES))
    return digest.hexdigest()[:16]


def tokenizer_fingerprint(folder: str) -> str:
    paths = [storage.join(folder, name) for name in TOKENIZER_FILES]
    hashes = [storage.sha256_file(path) for path in paths if storage.exists(path)]
    return hashlib.sha256(repr(hashes).encode()).hexdigest()[:16]
