"""References to files of a source, and reading them: never an exception for what is found.

`read_references` turns each reference into a document, a row of the ledger, or nothing (a file
in none of the 18 languages). Files are UTF-8 (a byte-order mark is taken off); sizes are bounded.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax import archives, languages, storage
from snowcoder_jax.archives import ArchiveError

_HEAD_CHARACTERS = 4_096
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class FileReference:
    """A file that may become a document.

    Attributes:
      repo, path: the document's; `path` has forward slashes.
      license: SPDX expression, "" where unknown.
      size_bytes: from the file system or archive; an estimate for a Parquet row.
      location: the file, archive or Parquet file that holds it.
      member: its name inside the archive, else "".
      row: its row in the Parquet file, else -1.
      stars: of the repository, None where unknown.
      changed_ns: modification time of `location`.
    """

    repo: str
    path: str
    license: str
    size_bytes: int
    location: str
    member: str = ""
    row: int = -1
    stars: int | None = None
    changed_ns: int = 0


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A file that did not become a document, and why (`reason` is a short fixed word)."""

    repo: str
    path: str
    reason: str
    size_bytes: int


@dataclass
class Listing:
    """What a source holds. `num_other` files are in none of the 18 languages by their name."""

    references: list[FileReference] = dataclasses.field(default_factory=list)
    ledger: list[LedgerRow] = dataclasses.field(default_factory=list)
    num_other: int = 0

    def add(self, reference: FileReference, max_file_bytes: int) -> None:
        if not _may_be_code(reference.path):
            self.num_other += 1
        elif reference.size_bytes <= max_file_bytes:
            self.references.append(reference)
        elif languages.detect(reference.path) is None:
            self.num_other += 1
        else:
            self.refuse(reference.repo, reference.path, "too_large", reference.size_bytes)

    def refuse(self, repo: str, path: str, reason: str, size_bytes: int = 0) -> None:
        self.ledger.append(LedgerRow(repo, path, reason, size_bytes))


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A reference with its text and language: all that a document needs."""

    reference: FileReference
    language: str
    content: str


def _may_be_code(path: str) -> bool:
    """Known by its name, or without an extension, so that a shebang must tell."""
    return languages.detect(path) is not None or not os.path.splitext(os.path.basename(path))[1]


def read_references(
    references: Sequence[FileReference], max_file_bytes: int
) -> Iterator[SourceDocument | LedgerRow | None]:
    """Read references in their order, archives and Parquet files in one pass each.

    Yields a document, a ledger row, or None for a file in none of the 18 languages. One
    repository's texts from archives and Parquet files are in memory at a time.
    """
    for _, group in groupby(references, key=lambda r: (r.repo, bool(r.member))):
        batch = list(group)
        if batch[0].member:
            data = _read_members(batch, max_file_bytes)
            yield from (
                _judge(r, data.get((r.location, r.member, r.row)), max_file_bytes) for r in batch
            )
        else:
            yield from (_judge(r, _read_file(r, max_file_bytes), max_file_bytes) for r in batch)


def _read_file(reference: FileReference, max_file_bytes: int) -> bytes | str | None:
    try:
        with open(reference.location, "rb") as f:
            return f.read(max_file_bytes + 1)
    except OSError:
        return None


def _read_members(
    batch: Sequence[FileReference], max_file_bytes: int
) -> dict[tuple[str, str, int], bytes | str | None]:
    found: dict[tuple[str, str, int], bytes | str | None] = {}
    for location in sorted({r.location for r in batch}):
        members = [r for r in batch if r.location == location]
        if members[0].row >= 0:
            rows = {r.row for r in members}
            for row, content in _read_parquet_rows(location, members[0].member, rows):
                found[location, members[0].member, row] = content
            continue
        try:
            for name, data in archives.read_members(
                location, {r.member for r in members}, max_file_bytes
            ):
                found.setdefault((location, name, -1), data)
        except ArchiveError:
            continue  # what is missing in `found` becomes a ledger row
    return found


def _read_parquet_rows(
    location: str, column: str, rows: set[int]
) -> Iterator[tuple[int, bytes | str | None]]:
    try:
        with storage.open_read(location) as f:
            start = 0
            for batch in pq.ParquetFile(f).iter_batches(512, columns=[column]):
                here = [i for i in range(batch.num_rows) if start + i in rows]
                for i, value in zip(
                    here, batch.column(0).take(pa.array(here, pa.int64())).to_pylist(), strict=True
                ):
                    yield start + i, value
                start += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return


def _judge(
    reference: FileReference, data: bytes | str | None, max_file_bytes: int
) -> SourceDocument | LedgerRow | None:
    def refused(reason: str, size: int) -> LedgerRow:
        return LedgerRow(reference.repo, reference.path, reason, size)

    if data is None:
        return refused("unreadable", reference.size_bytes)
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    name_says = languages.detect(reference.path)
    if len(raw) > max_file_bytes:
        is_code = name_says is not None
        return refused("too_large", max(len(raw), reference.size_bytes)) if is_code else None
    if name_says is None and not raw.startswith(b"#!"):
        return None
    if b"\0" in raw:
        return refused("binary", len(raw))
    try:
        content = raw.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError:
        return refused("undecodable", len(raw))
    language = languages.detect(reference.path, content[:_HEAD_CHARACTERS])
    return SourceDocument(reference, language, content) if language is not None else None
