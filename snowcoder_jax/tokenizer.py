"""Byte-level BPE: train it, save it in Hugging Face format, encode fast.

Training and the files on disk are Hugging Face `tokenizers`; encoding runs through tiktoken, which
gives the same ids about ten times faster. That the two agree is checked on real text before a
stage relies on it (`check_agreement`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence

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


class Tokenizer:
    """A trained tokenizer; special tokens never come out of plain text.

    Attributes:
      vocab_size: number of ids, special ones included.
      end_of_text: the id that ends a document.
      token_bytes: int64 [vocab_size], bytes of text each id stands for (0 for special ones).
    """

    def __init__(self, tokenizer_json: str) -> None:
        self._reference = tokenizers.Tokenizer.from_str(tokenizer_json)
        self._reference.encode_special_tokens = True
        spec = json.loads(tokenizer_json)
        from_char = _bytes_of_characters()
        vocab: dict[str, int] = spec["model"]["vocab"]
        self._specials = {t["content"]: int(t["id"]) for t in spec["added_tokens"] if t["special"]}
        ranks = {
            bytes(from_char[c] for c in token): i
            for token, i in vocab.items()
            if token not in self._specials
        }
        self._fast = tiktoken.Encoding(
            "snowcoder",
            pat_str=WORD_PATTERN,
            mergeable_ranks=ranks,
            special_tokens=self._specials,
        )
        self.vocab_size = len(ranks) + len(self._specials)
        self.end_of_text = self._specials[END_OF_TEXT]
        self.token_bytes: npt.NDArray[np.int64] = np.zeros(self.vocab_size, np.int64)
        for token, i in ranks.items():
            self.token_bytes[i] = len(token)

    @staticmethod
    @functools.lru_cache(maxsize=4)
    def load(folder: str) -> Tokenizer:
        path = storage.join(folder, "tokenizer.json")
        if not storage.exists(path):
            raise InputError(f"{path}: is not there. Train a tokenizer or name another folder.")
        return Tokenizer(storage.read_bytes(path).decode())

    def special(self, name: str) -> int:
        return self._specials[name]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a `<|endoftext|>` written in a file is encoded as its letters."""
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> npt.NDArray[np.int32]:
        """`encode` as int32 [number of tokens], without a Python object for each id.

        Raises:
          UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 cannot spell.
        """
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
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD, special tokens their names."""
        return self._fast.decode(list(ids), errors="replace")

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[np.int32]) -> bytes:
        """Exact bytes of `ids`, special tokens left out."""
        given = np.asarray(ids, np.int32)
        return self._fast.decode_bytes(given[self.token_bytes[given] > 0].tolist())

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
