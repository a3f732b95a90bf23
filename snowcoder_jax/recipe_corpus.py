"""The corpus part of a recipe: where raw files come from, and which of them may be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# Column layouts of published tables; `columns` of a source changes single names of them.
TableLayout = Literal["plain", "stack_v1", "stack_v2_dedup"]


@dataclass(frozen=True)
class InstalledSource:
    """The standard library and the distributions installed beside this Python.

    `sample_share` keeps that share of the repositories, drawn by hash of seed and name.
    """

    name: str
    kind: Literal["installed"] = "installed"
    sample_share: float = 1.0
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class FolderSource:
    """A folder, local or a URL, or a glob of such: each folder or archive directly inside is a
    repository (`layout: repositories`), or it is one repository itself (`layout: repository`).
    It is named after its folder; several of one name also after those above (`a/utils`, `b/utils`).

    `license` is what holds where neither a file's header, a licence file nor package metadata says
    another, and no licence file stands whose terms are not recognised.
    """

    name: str
    path: str
    kind: Literal["folder"] = "folder"
    layout: Literal["repositories", "repository"] = "repositories"
    license: str | None = None


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files (a file, a folder or a glob, local or URL) whose columns hold documents;
    `columns` maps our names to theirs, on top of `layout`."""

    name: str
    path: str
    kind: Literal["parquet"] = "parquet"
    layout: TableLayout = "plain"
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JsonlSource:
    """JSON lines, plain or compressed (`.gz`, `.zst`), read as `ParquetSource` is."""

    name: str
    path: str
    kind: Literal["jsonl"] = "jsonl"
    layout: TableLayout = "plain"
    columns: dict[str, str] = field(default_factory=dict)


Source = InstalledSource | FolderSource | ParquetSource | JsonlSource


@dataclass(frozen=True)
class Rules:
    """The file rules: a preset's table of thresholds (`text/rule_table.py`), changed by field.

    `thresholds` maps a language, or `all`, to rule -> threshold; null turns a rule off there.
    With `parse` the signals of a syntax tree are measured too, at about half the speed; a rule
    that needs them is refused without it.
    """

    preset: Literal["starcoder2", "opencoder", "none"] = "starcoder2"
    parse: bool = False
    thresholds: dict[str, dict[str, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Duplicates:
    """MinHash over word n-grams: `bands` x `rows` permutations, verified at `threshold`.

    StarCoder's 25 x 10 finds only half of the pairs that are exactly at 0.7 (1 - (1 - 0.7^10)^25);
    50 x 5 of the same 250 permutations finds all but one in ten thousand, and the exact check
    that follows keeps what it finds too much from doing harm.
    """

    ngram_words: int = 5
    bands: int = 50
    rows: int = 5
    threshold: float = 0.7


@dataclass(frozen=True)
class Contamination:
    """Benchmark files (or folders, or globs) that no training document may repeat; the shipped
    evaluation problems are always among them."""

    benchmarks: tuple[str, ...] = ()
    ngram_words: int = 10


@dataclass(frozen=True)
class Corpus:
    """How raw files become documents, and which of them may be used.

    `opt_out` names a text file of repositories, one a line, whose owners want no part in it.
    """

    num_shards: int = 4
    max_file_bytes: int = 1_000_000
    heldout_share: float = 0.02
    licenses: Literal["permissive", "any"] = "permissive"
    opt_out: str | None = None
    rules: Rules = Rules()
    duplicates: Duplicates = Duplicates()
    contamination: Contamination = Contamination()
