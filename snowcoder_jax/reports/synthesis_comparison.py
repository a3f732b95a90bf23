"""How synthetic documents differ from selected ones, in figures: measured on samples.

Sides (synthetic, selected, the whole corpus) are measured document by document, so only figures
and hashes of words are held: at most `MAX_WORDS` words of each of a few thousand documents.
Shapes: N documents, W words.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snowcoder_jax import storage
from snowcoder_jax.text import lexing, parse_worker, reader
from snowcoder_jax.text.words import ngram_hashes, sorted_set, split_words

Facts = dict[str, Any]
Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]

# Words of one document that vocabulary and repetition look at.
MAX_WORDS = 2_000
# Vocabularies are compared over so many words of each side, or as many as all sides have.
VOCABULARY_WORDS = 100_000
GRAM_WORDS = 5
NUM_MODULES = 15
NUM_RESAMPLES = 1_000
NUM_BINS = 24

# The sides, as they are shown: what is in question, what it is compared with, where both come from.
SIDES = ("synthetic", "selected", "corpus")

# What is measured of a document -> how people call it.
METRICS = {
    "bytes": "length, bytes",
    "lines": "length, lines",
    "tokens": "length, tokens",
    "documentation": "documentation (comments and documentation strings), share of bytes",
    "natural_language": "natural language (runs of four words in comments and strings), "
    "share of bytes",
    "functions": "functions a file",
    "classes": "classes a file",
    "imports": "imports a file",
    "parses": "parses without an error",
    "score": "annotator's score",
}
# Of these a share or a rate is told, no distribution.
YES_OR_NO = ("parses",)

# A run of four or more words of letters, blanks or a mark between them: prose, and not code that
# is commented out.
_PROSE = re.compile(rb"[A-Za-z']{2,}(?:(?:[,;:.]? |\n[ \t#/*-]*)[A-Za-z']+){3,}")
_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+([A-Za-z_]\w*)[\w.]*[ \t]+import\b|import[ \t]+([^\n;#]+))", re.MULTILINE
)
_MODULE = re.compile(rb"[A-Za-z_]\w*")


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A document as it is trained on.

    Attributes:
      order: its seeded hash, which says where in the sample it stands.
      score: the annotator's, where it was scored.
      given_bytes: at its start, copied from its seed.
    """

    order: float
    path: str
    language: str
    text: str
    num_tokens: int
    score: float | None = None
    given_bytes: int = 0


@dataclasses.dataclass
class _Document:
    order: float
    figures: dict[str, float]
    words: Hashes
    grams: Hashes
    modules: frozenset[str] | None


class Side:
    """One side of the comparison, filled document by document."""

    def __init__(self, name: str, num_documents: int) -> None:
        """`num_documents`: that the sample is drawn from."""
        self.name = name
        self.num_documents = num_documents
        self.languages: Counter[str] = Counter()
        self.given_bytes = self.all_bytes = 0
        self._documents: list[_Document] = []

    def add(self, document: Sampled) -> None:
        """Measure a document.

        Raises:
          MachineError: the parser's process does not start.
        """
        data = document.text.encode()
        self.languages[document.language] += 1
        self.given_bytes += document.given_bytes
        self.all_bytes += len(data)
        word_W = split_words(data).hashes[:MAX_WORDS]
        parts = lexing.take_apart(data, document.language)
        is_python = document.language in ("Python", reader.NOTEBOOK)
        self._documents.append(
            _Document(
                document.order,
                _figures(document, data, parts),
                word_W,
                sorted_set(ngram_hashes(word_W, GRAM_WORDS)),
                python_modules(parts.code) if is_python else None,
            )
        )

    def sort(self) -> None:
        """Put the documents in their seeded order, however the shards lay."""
        self._documents.sort(key=lambda d: d.order)

    def __len__(self) -> int:
        return len(self._documents)

    def values(self, metric: str) -> Floats:
        """The metric of each document where it was measured, float64 [N]."""
        found = [d.figures[metric] for d in self._documents if metric in d.figures]
        return np.array(found, np.float64)

    def words(self) -> Hashes:
        """Hashes of the words of all documents in order, [W]."""
        return np.concatenate([np.zeros(0, np.uint64), *(d.words for d in self._documents)])

    def repeated_share(self, num_documents: int) -> float | None:
        """Of the distinct 5-grams of a document, those that another has; the mean over the first
        so many documents."""
        documents = [d.grams for d in self._documents[:num_documents] if len(d.grams)]
        if not documents:
            return None
        grams, counts = np.unique(np.concatenate(documents), return_counts=True)
        repeated = grams[counts > 1]
        return float(np.mean([np.isin(d, repeated, assume_unique=True).mean() for d in documents]))

    def modules(self) -> Counter[str]:
        """Top-level modules by how many Python files import them."""
        return Counter(m for d in self._documents for m in sorted(d.modules or ()))

    def num_python(self) -> int:
        return sum(d.modules is not None for d in self._documents)


