"""A trained annotator on disk, and what is known of it.

A folder `annotators/<hash>/` holds `head.safetensors` (weight [D], bias [1], float32), the
encoder itself where it was tuned (`encoder/`), and `annotator.json`, written last.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from snowcoder_jax import recipe, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.model.bert import Params
from snowcoder_jax.model.encoder import (
    WEIGHTS_FILE,
    Encoder,
    load_encoder,
    resolve_encoder,
    save_encoder,
)

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class AnnotatorResult:
    """What was trained on what, and how well it tells held-out documents apart.

    Attributes:
      num_excluded: negatives left out because they are positives too.
      best_epoch: 1 is the first.
      auc: ROC-AUC over held-out documents at the best epoch, 0.5 for chance.
      auc_by_language: the same inside each language of which both classes are held out.
    """

    folder: str
    num_positives: int
    num_negatives: int
    num_excluded: int
    num_heldout_positives: int
    num_heldout_negatives: int
    num_windows: int
    positives_by_origin: dict[str, int]
    positives_by_language: dict[str, int]
    best_epoch: int
    auc: float
    auc_by_epoch: tuple[float, ...]
    auc_by_language: dict[str, float]


def save_annotator(
    result: AnnotatorResult,
    config: recipe.Annotator,
    encoder: Encoder,
    head: dict[str, Floats],
    tuned: Params | None,
) -> None:
    """Write a trained annotator to `result.folder`; `tuned`: the encoder's weights if new."""
    facts_file = storage.join(result.folder, "annotator.json")
    storage.remove(facts_file)
    head_file = storage.join(result.folder, "head.safetensors")
    storage.write_bytes(head_file, safetensors.numpy.save(dict(head)))
    encoder_folder = encoder.folder
    if tuned is not None:
        encoder_folder = storage.join(result.folder, "encoder")
        save_encoder(encoder, tuned, encoder_folder)
    facts = {
        **dataclasses.asdict(result),
        "encoder": config.encoder,
        "encoder_tuned": tuned is not None,
        "encoder_sha256": storage.sha256_file(storage.join(encoder_folder, WEIGHTS_FILE)),
        "window_tokens": config.window_tokens,
        "num_sections": config.num_sections,
    }
    del facts["folder"]
    storage.write_json(facts_file, facts)


@dataclasses.dataclass(frozen=True)
class Annotator:
    """A trained annotator: an embedding e [D] scores sigmoid(e @ weight + bias)."""

    encoder: Encoder
    weight: Floats
    bias: float
    window_tokens: int
    num_sections: int


def load_annotator(folder: str) -> Annotator:
    """Load what `save_annotator` wrote.

    Raises:
      InputError: the folder is not whole, or its encoder is not the one it was trained with.
    """
    facts_file = storage.join(folder, "annotator.json")
    if not storage.exists(facts_file):
        raise InputError(f"{folder}: holds no annotator.json. Run the annotate step first.")
    facts = storage.read_json(facts_file)
    tuned = storage.join(folder, "encoder")
    encoder_folder = tuned if facts["encoder_tuned"] else resolve_encoder(facts["encoder"])
    sha256 = storage.sha256_file(storage.join(encoder_folder, WEIGHTS_FILE))
    if sha256 != facts["encoder_sha256"]:
        raise InputError(
            f"{encoder_folder}/{WEIGHTS_FILE}: is not the encoder that {folder} was trained with. "
            "Put that one back, or run the annotate step again."
        )
    head = safetensors.numpy.load(storage.read_bytes(storage.join(folder, "head.safetensors")))
    return Annotator(
        load_encoder(encoder_folder),
        head["weight"],
        float(head["bias"][0]),
        facts["window_tokens"],
        facts["num_sections"],
    )
