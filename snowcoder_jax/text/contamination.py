"""Whether a text repeats a benchmark: its prompts and solutions, by word n-grams.

RECIPE section 3: an exact match of 10 words with case and white space folded; for references
shorter than that, or without a telling n-gram, the whole string. Words of n-grams are those of
`text.words`, so punctuation and comment markers do not count either: a re-indented copy, or a
prompt copied into another language's comments, is still found. The whole-string match folds white
space and case only: there a copy with other punctuation is missed.

n-grams that tell nothing are left out. An n-gram tells something if at least
`MIN_TELLING_WORDS` different words of it are neither keywords, nor common library names, nor
numbers, nor single letters, and if fewer than `BOILERPLATE_ITEMS` items of one benchmark share
it (their common preamble, the phrasing of their tasks).
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ahocorasick_rs
import numpy as np
import numpy.typing as npt
import yaml

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.text import words
from snowcoder_jax.text.words import Hashes

MIN_TELLING_WORDS = 3
BOILERPLATE_ITEMS = 3
# A shorter string is an idiom (`return n ** 2`); its item is still known by its longer parts.
MIN_SHORT_WORDS = 5
MIN_SHORT_BYTES = 30

SHIPPED = "shipped"

# The fields of the formats: HumanEval, EvalPlus and HumanEval-X (prompt, canonical_solution), MBPP
# (text, code; sanitized: prompt, code), BigCodeBench (complete_prompt, instruct_prompt,
# canonical_solution), our own problems (prompt, solution).
_PROMPTS = ("prompt", "complete_prompt", "instruct_prompt", "text")
_SOLUTIONS = ("canonical_solution", "code", "solution")
_ITEMS = ("task_id", "name")

_WHITE_SPACE = b" \t\r\n\v\f"

_COMMON_WORDS = frozenset(
    b"""
    abs all and any append args array as assert async auto await bool boolean break byte case catch
    char class collections const continue copy data def default defaultdict del delete dict do
    double elem else elif end enum enumerate except export extends extern false file final finally
    float fn for foreach format from func function functools get global goto if impl implements
    import in include index init input instanceof int integer interface is isinstance it item items
    itertools join key keys kwargs lambda len length let list long lst main map math matplotlib max
    min mod module mut name namespace new nil node none not np null num number numbers numpy object
    open optional or os out override package pandas pass path pd plt pop print println private
    protected pub public push pyplot raise random range re res result ret return returns reverse
    self set short size sort sorted split static std str string struct sub sum super switch sys
    template this throw throws time to true try tuple type typeof typing union unsigned use using
    val value values var vec vector void where while with yield zip a an the of
    """.split()
)

_TABLE_BITS = 22

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Match:
    """What a text repeats: `text` is the repeated part as it stands in the text."""

    benchmark: str
    item: str
    text: str

    def __str__(self) -> str:
        return f"{self.benchmark} {self.item}: {self.text}"


@dataclass(frozen=True)
class Reference:
    """A string that no document may hold."""

    benchmark: str
    item: str
    text: str


class ContaminationIndex:
    """All references in one table of n-gram hashes and one automaton of short strings."""

    def __init__(self, references: Sequence[Reference], ngram_words: int) -> None:
        self._ngram_words = ngram_words
        self._references = list(references)
        self._grams, self._owners = _telling_grams(self._references, ngram_words)
        self._table = np.zeros(1 << _TABLE_BITS, np.bool_)
        self._table[self._grams & _TABLE_MASK] = True
        # What no n-gram stands for is looked for whole: short references, and plain ones.
        short: dict[bytes, int] = {}
        for number, reference in enumerate(self._references):
            found = words.split_words(_lower(reference.text)).hashes
            grams = words.ngram_hashes(found, ngram_words)
            folded = _fold(reference.text)
            is_idiom = len(found) < MIN_SHORT_WORDS or len(folded) < MIN_SHORT_BYTES
            if not is_idiom and not self._known(grams).any():
                short.setdefault(folded, number)
        self._short_owners = list(short.values())
        self._short = (
            ahocorasick_rs.BytesAhoCorasick(
                list(short), implementation=ahocorasick_rs.Implementation.DFA
            )
            if short
            else None
        )

    @classmethod
    def from_benchmarks(cls, paths: Sequence[str], ngram_words: int) -> ContaminationIndex:
        """The shipped evaluation problems and the named benchmark files.

        Raises:
          InputError: a file is missing, or in none of the known formats.
        """
        return cls([*shipped_references(), *read_benchmarks(paths)], ngram_words)

    @property
    def num_references(self) -> int:
        return len(self._references)

    def find(self, text: str) -> Match | None:
        """The first repeated n-gram of a text, else the first short reference in it."""
        data = _lower(text)
        found = words.split_words(data)
        grams = words.ngram_hashes(found.hashes, self._ngram_words)
        hits = np.flatnonzero(self._known(grams))
        if len(hits):
            position = hits[0]
            start = found.starts[position]
            end = found.ends[position + self._ngram_words - 1]
            raw = text.encode("utf-8", "surrogatepass")[start:end]
            owner = self._owners[np.searchsorted(self._grams, grams[position])]
            return self._match(int(owner), raw.decode("utf-8", "replace"))
        return self._find_short(data)

    def _known(self, grams: Hashes) -> Bools:
        """Which n-grams are a reference's; the small table spares most of them the search."""
        known = self._table[grams & _TABLE_MASK]
        maybe = np.flatnonzero(known)
        if len(maybe):
            where = np.searchsorted(self._grams, grams[maybe])
            known[maybe] = self._grams[np.minimum(where, len(self._grams) - 1)] == grams[maybe]
        return known

    def _find_short(self, data: bytes) -> Match | None:
        if self._short is None:
            return None
        hits = self._short.find_matches_as_indexes(data.translate(None, _WHITE_SPACE))
        if not hits:
            return None
        number = self._short_owners[hits[0][0]]
        return self._match(number, self._references[number].text)

    def _match(self, number: int, text: str) -> Match:
        reference = self._references[number]
        return Match(reference.benchmark, reference.item, text)