def _figures(document: Sampled, data: bytes, parts: lexing.Parts) -> dict[str, float]:
    of_bytes = max(len(data), 1)
    prose = sum(
        len(m.group()) for p in (*parts.comments, *parts.strings) for m in _PROSE.finditer(p)
    )
    figures = {
        "bytes": float(len(data)),
        "lines": float(document.text.count("\n") + (not document.text.endswith(("\n", "")))),
        "tokens": float(document.num_tokens),
        "documentation": sum(map(len, parts.comments)) / of_bytes,
        "natural_language": prose / of_bytes,
    }
    (counts,) = parse_worker.count_trees([data], [document.language], [document.path])
    figures["parses"] = float(counts is not None and counts.error_bytes == 0)
    if counts is not None:
        figures["functions"] = float(counts.num_functions)
        figures["classes"] = float(counts.num_classes)
        figures["imports"] = float(counts.num_imports)
    if document.score is not None:
        figures["score"] = document.score
    return figures


def python_modules(code: bytes) -> frozenset[str]:
    """The top-level modules that Python code without its comments imports."""
    found = set()
    for match in _IMPORT.finditer(code):
        if match.group(1):
            found.add(match.group(1).decode())
        else:
            # `import a.b as c, d`
            firsts = (_MODULE.match(part.strip()) for part in match.group(2).split(b","))
            found |= {first.group().decode() for first in firsts if first}
    return frozenset(found)


def compare(sides: Sequence[Side], seed: int, duplicates: Mapping[str, Facts]) -> Facts:
    """The figures of all sides, and how the first differs from the second.

    Args:
      sides: at least two, each with its documents.
      seed: of the resamples.
      duplicates: side -> `documents` and `dropped`, as its duplicates stage judged.

    Returns:
      `sides`: name -> `documents` (drawn from), `sampled`, `languages`, `given_share`, `figures`
      (metric -> `num`, `mean`, `p10`, `median`, `p90`, `counts` in the bins of `edges`),
      `repeated_share` (over as many documents of every side), `vocabulary`, `modules`,
      `duplicates`; `edges`: metric -> bins;
      `differences`: metric -> of the means, `difference` with its 95% bootstrap interval `low`
      and `high`, and `larger`: how often a document of the first side has the larger value than
      one of the second (ties count half; 0.5: no difference).
    """
    for side in sides:
        side.sort()
    edges = {m: e for m in METRICS if (e := _edges([s.values(m) for s in sides])) is not None}
    vocabularies = _vocabularies(sides, seed)
    # More documents repeat more of each other, so all sides take as many.
    fewest = min(len(side) for side in sides)
    listed = _commonest([side.modules() for side in sides])
    first, second = sides[0], sides[1]
    return {
        "edges": {metric: e.tolist() for metric, e in edges.items() if metric not in YES_OR_NO},
        "sides": {
            side.name: {
                "documents": side.num_documents,
                "sampled": len(side),
                "languages": dict(sorted(side.languages.items(), key=lambda i: (-i[1], i[0]))),
                "given_share": side.given_bytes / side.all_bytes if side.all_bytes else None,
                "figures": {m: _summary(side.values(m), edges[m]) for m in edges},
                "repeated_share": side.repeated_share(fewest),
                "vocabulary": vocabularies[side.name],
                "modules": _modules(side, listed),
                "duplicates": duplicates.get(side.name),
            }
            for side in sides
        },
        "differences": {
            metric: difference
            for metric in METRICS
            if (
                difference := _difference(first.values(metric), second.values(metric), seed, metric)
            )
        },
    }


