"""Whether a text repeats a benchmark: its prompts and solutions.

Three ways, in the order in which they are told (RECIPE section 3):

- `exact`: a whole prompt or solution, by Aho-Corasick over words (those of `text.words`), so that
  case, white space, punctuation and comment markers do not count: a re-indented copy, or a prompt
  copied into another language's comments, is still found.
- `ngram`: n words in a row of a reference, unless they tell too little to be more than chance.
- `function`: a Python function that equals a reference's but for its names (`text.functions`).

Which overlap of n-grams tells enough: GPT-3 took 13 words as the length from which an overlap is
no chance (arXiv 2005.14165, appendix C), here n + `MIN_MORE_WORDS`; a shorter one has to hold
`MIN_TELLING_WORDS` different telling words (`text.boilerplate`), and every one `MIN_OF_LONG`.
N-grams that `SHARED_ITEMS` items of one benchmark share (their common preamble, the phrasing of
their tasks) count for nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import ahocorasick_rs
import numpy as np
import numpy.typing as npt

from snowcoder_jax import storage
from snowcoder_jax.text import benchmarks, words
from snowcoder_jax.text.benchmarks import Reference
from snowcoder_jax.text.boilerplate import telling_words
from snowcoder_jax.text.functions import FunctionIndex
from snowcoder_jax.text.reader import NOTEBOOK
from snowcoder_jax.text.words import Hashes, HashSet, Offsets

MIN_MORE_WORDS = 3
MIN_TELLING_WORDS = 6
MIN_OF_LONG = 2
SHARED_ITEMS = 3
# A shorter string is an idiom (`return n ** 2`); its item is still known by its longer parts.
MIN_WHOLE_WORDS = 5
MIN_WHOLE_BYTES = 25  # letters and digits
# One without any telling word has to be as long as this.
MIN_PLAIN_WORDS = 10

# A line of its own between two texts: where an indented one begins, the last function ends.
_BETWEEN = b"\nx\n"
# Enough to make the cost of a call small, few enough to stay in a core's cache.
_CHUNK_BYTES = 1 << 17

_WITH_FUNCTIONS = ("Python", NOTEBOOK)

Method = Literal["exact", "ngram", "function"]


@dataclass(frozen=True)
class Match:
    """What a text repeats: `text` is the repeated part as it stands in the text."""

    benchmark: str
    item: str
    text: str
    method: Method

    def __str__(self) -> str:
        return f"{self.benchmark} {self.item} ({self.method}): {self.text}"


_NO_HASHES = np.zeros(0, np.uint64)


class _Text:
    """A text in UTF-8, the same in lower case (positions stay), and its words."""

    def __init__(self, text: str) -> None:
        self.raw = _encode(text)
        self.lower = self.raw.lower()
        self.found = words.split_words(self.lower)

    def words(self, first: int, end: int) -> bytes:
        """From a word to the one before `end`, as they stand in the text."""
        return self.raw[self.found.starts[first] : self.found.ends[end - 1]]


class ContaminationIndex:
    """All references: an automaton of whole ones, n-gram hashes, function bodies."""

    def __init__(self, references: Sequence[Reference], ngram_words: int) -> None:
        self._references = list(references)
        self._ngram_words = ngram_words
        number_of: dict[str, int] = {}  # benchmarks derived from each other share most texts
        for number, reference in enumerate(self._references):
            number_of.setdefault(reference.text, number)
        hashes_of = dict(zip(number_of, _hashes_of_words(list(number_of)), strict=True))
        grams_of = dict(zip(number_of, _ngrams(list(hashes_of.values()), ngram_words), strict=True))
        self._ngrams, self._owners = _unshared([(r, grams_of[r.text]) for r in self._references])
        is_known = _with_members(self._ngrams, list(grams_of.values()))

        whole: dict[bytes, int] = {}
        # Where the first words of a reference stand, all of whose n-grams are shared or that has
        # none, the automaton is asked.
        anchors: dict[int, list[Hashes]] = {n: [_NO_HASHES] for n in {MIN_WHOLE_WORDS, ngram_words}}
        for (text, number), known in zip(number_of.items(), is_known, strict=True):
            hash_W, lower = hashes_of[text], _encode(text).lower()
            spaced = words.spaced_words(lower)
            num_letters = len(spaced) - len(hash_W) - 1
            if len(hash_W) < MIN_WHOLE_WORDS or num_letters < MIN_WHOLE_BYTES:
                continue
            if len(hash_W) < MIN_PLAIN_WORDS and not telling_words(lower, 0, len(lower)):
                continue
            whole.setdefault(spaced, number)
            if not known:
                size = max(n for n in anchors if n <= max(len(hash_W), MIN_WHOLE_WORDS))
                anchors[size].append(words.ngram_hashes(hash_W, size)[:1])
        self._anchors = {n: HashSet(np.concatenate(of_size)) for n, of_size in anchors.items()}
        self._whole_owners = list(whole.values())
        self._whole = ahocorasick_rs.BytesAhoCorasick(
            list(whole),
            matchkind=ahocorasick_rs.MatchKind.LeftmostLongest,
            implementation=ahocorasick_rs.Implementation.ContiguousNFA,
        )
        self._functions = FunctionIndex(
            (number, text)
            for text, number in number_of.items()
            if "def " in text and self._references[number].part != "prompt"
        )

    @classmethod
    def from_benchmarks(cls, paths: Sequence[str], ngram_words: int) -> ContaminationIndex:
        """The shipped evaluation problems and the named benchmark files.

        Raises:
          InputError: a file is missing, or in none of the known formats.
        """
        return cls(
            [*benchmarks.shipped_references(), *benchmarks.read_benchmarks(paths)], ngram_words
        )

    @property
    def num_references(self) -> int:
        return len(self._references)

    def find(self, text: str, language: str | None = None) -> Match | None:
        """What the text repeats, or None; only of Python are functions compared.

        Args:
          text: a notebook is to be a script already (`text.reader`).
          language: as in `snowcoder_jax.languages`.
        """
        part = _Text(text)
        grams = {n: words.ngram_hashes(part.found.hashes, n) for n in self._anchors}
        hits = self._ngrams.positions(grams[self._ngram_words])
        if len(hits) or any(len(a.positions(grams[n])) for n, a in self._anchors.items()):
            match = self._find_whole(part) or self._find_run(part, grams[self._ngram_words], hits)
            if match is not None:
                return match
        if language in _WITH_FUNCTIONS:
            function = self._functions.find(part.raw, part.lower, part.found)
            if function is not None:
                number, start, end = function
                return self._match(number, part.raw[start:end], "function")
        return None

    def find_all(self, texts: Sequence[str], languages: Sequence[str | None]) -> list[Match | None]:
        """`find` of each text; a quick look at many texts at once spares it for most."""
        matches: list[Match | None] = [None] * len(texts)
        for with_functions in (False, True):
            group = [
                i for i, lang in enumerate(languages) if (lang in _WITH_FUNCTIONS) == with_functions
            ]
            for numbers, data, starts in _chunks(texts, group):
                for which in self._suspects(data, starts, with_functions):
                    number = numbers[which]
                    matches[number] = self.find(texts[number], languages[number])
        return matches

    def _suspects(self, data: bytes, starts: list[int], with_functions: bool) -> list[int]:
        """Which of the texts that start in `data` hold a part of a reference.

        What spans two texts makes a false suspect at worst.
        """
        found = words.split_words(data)
        grams = {n: words.ngram_hashes(found.hashes, n) for n in self._anchors}
        hits = [self._ngrams.positions(grams[self._ngram_words])]
        hits += [anchors.positions(grams[n]) for n, anchors in self._anchors.items()]
        positions = found.starts[np.concatenate(hits)]
        if with_functions:
            anchored = np.array(self._functions.anchored(data, found), np.int64)
            positions = np.concatenate((positions, anchored))
        return np.unique(np.searchsorted(starts, positions, side="right") - 1).tolist()

    def _find_whole(self, part: _Text) -> Match | None:
        spaced = words.spaced_words(part.lower)
        found = self._whole.find_matches_as_indexes(spaced)
        if not found:
            return None
        which, start, end = found[0]
        first = spaced.count(b" ", 0, start)
        num_words = spaced.count(b" ", start, end) - 1
        return self._match(self._whole_owners[which], part.words(first, first + num_words), "exact")

    def _find_run(self, part: _Text, grams: Hashes, hits: Offsets) -> Match | None:
        """The first overlap that tells enough; `hits` are the positions of references' n-grams."""
        breaks = np.flatnonzero(np.diff(hits) > 1) + 1
        for run in np.split(hits, breaks) if len(hits) else ():
            first, end = int(run[0]), int(run[-1]) + self._ngram_words
            is_long = end - first >= self._ngram_words + MIN_MORE_WORDS
            needed = MIN_OF_LONG if is_long else MIN_TELLING_WORDS
            start_byte, end_byte = int(part.found.starts[first]), int(part.found.ends[end - 1])
            if len(telling_words(part.lower, start_byte, end_byte)) >= needed:
                # The reference that holds most of them; the first if several do.
                owners = self._owners[np.searchsorted(self._ngrams.members, grams[run])]
                return self._match(
                    int(np.bincount(owners).argmax()), part.words(first, end), "ngram"
                )
        return None

    def _match(self, number: int, repeated: bytes, method: Method) -> Match:
        reference = self._references[number]
        text = repeated.decode("utf-8", "replace").strip()
        return Match(reference.benchmark, reference.item, text, method)