_TABLE_MASK = np.uint64((1 << _TABLE_BITS) - 1)


@lru_cache(maxsize=2)
def cached_index(paths: tuple[str, ...], ngram_words: int) -> ContaminationIndex:
    """One index for each process, however many batches it judges."""
    return ContaminationIndex.from_benchmarks(paths, ngram_words)


def fingerprint(paths: Sequence[str]) -> str:
    """16 hex digits over what the references are read from.

    Raises:
      InputError: a file is missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(storage.sha256_file(_existing(path)).encode())
    for reference in shipped_references():
        digest.update(repr(reference).encode())
    return digest.hexdigest()[:16]


def shipped_references() -> list[Reference]:
    """Prompts and solutions of the evaluation problems that the package carries."""
    folder = importlib.resources.files("snowcoder_jax") / "problems" / "evaluation"
    references: list[Reference] = []
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith((".yaml", ".yml")):
            record = yaml.safe_load(file.read_text(encoding="utf-8"))
            references += _references(SHIPPED, record, file.name)
    return references


def read_benchmarks(paths: Iterable[str]) -> list[Reference]:
    """References of benchmark files: `.jsonl`, `.json` (a list), either with `.gz`.

    Raises:
      InputError: a file is missing, broken, or its records have no known fields.
    """
    references: list[Reference] = []
    for path in paths:
        benchmark = os.path.basename(path).split(".")[0]
        try:
            for record in _records(_existing(path)):
                references += _references(benchmark, record, path)
        except (ValueError, EOFError, OSError) as e:
            if isinstance(e, InputError):
                raise
            raise InputError(
                f"corpus.contamination.benchmarks: {path} cannot be read ({e}). "
                "Name a whole .jsonl or .json file, plain or .gz."
            ) from e
    return references


def _existing(path: str) -> str:
    if not storage.exists(path):
        raise InputError(
            f"corpus.contamination.benchmarks: {path} does not exist. Name an existing file."
        )
    return path


def _records(path: str) -> Iterator[Any]:
    data = storage.read_bytes(path)
    if path.endswith(".gz"):
        data = gzip.decompress(data)
    if ".jsonl" in os.path.basename(path):
        yield from (json.loads(line) for line in data.splitlines() if line.strip())
    else:
        loaded = json.loads(data)
        if not isinstance(loaded, list):
            raise ValueError("holds no list")
        yield from loaded


def _references(benchmark: str, record: Any, path: str) -> Iterator[Reference]:
    """The prompts, the solutions, and each joined: a short body is known by its whole function."""
    fields = record if isinstance(record, dict) else {}
    prompts = [fields[name] for name in _PROMPTS if isinstance(fields.get(name), str)]
    solutions = [fields[name] for name in _SOLUTIONS if isinstance(fields.get(name), str)]
    if not prompts and not solutions:
        raise InputError(
            f"corpus.contamination.benchmarks: {path} holds a record with none of the fields "
            f"{', '.join((*_PROMPTS, *_SOLUTIONS))}. Name a file in a known format."
        )
    item = next((str(fields[name]) for name in _ITEMS if name in fields), "?")
    joined = [prompt + solution for prompt in prompts for solution in solutions]
    for text in (*prompts, *solutions, *joined):
        yield Reference(benchmark, item, text)


def _lower(text: str) -> bytes:
    """Folded so that positions stay those of the UTF-8 text."""
    return text.encode("utf-8", "surrogatepass").lower()


def _fold(text: str) -> bytes:
    return _lower(text).translate(None, _WHITE_SPACE)


def _telling_grams(
    references: Sequence[Reference], ngram_words: int
) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Sorted n-gram hashes and for each the first reference that holds it."""
    grams: list[Hashes] = []
    owners: list[npt.NDArray[np.int64]] = []
    # (benchmark, item) as a number: an n-gram's items are counted inside each benchmark.
    items: dict[tuple[str, str], int] = {}
    benchmarks: dict[str, int] = {}
    # Benchmarks derived from each other share most of their texts.
    done: dict[str, Hashes] = {}
    for number, reference in enumerate(references):
        if reference.text not in done:
            done[reference.text] = _grams_of(reference.text, ngram_words)
        of_text = done[reference.text]
        grams.append(of_text)
        owners.append(np.full(len(of_text), number))
        items.setdefault((reference.benchmark, reference.item), len(items))
        benchmarks.setdefault(reference.benchmark, len(benchmarks))
    if not grams:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    all_grams, all_owners = np.concatenate(grams), np.concatenate(owners)
    item_of = np.array([items[r.benchmark, r.item] for r in references])
    benchmark_of = np.array([benchmarks[r.benchmark] for r in references])

    # First one row for each (n-gram, item), then the number of items of each (n-gram, benchmark).
    order = np.lexsort((all_owners, item_of[all_owners], benchmark_of[all_owners], all_grams))
    gram, owner = all_grams[order], all_owners[order]
    is_new_gram = _changes(gram)
    is_new_benchmark = is_new_gram | _changes(benchmark_of[owner])
    is_new_item = is_new_benchmark | _changes(item_of[owner])
    group = np.cumsum(is_new_benchmark) - 1
    items_in_group = np.bincount(group, weights=is_new_item)
    is_shared = items_in_group[group] >= BOILERPLATE_ITEMS
    shared_grams = np.unique(gram[is_shared])
    first = np.flatnonzero(is_new_gram)
    keep = ~np.isin(gram[first], shared_grams)
    return gram[first][keep], owner[first][keep]


def _changes(values: npt.NDArray[Any]) -> Bools:
    changed = np.ones(len(values), np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed


def _grams_of(text: str, ngram_words: int) -> Hashes:
    """The hashes of a text's n-grams with enough telling words."""
    data = _lower(text)
    found = words.split_words(data)
    grams = words.ngram_hashes(found.hashes, ngram_words)
    if len(grams) == 0:
        return grams
    spans = zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    tells = np.array([_tells(data[start:end]) for start, end in spans])
    # Distinct telling words of each window: equal hashes stand side by side once sorted.
    telling = np.where(tells, found.hashes, np.uint64(0))
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(telling, ngram_words), axis=1)
    is_distinct = (windows[:, 1:] != windows[:, :-1]) & (windows[:, 1:] != 0)
    num_distinct = is_distinct.sum(1) + (windows[:, 0] != 0)
    return grams[num_distinct >= MIN_TELLING_WORDS]


def _tells(word: bytes) -> bool:
    return len(word) > 1 and not word.isdigit() and word not in _COMMON_WORDS
