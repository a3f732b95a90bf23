"""What both sides read: distinct real files of this environment as Parquet, and a tokenizer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax import languages, sources, tokenizer
from snowcoder_jax.recipe_corpus import InstalledSource
from snowcoder_jax.sources.documents import SourceDocument
from snowcoder_jax.storage import seeded_hash
from snowcoder_jax.text import duplicates

MAX_FILE_BYTES = 1_000_000
VOCAB_SIZE = 32_000
TOKENIZER_BYTES = 12_000_000
# Of MinHash, where both sides are to do the same.
NGRAM_WORDS, BANDS, ROWS = 5, 25, 10


@dataclasses.dataclass(frozen=True)
class File:
    """A distinct file, with the repository it is from."""

    repo: str
    path: str
    text: str

    @property
    def num_bytes(self) -> int:
        return len(self.text.encode("utf-8", "surrogatepass"))


def installed_files() -> list[File]:
    """Every installed file in one of the 18 languages, each content once, in seeded random order.

    Notebooks are left out: the peer has no way to read them.
    """
    source, limits = InstalledSource("installed"), sources.Limits(MAX_FILE_BYTES)
    parts = [part for piece in sources.parts(source, seed=0) for part in piece]
    seen: set[tuple[int, int]] = set()
    files = []
    for item in (item for part in parts for item in sources.read(source, part, limits)):
        if not isinstance(item, SourceDocument) or item.language == "Jupyter Notebook":
            continue
        text = item.content.decode()
        key = duplicates.exact_key(text)
        if key not in seen:
            seen.add(key)
            files.append(File(item.repo, item.path, text))
    return sorted(files, key=lambda f: seeded_hash(0, "benchmark order", f"{f.repo}/{f.path}"))


def take_bytes(files: Sequence[File], num_bytes: int) -> list[File]:
    """The first files that come to at least `num_bytes`.

    Raises:
      ValueError: there are not so many.
    """
    total = 0
    for count, file in enumerate(files, start=1):
        total += file.num_bytes
        if total >= num_bytes:
            return list(files[:count])
    raise ValueError(f"this environment holds {total} bytes of code, not {num_bytes}")


def pieces(files: Sequence[File], num_lines: int) -> Iterator[File]:
    """Files cut into documents of `num_lines` lines: many small documents, all distinct."""
    seen: set[tuple[int, int]] = set()
    for file in files:
        lines = file.text.splitlines(keepends=True)
        root, extension = os.path.splitext(file.path)
        for number, start in enumerate(range(0, len(lines), num_lines)):
            text = "".join(lines[start : start + num_lines])
            key = duplicates.exact_key(text)
            if key not in seen and len(text) > 200:
                seen.add(key)
                yield File(file.repo, f"{root}_{number}{extension}", text)


def write_parquet(files: Sequence[File], folder: str, num_parts: int) -> None:
    """`folder`/part-K.parquet of both sides' columns, files dealt out in turn."""
    os.makedirs(folder, exist_ok=True)
    for part in range(num_parts):
        chosen = files[part::num_parts]
        table = pa.table(
            {
                "id": [f"{f.repo}/{f.path}" for f in chosen],
                "repo": [f.repo for f in chosen],
                "path": [f.path for f in chosen],
                "license": ["MIT"] * len(chosen),
                "content": pa.array([f.text for f in chosen], pa.large_string()),
            }
        )
        path = os.path.join(folder, f"part-{part}.parquet")
        pq.write_table(table, path, row_group_size=512, compression="zstd")


def train_tokenizer(files: Sequence[File], folder: str) -> None:
    """A tokenizer of `VOCAB_SIZE`, for both sides."""
    sample = [f.text for f in take_bytes(files, TOKENIZER_BYTES)]
    tokenizer.train(sample, VOCAB_SIZE, folder)


def language_of(file: File) -> str:
    language = languages.detect(file.path, file.text[:4_096])
    assert language is not None
    return language
