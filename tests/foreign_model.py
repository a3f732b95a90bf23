"""Somebody else's base model, tiny: another tokenizer than ours, grouped heads, untied, sharded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from snowcoder_jax.model import decoder
from snowcoder_jax.model.huggingface import export_llama
from snowcoder_jax.recipe import Model, RopeScaling

CONFIG = Model(
    hidden_dim=64,
    mlp_dim=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_sequence_length=128,
    rope_theta=50_000.0,
    rope_scaling=RopeScaling("llama3", 4.0, 1.0, 4.0, 64),
    tie_embeddings=False,
    initializer_range=0.05,
)
BEGIN, END = "<s>", "</s>"
# Rows of the embedding above the tokenizer's ids, as many models have.
NUM_PADDED = 8


def write_tokenizer(folder: Path, texts: Iterable[str], vocab_size: int) -> None:
    """GPT-2's splitting with digits in runs, two special tokens, none of our markers."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write(folder: Path, texts: Iterable[str], vocab_size: int = 512) -> str:
    """A whole model folder; its embedding has `vocab_size` + NUM_PADDED rows."""
    write_tokenizer(folder.with_suffix(".tokenizer"), texts, vocab_size)
    rows = vocab_size + NUM_PADDED
    export_llama(
        decoder.init_params(CONFIG, rows, seed=1),
        CONFIG,
        rows,
        str(folder.with_suffix(".tokenizer")),
        str(folder),
        max_shard_bytes=100_000,
    )
    return str(folder)
