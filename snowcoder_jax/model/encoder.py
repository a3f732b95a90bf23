"""A BERT encoder from a Hugging Face folder: weights, tokenizer, pooling; nothing is downloaded.

Snowflake-arctic-embed and all-MiniLM are both plain BERT. The maths is in `bert.py`.

Shape legend: D hidden, L layers, F mlp hidden.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import tokenizers

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import bert
from snowcoder_jax.model.bert import BertConfig, Params, Pooling

WEIGHTS_FILE = "model.safetensors"

# Our name -> Hugging Face's below `encoder.layer.<i>.`; several are joined on the last dim, and a
# matrix is transposed, since a torch Linear holds [out, in].
_LAYER_NAMES: dict[str, tuple[str, ...]] = {
    "qkv": tuple(f"attention.self.{n}.weight" for n in ("query", "key", "value")),
    "qkv_bias": tuple(f"attention.self.{n}.bias" for n in ("query", "key", "value")),
    "output": ("attention.output.dense.weight",),
    "output_bias": ("attention.output.dense.bias",),
    "attention_norm": ("attention.output.LayerNorm.weight",),
    "attention_norm_bias": ("attention.output.LayerNorm.bias",),
    "up": ("intermediate.dense.weight",),
    "up_bias": ("intermediate.dense.bias",),
    "down": ("output.dense.weight",),
    "down_bias": ("output.dense.bias",),
    "mlp_norm": ("output.LayerNorm.weight",),
    "mlp_norm_bias": ("output.LayerNorm.bias",),
}
_EMBEDDING_NAMES = {
    "word": "embeddings.word_embeddings.weight",
    "position": "embeddings.position_embeddings.weight",
    "token_type": "embeddings.token_type_embeddings.weight",
    "norm": "embeddings.LayerNorm.weight",
    "norm_bias": "embeddings.LayerNorm.bias",
}


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A BERT with its weights and tokenizer.

    Attributes:
      folder: where it was loaded from.
      params: nested dict of float32 arrays, as `bert.apply` takes it.
      pooling: how its makers pool hidden states.
    """

    folder: str
    config: BertConfig
    params: Params
    tokenizer: tokenizers.Tokenizer
    pooling: Pooling
    cls_id: int
    sep_id: int

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, whole, without special tokens."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def with_specials(self, ids: Sequence[int]) -> list[int]:
        """[CLS] ids [SEP]: what the model reads as one window."""
        return [self.cls_id, *ids, self.sep_id]

    def embed_windows(
        self,
        windows: Sequence[Sequence[int]],
        params: Params | None = None,
        on_batch: Callable[[Sequence[int]], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Pooled embeddings [number of windows, D], in the order given.

        Windows of like length share a batch (`bert.batches`); a window's embedding does
        not depend on the others but for float rounding.

        Args:
          windows: token ids with the special ones, at most `config.num_positions` each.
          params: other weights than the encoder's own (while it is being tuned).
          on_batch: called with the positions of the windows each batch has finished.
        """
        params = self.params if params is None else params
        embeddings = np.empty((len(windows), self.config.hidden_dim), np.float32)
        for positions, ids_BS, mask_BS in bert.batches(windows, self.config.num_positions):
            batch = bert.embed(params, ids_BS, mask_BS, config=self.config, pooling=self.pooling)
            embeddings[positions] = np.asarray(batch)[: len(positions)]
            if on_batch is not None:
                on_batch(positions)
        return embeddings


# Folders in Hugging Face format.


def resolve_encoder(name: str) -> str:
    """The folder that a recipe's `annotator.encoder` means.

    Args:
      name: a folder, or `package:NAME` for an installed Python package that carries one.

    Raises:
      InputError: there is no such folder or package.
    """
    if name.startswith("package:"):
        return _package_folder(name.removeprefix("package:"))
    if storage.exists(storage.join(name, "config.json")):
        return name
    if os.path.isdir(name):
        raise InputError(
            f"annotator.encoder: {name} holds no config.json. Name the folder of a BERT in "
            "Hugging Face format (config.json, model.safetensors, tokenizer.json)."
        )
    mend = "Name an existing folder, or `package:NAME` for an installed package."
    if name.count("/") == 1 and not name.startswith((".", "/")):
        target = "models/" + name.split("/")[1]
        mend = (
            "Nothing is downloaded while a recipe runs. If it is a name of the Hugging Face hub, "
            f"first run `hf download {name} --local-dir {target}` (pip install huggingface_hub), "
            f"then set annotator.encoder={target}."
        )
    raise InputError(f"annotator.encoder: there is no folder {name}. {mend}")


def _package_folder(package: str) -> str:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"annotator.encoder: the package {package} is not installed. Install it with "
            f"`pip install --no-deps {package.replace('_', '-')}`, or name a folder."
        )
    for location in spec.submodule_search_locations:
        for config in storage.list_files(location, "config.json"):
            folder = os.path.dirname(config)
            if os.path.exists(os.path.join(folder, WEIGHTS_FILE)):
                return folder
    raise InputError(
        f"annotator.encoder: the package {package} carries no config.json with a {WEIGHTS_FILE} "
        "beside it. Name a package or a folder that holds an encoder in Hugging Face format."
    )


def check_encoder(folder: str) -> None:
    """Look at all of an encoder but its weights, of which it only asks whether they are there.

    Raises:
      InputError: as `load_encoder`.
    """
    _read_all_but_weights(folder)
    if not storage.exists(storage.join(folder, WEIGHTS_FILE)):
        raise _missing(folder, WEIGHTS_FILE)


def load_encoder(folder: str) -> Encoder:
    """Load a BERT from a folder in Hugging Face format.

    `1_Pooling/config.json` (sentence-transformers) says how to pool; without one it is the mean.

    Raises:
      InputError: a file is missing or broken, or the model is not a plain BERT.
    """
    config, tokenizer, pooling, cls_id, sep_id = _read_all_but_weights(folder)
    tensors = _read_tensors(folder)
    params = {name: jnp.asarray(a) for name, a in _from_hugging_face(tensors, config).items()}
    for name, shape in bert.parameter_shapes(config).items():
        if params[name].shape != shape:
            raise InputError(
                f"{folder}/{WEIGHTS_FILE}: `{name}` has shape {params[name].shape}, but "
                f"config.json asks for {shape}. Take both files from the same model."
            )
    return Encoder(folder, config, params, tokenizer, pooling, cls_id, sep_id)


def _read_all_but_weights(
    folder: str,
) -> tuple[BertConfig, tokenizers.Tokenizer, Pooling, int, int]:
    """Config, tokenizer, pooling, and the ids of [CLS] and [SEP]."""
    config = _read_config(folder)
    tokenizer = _read_tokenizer(folder, config.vocab_size)
    cls_id, sep_id = (_special_id(folder, tokenizer, token) for token in ("[CLS]", "[SEP]"))
    return config, tokenizer, _read_pooling(folder), cls_id, sep_id


def save_encoder(encoder: Encoder, params: Params, folder: str) -> None:
    """Write `params` in the format that `load_encoder` and transformers read; weights last."""
    raw = _read_json(folder=encoder.folder, name="config.json")
    mean = encoder.pooling == "mean"
    pooling = {"pooling_mode_mean_tokens": mean, "pooling_mode_cls_token": not mean}
    pooling_file = storage.join(folder, "1_Pooling", "config.json")
    storage.write_json(pooling_file, {"word_embedding_dimension": raw["hidden_size"], **pooling})
    storage.write_json(storage.join(folder, "config.json"), raw)
    tokenizer_json = encoder.tokenizer.to_str().encode()
    storage.write_bytes(storage.join(folder, "tokenizer.json"), tokenizer_json)
    tensors = _to_hugging_face({name: np.asarray(a) for name, a in params.items()})
    data = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    storage.write_bytes(storage.join(folder, WEIGHTS_FILE), data)


def _read_file(folder: str, name: str) -> bytes:
    path = storage.join(folder, name)
    if not storage.exists(path):
        raise _missing(folder, name)
    return storage.read_bytes(path)


def _missing(folder: str, name: str) -> InputError:
    return InputError(
        f"{storage.join(folder, name)}: missing. An encoder's folder needs config.json, "
        f"{WEIGHTS_FILE} and tokenizer.json (or vocab.txt)."
    )


def _read_json(folder: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(_read_file(folder, name))
    except ValueError as e:
        raise InputError(f"{folder}/{name}: is not JSON ({e}). Copy it again.") from e
    if not isinstance(value, dict):
        raise InputError(f"{folder}/{name}: is not a JSON object. Copy it again.")
    return value


def _read_config(folder: str) -> BertConfig:
    raw = _read_json(folder, "config.json")
    expected = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
    }
    for field, only in expected.items():
        found = raw.get(field, None if field == "model_type" else only)
        if found != only:
            raise InputError(
                f"{folder}/config.json: `{field}` is {found!r}, but only {only!r} is known here. "
                "Name a plain BERT encoder, such as Snowflake-arctic-embed-m or all-MiniLM-L6."
            )
    try:
        config = BertConfig(
            vocab_size=int(raw["vocab_size"]),
            num_positions=int(raw["max_position_embeddings"]),
            num_token_types=int(raw["type_vocab_size"]),
            hidden_dim=int(raw["hidden_size"]),
            num_layers=int(raw["num_hidden_layers"]),
            num_heads=int(raw["num_attention_heads"]),
            mlp_dim=int(raw["intermediate_size"]),
            norm_eps=float(raw["layer_norm_eps"]),
        )
    except KeyError as e:
        raise InputError(f"{folder}/config.json: has no field {e}. Copy it again.") from e
    if config.hidden_dim % config.num_heads:
        raise InputError(
            f"{folder}/config.json: hidden_size is no multiple of the heads. Copy it again."
        )
    return config


def _read_tensors(folder: str) -> dict[str, npt.NDArray[Any]]:
    try:
        tensors = safetensors.numpy.load(_read_file(folder, WEIGHTS_FILE))
    except safetensors.SafetensorError as e:
        raise InputError(f"{folder}/{WEIGHTS_FILE}: is broken ({e}). Copy it again.") from e
    # A BERT saved with a task head keeps its own weights below `bert.`.
    return {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}


def _from_hugging_face(
    tensors: dict[str, npt.NDArray[Any]], config: BertConfig
) -> dict[str, npt.NDArray[np.float32]]:
    def layer(names: tuple[str, ...], i: int) -> npt.NDArray[Any]:
        parts = [tensors[f"encoder.layer.{i}.{name}"] for name in names]
        return np.concatenate([part.T for part in parts], axis=-1)

    try:
        params = {ours: tensors[theirs] for ours, theirs in _EMBEDDING_NAMES.items()}
        for ours, names in _LAYER_NAMES.items():
            params[ours] = np.stack([layer(names, i) for i in range(config.num_layers)])
    except KeyError as e:
        raise InputError(
            f"{WEIGHTS_FILE}: has no tensor {e} for a BERT of {config.num_layers} layers. "
            "Take config.json and the weights from the same model."
        ) from e
    return {name: np.asarray(tensor, np.float32) for name, tensor in params.items()}


def _to_hugging_face(params: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    tensors = {theirs: params[ours] for ours, theirs in _EMBEDDING_NAMES.items()}
    for ours, names in _LAYER_NAMES.items():
        for i, joined in enumerate(params[ours]):
            parts = np.split(joined, len(names), axis=-1)
            for name, part in zip(names, parts, strict=True):
                tensors[f"encoder.layer.{i}.{name}"] = np.ascontiguousarray(part.T)
    return tensors


def _read_tokenizer(folder: str, vocab_size: int) -> tokenizers.Tokenizer:
    if storage.exists(storage.join(folder, "tokenizer.json")):
        data = _read_file(folder, "tokenizer.json")
        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(data)
        except Exception as e:  # the library raises no narrower class
            raise InputError(f"{folder}/tokenizer.json: is broken ({e}). Copy it again.") from e
    else:
        tokenizer = _word_piece(folder)
    if tokenizer.get_vocab_size() > vocab_size:
        raise InputError(
            f"{folder}: its tokenizer has {tokenizer.get_vocab_size()} tokens, its weights "
            f"{vocab_size}. Take both from the same model."
        )
    # A tokenizer may be saved with the cut and padding of its makers' inputs. And text that
    # spells a special token ("[MASK]") is text.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _special_id(folder: str, tokenizer: tokenizers.Tokenizer, token: str) -> int:
    token_id: int | None = tokenizer.token_to_id(token)
    if token_id is None:
        raise InputError(
            f"{folder}: its tokenizer has no {token}. Copy the one that came with the BERT."
        )
    return token_id


def _word_piece(folder: str) -> tokenizers.Tokenizer:
    lines = _read_file(folder, "vocab.txt").decode().removesuffix("\n").split("\n")
    vocabulary = {token.removesuffix("\r"): i for i, token in enumerate(lines)}
    lowercase = True
    if storage.exists(storage.join(folder, "tokenizer_config.json")):
        lowercase = bool(_read_json(folder, "tokenizer_config.json").get("do_lower_case", True))
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _read_pooling(folder: str) -> Pooling:
    name = "1_Pooling/config.json"
    if not storage.exists(storage.join(folder, name)):
        return "mean"
    raw = _read_json(folder, name)
    chosen = sorted(k for k, v in raw.items() if k.startswith("pooling_mode_") and v is True)
    if chosen == ["pooling_mode_cls_token"]:
        return "cls"
    if chosen == ["pooling_mode_mean_tokens"]:
        return "mean"
    raise InputError(
        f"{folder}/{name}: asks for {chosen or 'no pooling'}; known are pooling_mode_cls_token "
        "and pooling_mode_mean_tokens, one alone. Name another encoder."
    )
