"""Byte-level BPE: train it, save it in Hugging Face format, encode fast; or take a base model's.

Training and the files on disk are Hugging Face `tokenizers`; encoding runs through tiktoken, which
gives the same ids about ten times faster. That the two agree is checked on real text before a
stage relies on it (`check_agreement`). A tokenizer that was not trained here splits words in its
own way, so it is run by `tokenizers` itself.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError, MachineError

END_OF_TEXT = "<|endoftext|>"
REPO_NAME = "<repo_name>"
FILE_SEP = "<file_sep>"
FIM_PREFIX = "<fim_prefix>"
FIM_MIDDLE = "<fim_middle>"
FIM_SUFFIX = "<fim_suffix>"

# Ids 0, 1, 2, ... in this order. The fill-in-the-middle and Jupyter markers are reserved so that a
# model trained here can be continued with them (RECIPE section 1).
SPECIAL_TOKENS = (
    END_OF_TEXT,
    REPO_NAME,
    FILE_SEP,
    FIM_PREFIX,
    FIM_MIDDLE,
    FIM_SUFFIX,
    "<fim_pad>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
)

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)

# GPT-2's word splitting, digits one by one. One pattern for both libraries, so that they agree.
# What needs no look ahead stands in a group of its own: tiktoken's regex engine then gives the
# whole group to an automaton and steps by itself through white space alone.
WORD_PATTERN = r"(?:'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+)|\s+(?!\S)|\s"


def train(texts: Iterable[str], vocab_size: int, folder: str) -> None:
    """Train on `texts` and write `tokenizer.json` and `tokenizer_config.json` to `folder`.

    Raises:
      InputError: the texts hold too little to fill the vocabulary.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(WORD_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise InputError(
            f"tokenizer.vocab_size: the sample of the corpus yields only "
            f"{tokenizer.get_vocab_size()} tokens, not {vocab_size}. "
            "Add sources, raise tokenizer.sample_bytes, or lower tokenizer.vocab_size."
        )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
    }
    text = tokenizer.to_str(pretty=True)
    storage.write_bytes(storage.join(folder, "tokenizer.json"), text.encode())
    storage.write_json(storage.join(folder, "tokenizer_config.json"), config)


def copy_files(source: str, folder: str) -> None:
    """Take the tokenizer of a model's folder, as it is."""
    for name in TOKENIZER_FILES:
        if storage.exists(storage.join(source, name)):
            data = storage.read_bytes(storage.join(source, name))
            storage.write_bytes(storage.join(folder, name), data)


def special_ids(folder: str) -> dict[str, int | None]:
    """Ids of the tokens that tokenizer_config.json names `bos` and `eos`; None where it does not.

    Raises:
      InputError: a file is missing, or such a token is not in tokenizer.json.
    """
    path = storage.join(folder, "tokenizer.json")
    if not storage.exists(path):
        raise InputError(f"{path}: is not there. Train a tokenizer or name another folder.")
    spec = storage.read_json(path)
    ids = dict(spec["model"].get("vocab", {}))
    ids |= {token["content"]: token["id"] for token in spec.get("added_tokens") or []}
    path = storage.join(folder, "tokenizer_config.json")
    settings = storage.read_json(path) if storage.exists(path) else {}
    found: dict[str, int | None] = {}
    for kind in ("bos", "eos"):
        token = settings.get(f"{kind}_token")
        content = token.get("content") if isinstance(token, dict) else token
        if content is not None and content not in ids:
            raise InputError(f"{path}: {kind}_token {content!r} is not in tokenizer.json")
        found[kind] = None if content is None else int(ids[content])
    return found