def _chunks(
    texts: Sequence[str], numbers: Sequence[int]
) -> Iterator[tuple[list[int], bytes, list[int]]]:
    """The texts of those numbers in groups: numbers, lower-case bytes, where each text starts."""
    group: list[int] = []
    parts: list[bytes] = []
    starts = [0]
    for number in numbers:
        group.append(number)
        parts.append(_encode(texts[number]).lower())
        starts.append(starts[-1] + len(parts[-1]) + len(_BETWEEN))
        if starts[-1] >= _CHUNK_BYTES or number == numbers[-1]:
            yield group, _BETWEEN.join(parts), starts[:-1]
            group, parts, starts = [], [], [0]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


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
    for path in benchmarks.expand(paths):
        digest.update(f"{os.path.basename(path)}\n{storage.sha256_file(path)}\n".encode())
    for reference in benchmarks.shipped_references():
        digest.update(repr(reference).encode())
    return digest.hexdigest()[:16]


def _hashes_of_words(texts: Sequence[str]) -> list[Hashes]:
    """Of each text; many are split at a time, as most are short."""
    hashes: list[Hashes] = []
    for _, data, starts in _chunks(texts, range(len(texts))):
        found = words.split_words(data)
        first_T = np.searchsorted(found.starts, starts)
        # The word between two texts is of neither.
        end_T = np.append(first_T[1:] - 1, len(found.starts))
        hashes += [found.hashes[a:b] for a, b in zip(first_T.tolist(), end_T.tolist(), strict=True)]
    return hashes


