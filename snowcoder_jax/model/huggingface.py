"""Weights in Hugging Face Llama format, out and in.

Rotary positions already pair dims as `LlamaForCausalLM` does, so every weight is a reshaped
plain copy. Weights are read slice by slice: a model is put onto a mesh without ever lying in a
host's memory as a whole, and each host reads what its devices hold.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import jax
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.model.decoder import Params
from snowcoder_jax.model.llama_config import CONFIG, config_json, read_config, read_json
from snowcoder_jax.recipe import Model
from snowcoder_jax.tokenizer import TOKENIZER_FILES, special_ids

MAX_SHARD_BYTES = 5_000_000_000

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DTYPES = ("F64", "F32", "F16", "BF16")
# Our name of a block's weight, and theirs; norms are vectors, the others matrices [out, in].
_LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_TABLE_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
}
_Array = npt.NDArray[Any]


def export_llama(
    params: Params,
    config: Model,
    vocab_size: int,
    tokenizer_folder: str,
    folder: str,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that `transformers` and vLLM load: config.json, weights, tokenizer.

    The folder comes into being whole, by rename (on an object store config.json, without which
    nothing loads it, is uploaded last); one that is there already is replaced. Weights are
    float32, split in several files above `max_shard_bytes`.

    Raises:
      InputError: the tokenizer folder has no tokenizer.json, or `folder` cannot be written.
      MachineError: the disk is full.
    """
    tokenizer_files = [f for f in TOKENIZER_FILES if storage.exists(_in(tokenizer_folder, f))]
    if "tokenizer.json" not in tokenizer_files:
        raise InputError(
            f"{tokenizer_folder}: there is no tokenizer.json; "
            "give the folder of the tokenizer that the model was trained with"
        )
    with _atomic_folder(folder) as temporary:
        _write_weights(params, temporary, max_shard_bytes)
        for name in tokenizer_files:
            storage.write_bytes(
                _in(temporary, name), storage.read_bytes(_in(tokenizer_folder, name))
            )
        ids = special_ids(tokenizer_folder)
        facts = config_json(
            config, vocab_size, {f"{kind}_token_id": ids[kind] for kind in ("bos", "eos")}
        )
        storage.write_json(_in(temporary, CONFIG), facts)


def import_llama(folder: str) -> tuple[Params, Model, int]:
    """Parameters (float32 numpy arrays), config and vocabulary size of a Llama folder.

    Weights may be in one or several safetensors files, of any float dtype.

    Raises:
      InputError: a file is missing or broken, or the model has what the decoder does not.
    """
    with open_llama(folder) as weights:
        shapes = _shapes(weights.config, weights.vocab_size)
        params: Params = {name: weights.read(name) for name in shapes if name in _TABLE_NAMES}
        params["layers"] = {name: weights.read(name) for name in _LAYER_NAMES}
        return params, weights.config, weights.vocab_size


def load_llama(folder: str, shapes: Params) -> Params:
    """The parameters of a Llama folder, float32, placed as `shapes` says.

    Each host reads the slices that its devices hold and no others, one parameter at a time.

    Args:
      shapes: ShapeDtypeStructs with shardings, of the structure of `decoder.init_params`.

    Raises:
      InputError: as `import_llama`.
    """
    with open_llama(folder) as weights:

        def load(path: Any, shape: jax.ShapeDtypeStruct) -> jax.Array:
            name = path[-1].key
            return jax.make_array_from_callback(
                shape.shape, shape.sharding, lambda index: weights.read(name, index)
            )

        params: Params = jax.tree_util.tree_map_with_path(load, shapes)
        return params