class Tokenizer:
    """A tokenizer; special tokens never come out of plain text.

    Args:
      ends: ids that begin and end a text, `bos` and `eos`, of a tokenizer that was not trained
        here.

    Attributes:
      vocab_size: number of ids, special ones included.
      end_of_text: the id that ends a document.
      token_bytes: int64 [vocab_size], bytes of text each id stands for (0 for special ones).

    Raises:
      InputError: it is not a byte-level BPE, or does not say how a text ends.
    """

    def __init__(self, tokenizer_json: str, ends: dict[str, int | None] | None = None) -> None:
        self._reference = tokenizers.Tokenizer.from_str(tokenizer_json)
        self._reference.encode_special_tokens = True
        self._reference.no_truncation()
        self._reference.no_padding()
        spec = json.loads(tokenizer_json)
        added: list[dict[str, Any]] = spec.get("added_tokens") or []
        self._specials = {t["content"]: int(t["id"]) for t in added if t["special"]}
        self._names = {i: name.encode() for name, i in self._specials.items()}
        texts = {t["content"]: t["content"].encode() for t in added if not t["special"]}
        vocab: dict[str, int] = spec["model"]["vocab"] | {t["content"]: t["id"] for t in added}
        from_char = _bytes_of_characters()
        try:
            ranks = {
                token: texts.get(token) or bytes(from_char[c] for c in token)
                for token in vocab
                if token not in self._specials
            }
        except (KeyError, AttributeError) as e:
            raise InputError(
                f"tokenizer.json: its tokens do not spell bytes ({e} is no byte of a byte-level "
                "BPE). Choose a model with a byte-level tokenizer, as GPT-2, StarCoder and Llama 3 "
                "have."
            ) from e
        self.vocab_size = max(vocab.values()) + 1
        self._bytes = [b""] * self.vocab_size
        for token, text in ranks.items():
            self._bytes[vocab[token]] = text
        self.token_bytes: npt.NDArray[np.int64] = np.array([len(x) for x in self._bytes], np.int64)
        own = all(self._specials.get(name) == i for i, name in enumerate(SPECIAL_TOKENS))
        self._fast: tiktoken.Encoding | None = None
        if own:
            self._fast = tiktoken.Encoding(
                "snowcoder",
                pat_str=WORD_PATTERN,
                mergeable_ranks={text: vocab[token] for token, text in ranks.items()},
                special_tokens=self._specials,
            )
        ends = ends or {}
        end = self._specials.get(END_OF_TEXT) if own else ends.get("eos")
        if end is None:
            raise InputError(
                "tokenizer_config.json: names no eos_token, so no text could end. Add it."
            )
        self.end_of_text: int = end
        begin = ends.get("bos")
        self._begin_of_text: int = end if begin is None else begin

    @staticmethod
    @functools.lru_cache(maxsize=4)
    def load(folder: str) -> Tokenizer:
        ends = special_ids(folder)
        path = storage.join(folder, "tokenizer.json")
        try:
            return Tokenizer(storage.read_bytes(path).decode(), ends)
        except InputError as e:
            raise InputError(f"{folder}: {e}") from e

    def special(self, name: str) -> int:
        """The id of one of SPECIAL_TOKENS.

        A base model's tokenizer may lack them. What begins its texts then stands for `FILE_SEP`,
        so that each file begins as its texts did, and the end of a text for all others; recipes
        that need those are refused (`has`).
        """
        if name in self._specials:
            return self._specials[name]
        return self._begin_of_text if name == FILE_SEP else self.end_of_text

    def has(self, name: str) -> bool:
        return name in self._specials

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a `<|endoftext|>` written in a file is encoded as its letters."""
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> npt.NDArray[np.int32]:
        """`encode` as int32 [number of tokens], without a Python object for each id.

        Raises:
          UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 cannot spell.
        """
        if self._fast is None:
            text.encode()
            return np.array(self._reference_ids(text), np.int32)
        try:
            ids = self._fast.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:
            raise
        except ValueError:
            # tiktoken's regex engine gives up on about a million white-space characters in a row.
            return np.array(self._reference_ids(text), np.int32)
        return ids.view(np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD, special tokens their names.

        Ids beyond the vocabulary, which a model with a padded embedding can write, are left out.
        """
        known = [self._names.get(i) or self._bytes[i] for i in ids if i < self.vocab_size]
        return b"".join(known).decode(errors="replace")

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[np.int32]) -> bytes:
        """Exact bytes of `ids`, special tokens left out."""
        return b"".join([self._bytes[i] for i in ids if i < self.vocab_size])

    def check_agreement(self, texts: Sequence[str]) -> None:
        """Raises MachineError where the fast ids differ from Hugging Face's."""
        for text in texts:
            if self.encode(text) != self._reference_ids(text):
                raise MachineError(
                    "tiktoken and tokenizers give different ids for the same text, so what is "
                    "trained could not be used elsewhere. Retrain the tokenizer, and report this "
                    f"text: {text[:200]!r}"
                )

    def _reference_ids(self, text: str) -> list[int]:
        return list(self._reference.encode(text, add_special_tokens=False).ids)


def _bytes_of_characters() -> dict[str, int]:
    # The printable stand-ins that byte-level BPE writes for bytes (GPT-2's table).
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in printable}
    others = [b for b in range(256) if b not in set(printable)]
    table.update({chr(256 + n): b for n, b in enumerate(others)})
    return table