def _commonest(of_sides: Sequence[Counter[str]]) -> list[str]:
    """The commonest modules of each side in turn, so that what only one imports is seen."""
    ranked = [sorted(c, key=lambda m, c=c: (-c[m], m)) for c in of_sides]  # type: ignore[misc]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*ranked))
    return list(dict.fromkeys(m for m in turns if m is not None))[:NUM_MODULES]


def _modules(side: Side, listed: Sequence[str]) -> Facts | None:
    counts, num_files = side.modules(), side.num_python()
    if not num_files:
        return None
    known = sum(n for module, n in counts.items() if module in sys.stdlib_module_names)
    return {
        "files": num_files,
        "distinct": len(counts),
        "standard_library_share": known / counts.total() if counts else None,
        "share_of_files": {module: counts[module] / num_files for module in listed},
    }


def _edges(values: Sequence[Floats]) -> Floats | None:
    """Bins that hold the values of all sides; in even steps of the logarithm for lengths."""
    joined = np.concatenate(values)
    if len(joined) == 0:
        return None
    if joined.max() <= 1:
        return np.linspace(0.0, 1.0, NUM_BINS + 1)
    if joined.max() <= NUM_BINS:
        return np.arange(0.0, joined.max() + 2)
    # Counts and lengths are whole and spread over decades; zeros have the first bin to themselves.
    edges = np.round(np.geomspace(1.0, joined.max() + 1, NUM_BINS))
    return np.concatenate([[0.0], np.unique(edges)])


def _summary(values: Floats, edges: Floats) -> Facts:
    if len(values) == 0:
        return {"num": 0}
    low, median, high = np.quantile(values, (0.1, 0.5, 0.9))
    return {
        "num": len(values),
        "mean": float(values.mean()),
        "p10": float(low),
        "median": float(median),
        "p90": float(high),
        "counts": np.histogram(values, edges)[0].tolist(),
    }


def _difference(first: Floats, second: Floats, seed: int, metric: str) -> Facts | None:
    if len(first) < 2 or len(second) < 2:
        return None
    rng = np.random.default_rng(storage.seeded_hash(seed, "comparison", metric))
    means = [
        np.array([rng.choice(v, len(v)).mean() for _ in range(NUM_RESAMPLES)])
        for v in (first, second)
    ]
    low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
    # Mann-Whitney's U over the pairs, by ranks among the second side.
    ordered = np.sort(second)
    below = np.searchsorted(ordered, first, "left") + np.searchsorted(ordered, first, "right")
    return {
        "difference": float(first.mean() - second.mean()),
        "low": float(low),
        "high": float(high),
        "larger": float(below.mean() / 2 / len(second)),
    }


def _vocabularies(sides: Sequence[Side], seed: int) -> dict[str, Facts]:
    """Distinct words among as many of every side, drawn at random, and those the second lacks."""
    words = {side.name: side.words() for side in sides}
    num_words = min([VOCABULARY_WORDS, *(len(w) for w in words.values() if len(w))])
    distinct = {}
    for name, word_W in words.items():
        rng = np.random.default_rng(storage.seeded_hash(seed, "vocabulary", name))
        distinct[name] = sorted_set(rng.permutation(word_W)[:num_words]) if len(word_W) else word_W
    reference = distinct[sides[1].name]
    return {
        name: {
            "words": min(num_words, len(words[name])),
            "distinct": len(found),
            "not_in_second_share": float(1 - np.isin(found, reference, assume_unique=True).mean())
            if len(found)
            else None,
        }
        for name, found in distinct.items()
    }