class LlamaWeights:
    """The open weights of a Llama folder, under our names and in our shapes."""

    def __init__(self, config: Model, vocab_size: int, files: dict[str, Any]) -> None:
        self.config = config
        self.vocab_size = vocab_size
        self._file_of = {name: file for file in files.values() for name in file.keys()}  # noqa: SIM118

    def read(self, name: str, index: Sequence[slice] | None = None) -> _Array:
        """A slice of a parameter, float32; the whole where no index is given.

        Args:
          index: one slice for each dim; head dims cannot be cut.
        """
        shape = _shapes(self.config, self.vocab_size)[name]
        index = [slice(None)] * len(shape) if index is None else index
        bounds = [range(size)[cut] for cut, size in zip(index, shape, strict=True)]
        if name in _TABLE_NAMES:
            return self._theirs(_TABLE_NAMES[name], bounds)
        result = np.empty([len(bound) for bound in bounds], np.float32)
        num_in = _num_in_dims(name)
        for out, layer in zip(result, bounds[0], strict=True):
            theirs = f"model.layers.{layer}.{_LAYER_NAMES[name]}.weight"
            if not num_in:
                out[...] = self._theirs(theirs, bounds[1:])
                continue
            columns = _flat(bounds[1 : 1 + num_in], shape[1 : 1 + num_in])
            rows = _flat(bounds[1 + num_in :], shape[1 + num_in :])
            out[...] = self._theirs(theirs, [rows, columns]).T.reshape(out.shape)
        return result

    def _theirs(self, name: str, bounds: Sequence[range]) -> _Array:
        cut = tuple(slice(bound.start, bound.stop) for bound in bounds)
        weight: _Array = self._file_of[name].get_slice(name)[cut]
        return weight.astype(np.float32)


def _flat(bounds: Sequence[range], sizes: Sequence[int]) -> range:
    """One range over several dims laid out in a row; only the first of them may be cut."""
    inner = math.prod(sizes[1:])
    assert all(len(bound) == size for bound, size in zip(bounds[1:], sizes[1:], strict=True))
    return range(bounds[0].start * inner, bounds[0].stop * inner)


@contextlib.contextmanager
def open_llama(folder: str) -> Iterator[LlamaWeights]:
    """The weights of a Llama folder; names, shapes and dtypes are checked, nothing else is read.

    Files of an object store are copied to a temporary folder for as long.

    Raises:
      InputError: a file is missing or broken, or its weights are not those of config.json.
    """
    config, vocab_size = read_config(folder)
    with contextlib.ExitStack() as stack:
        files = {}
        for path in weight_files(folder):
            local = stack.enter_context(_local(path))
            files[path] = stack.enter_context(_open_weights(local, path))
        problems = _weight_problems(config, vocab_size, files)
        if problems:
            lines = "".join(f"\n  {problem}" for problem in problems[:10])
            more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise InputError(f"{folder}: {len(problems)} fault(s) of its weights{lines}{more}")
        yield LlamaWeights(config, vocab_size, files)


def _weight_problems(config: Model, vocab_size: int, files: dict[str, Any]) -> list[str]:
    wanted = _their_shapes(config, vocab_size)
    missing, problems = set(wanted), []
    for path, file in files.items():
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            if name not in wanted:
                if not _is_surplus(name, config):
                    problems.append(
                        f"{path}: {name} is a weight that the decoder does not have; "
                        "choose a plain Llama model"
                    )
                continue
            missing.discard(name)
            weight = file.get_slice(name)
            shape, dtype = tuple(weight.get_shape()), weight.get_dtype()
            if shape != wanted[name]:
                problems.append(
                    f"{path}: {name} has shape {shape}, and config.json asks for {wanted[name]}; "
                    "the two are not of the same model"
                )
            if dtype not in _DTYPES:
                problems.append(
                    f"{path}: {name} is {dtype}; choose weights that are not quantised "
                    f"({', '.join(_DTYPES)})"
                )
    if missing:
        problems.append(
            f"{len(missing)} weights are missing, {min(missing)} the first; "
            "fetch the whole model again"
        )
    return problems


def _is_surplus(name: str, config: Model) -> bool:
    """Whether a weight that the decoder does not have can be left out of its maths."""
    is_tied_copy = config.tie_embeddings and name == _TABLE_NAMES["head"]
    # Old exports carry RoPE's frequencies, which the config gives as well.
    return is_tied_copy or name.endswith("rotary_emb.inv_freq")


def _named_views(params: Params) -> Iterator[tuple[str, _Array]]:
    """Hugging Face's names and [out, in] shapes, as views of our arrays."""
    for ours, theirs in _TABLE_NAMES.items():
        if ours in params:
            yield theirs, np.asarray(params[ours])
    for ours, theirs in _LAYER_NAMES.items():
        stacked = np.asarray(params["layers"][ours])
        for i, weight in enumerate(stacked):
            yield f"model.layers.{i}.{theirs}.weight", _as_matrix(ours, weight)


def _num_in_dims(name: str) -> int:
    """How many of our dims, after that of layers, their matrix [out, in] takes as `in`."""
    return 0 if name.endswith("norm") else 2 if name == "output" else 1


def _as_matrix(name: str, weight: _Array) -> _Array:
    num_in = _num_in_dims(name)
    return weight.reshape(math.prod(weight.shape[:num_in]), -1).T if num_in else weight


def _shapes(config: Model, vocab_size: int) -> dict[str, tuple[int, ...]]:
    L, D, F, H = config.num_layers, config.hidden_dim, config.mlp_dim, config.head_dim
    N, K = config.num_heads, config.num_kv_heads
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (vocab_size, D),
        "final_norm": (D,),
        "attention_norm": (L, D),
        "query": (L, D, N, H),
        "key": (L, D, K, H),
        "value": (L, D, K, H),
        "output": (L, N, H, D),
        "mlp_norm": (L, D),
        "gate": (L, D, F),
        "up": (L, D, F),
        "down": (L, F, D),
    }
    if not config.tie_embeddings:
        shapes["head"] = (vocab_size, D)
    return shapes


def _their_shapes(config: Model, vocab_size: int) -> dict[str, tuple[int, ...]]:
    result = {}
    for name, shape in _shapes(config, vocab_size).items():
        if name in _TABLE_NAMES:
            result[_TABLE_NAMES[name]] = shape
            continue
        num_in = _num_in_dims(name)
        theirs = shape[1:]
        if num_in:
            theirs = (math.prod(shape[1 + num_in :]), math.prod(shape[1 : 1 + num_in]))
        for i in range(config.num_layers):
            result[f"model.layers.{i}.{_LAYER_NAMES[name]}.weight"] = theirs
    return result


def _write_weights(params: Params, folder: str, max_shard_bytes: int) -> None:
    shards: list[dict[str, _Array]] = [{}]
    size = total = 0
    for name, view in _named_views(params):
        if size and size + view.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = view
        size += view.nbytes
        total += view.nbytes
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, start=1):
        several = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        file = _WEIGHTS if len(shards) == 1 else several
        # safetensors writes an array's memory as it lies: views would come out scrambled.
        whole = {name: np.ascontiguousarray(view, np.float32) for name, view in shard.items()}
        save_file(whole, os.path.join(folder, file), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        storage.write_json(_in(folder, _INDEX), index)


def weight_files(folder: str) -> list[str]:
    """Where the weights of a folder should lie."""
    if storage.exists(_in(folder, _INDEX)):
        weight_map = read_json(_in(folder, _INDEX))["weight_map"]
        return [_in(folder, name) for name in sorted(set(weight_map.values()))]
    return [_in(folder, _WEIGHTS)]


@contextlib.contextmanager
def _open_weights(local: str, path: str) -> Iterator[Any]:
    # JAX's numpy dtypes (ml_dtypes) make bfloat16 readable without another framework.
    try:
        opened = safe_open(local, framework="numpy")
    except SafetensorError as e:
        raise InputError(f"{path}: not a whole safetensors file ({e}); fetch it again") from e
    with opened as weights:
        yield weights


def _in(folder: str, name: str) -> str:
    return storage.join(folder, name)


@contextlib.contextmanager
def _local(path: str) -> Iterator[str]:
    """`path` itself, or a local copy of it for as long as it is needed."""
    if not storage.exists(path):
        raise InputError(f"{path}: there is no such file; fetch the whole model again")
    if storage.is_local(path):
        yield path
        return
    fs, inner = fsspec.core.url_to_fs(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, os.path.basename(path))
        fs.get_file(inner, copy)
        yield copy


@contextlib.contextmanager
def _atomic_folder(folder: str) -> Iterator[str]:
    """A local folder to fill; on a clean exit it becomes `folder`, whole."""
    if not storage.is_local(folder):
        with tempfile.TemporaryDirectory() as temporary:
            yield temporary
            names = sorted(os.listdir(temporary), key=lambda name: name == "config.json")
            storage.remove(_in(folder, "config.json"))
            fs, inner = fsspec.core.url_to_fs(folder)
            for name in names:
                fs.put_file(os.path.join(temporary, name), _in(inner, name))
        return
    target = os.path.abspath(folder)
    with storage.machine_faults(folder):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary, old = (
            os.path.join(
                os.path.dirname(target), f".tmp-{os.getpid()}-{kind}{os.path.basename(target)}"
            )
            for kind in ("", "old-")
        )
        storage.remove(temporary)
        os.mkdir(temporary)
        try:
            yield temporary
            if os.path.exists(target):
                os.rename(target, old)
            os.rename(temporary, target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