def _ngrams(hashes: Sequence[Hashes], num_words: int) -> list[Hashes]:
    """The hashes of the n-grams of each text: those of all in a row, cut apart."""
    end_T = np.cumsum([len(hash_W) for hash_W in hashes]).tolist()
    all_G = words.ngram_hashes(np.concatenate([_NO_HASHES, *hashes]), num_words)
    starts = [end - len(hash_W) for hash_W, end in zip(hashes, end_T, strict=True)]
    return [
        all_G[start : max(start, end - num_words + 1)]
        for start, end in zip(starts, end_T, strict=True)
    ]


def _with_members(members: HashSet, groups: Sequence[Hashes]) -> list[bool]:
    """Which groups of hashes hold one of the members."""
    ends = np.cumsum([len(group) for group in groups])
    positions = members.positions(np.concatenate([_NO_HASHES, *groups]))
    found = np.zeros(len(groups), np.bool_)
    found[np.searchsorted(ends, positions, side="right")] = True
    return found.tolist()


def _unshared(
    references: Sequence[tuple[Reference, Hashes]],
) -> tuple[HashSet, npt.NDArray[np.int64]]:
    """The n-grams of references but for shared ones, and of each the first reference with it.

    Args:
      references: each with the hashes of its n-grams.
    """
    items: dict[tuple[str, str], int] = {}
    benchmark_names: dict[str, int] = {}
    for reference, _ in references:
        items.setdefault((reference.benchmark, reference.item), len(items))
        benchmark_names.setdefault(reference.benchmark, len(benchmark_names))
    gram_G = np.concatenate([_NO_HASHES, *(grams for _, grams in references)])
    owner_G = np.repeat(np.arange(len(references)), [len(grams) for _, grams in references])
    if len(gram_G) == 0:
        return HashSet(_NO_HASHES), owner_G
    item_of = np.array([items[r.benchmark, r.item] for r, _ in references])
    benchmark_of = np.array([benchmark_names[r.benchmark] for r, _ in references])

    # First one row for each (n-gram, item), then the number of items of each (n-gram, benchmark).
    order = np.lexsort((owner_G, item_of[owner_G], benchmark_of[owner_G], gram_G))
    gram_G, owner_G = gram_G[order], owner_G[order]
    is_new_gram = _changes(gram_G)
    is_new_benchmark = is_new_gram | _changes(benchmark_of[owner_G])
    is_new_item = is_new_benchmark | _changes(item_of[owner_G])
    group = np.cumsum(is_new_benchmark) - 1
    is_shared = np.bincount(group, weights=is_new_item)[group] >= SHARED_ITEMS
    first = np.flatnonzero(is_new_gram)
    keep = ~np.isin(gram_G[first], np.unique(gram_G[is_shared]))
    return HashSet(gram_G[first][keep]), owner_G[first][keep]


def _changes(values: npt.NDArray[Any]) -> words.Bools:
    changed = np.ones(len(values), np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed
