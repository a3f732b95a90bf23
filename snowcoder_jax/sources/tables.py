"""Documents in the rows of Parquet files and of JSON lines, streamed.

Layouts of published tables: The Stack v1 (bigcode/the-stack, the-stack-dedup) and v2
(bigcode/the-stack-v2-dedup, with the column `content` that its dataset card's code downloads);
column names are those of the dataset cards. Memory is bounded whatever a row holds: of JSON lines
by six times the largest file that a recipe takes (its escapes) and a few megabytes; of Parquet by
about four times the largest page or cell, which is no more than `parquet_pages.MAX_PAGE_BYTES`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax.recipe_corpus import TableLayout
from snowcoder_jax.sources import path_rules, paths
from snowcoder_jax.sources.documents import (
    MAX_PATH_BYTES,
    Item,
    LedgerRow,
    is_safe_name,
    judge,
    printable,
    safe_path,
)
from snowcoder_jax.sources.parquet_pages import GuardedFile, PageTooLargeError

# Ours -> what it means; `content` and `path` must be there, the others may.
COLUMNS = (
    "content",  # text, or bytes
    "path",
    "repo",
    "license",  # an SPDX expression, or a list of identifiers that all hold
    "stars",
    "vendored",  # whether a file is someone else's work
    "generated",
    "encoding",  # of `content`, where it is bytes that are not UTF-8
)
NEEDED = ("content", "path")

LAYOUTS: dict[TableLayout, dict[str, str]] = {
    "plain": {},
    "stack_v1": {
        "path": "max_stars_repo_path",
        "repo": "max_stars_repo_name",
        "license": "max_stars_repo_licenses",
        "stars": "max_stars_count",
    },
    "stack_v2_dedup": {
        "repo": "repo_name",
        "license": "detected_licenses",
        "stars": "star_events_count",
        "vendored": "is_vendor",
        "generated": "is_generated",
        "encoding": "src_encoding",
    },
}

PARQUET_SUFFIXES = (".parquet",)
JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst")

_BATCH_ROWS = 256
_BATCH_BYTES = 128 * 1024**2
_READ_BYTES = 1 << 20
# So much before the place where a file breaks off may be lost.
_LINES_BYTES = 1 << 17
# A column of a row group that unpacks to more than both of these is not what it seems.
_MAX_GROUP_RATIO = 200
_MIN_GROUP_BYTES = 256 * 1024**2
_JSON_ROW_BYTES = 64 * 1024  # of all but the content
_FIRST_LINE_BYTES = 64 * 1024**2
_JSON_ESCAPE = 6  # bytes that one byte of text may take

_TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
               pa.types.is_large_binary)  # fmt: skip
_PARQUET_FAULTS = (pa.ArrowException, OSError, ValueError, MemoryError)


def columns(layout: TableLayout, changed: Mapping[str, str]) -> dict[str, str]:
    """Our name of each column -> theirs."""
    return {ours: {**LAYOUTS[layout], **changed}.get(ours, ours) for ours in COLUMNS}


def _row(
    source: str, place: str, cells: Mapping[str, Any], opted_out: frozenset[str], max_bytes: int
) -> Item:
    """The item of one row; `place` says where it stands, for one that has no path."""
    path = cells.get("path")
    if not isinstance(path, str) or not path.strip("/"):
        return LedgerRow(source, place, "no_path")
    data = cells.get("content")
    size = len(data) if isinstance(data, (bytes, str)) else 0
    repo = cells.get("repo")
    repo = printable(repo) if isinstance(repo, str) and repo else source
    name = path.lstrip("/")  # The Stack v2 has one before every path
    path = safe_path(printable(name)) if len(name) <= MAX_PATH_BYTES else ""
    if not path or not is_safe_name(repo):
        shown = repo[:MAX_PATH_BYTES], printable(name[:MAX_PATH_BYTES])
        return LedgerRow(*shown, "unsafe_path", size)
    if repo.casefold() in opted_out:
        return LedgerRow(repo, path, "opted_out", size)
    for flag in ("vendored", "generated"):
        if cells.get(flag) is True:
            return LedgerRow(repo, path, flag, size)
    if reason := path_rules.refused(path):
        return LedgerRow(repo, path, reason, size)
    stars, encoding = cells.get("stars"), cells.get("encoding")
    return judge(
        repo,
        path,
        data if isinstance(data, (bytes, str)) else None,
        max_bytes,
        license_id=_joined_licenses(cells.get("license")),
        stars=_whole_number(stars),
        size_bytes=cells.get("size", size),
        encoding=encoding if isinstance(encoding, str) else None,
    )


def _joined_licenses(value: object) -> str:
    """Several detected licences all hold; which of them covers the file is not known."""
    if isinstance(value, list):
        return " AND ".join(dict.fromkeys(printable(v) for v in value if isinstance(v, str)))
    return printable(value) if isinstance(value, str) else ""


def _whole_number(value: object) -> int | None:
    if isinstance(value, (int, float)) and abs(value) < 2**31:  # false for a NaN
        return int(value)
    return None


def read_parquet(
    source: str,
    path: str,
    names: Mapping[str, str],
    *,
    first_group: int,
    num_groups: int,
    opted_out: frozenset[str],
    max_file_bytes: int,
) -> Iterator[Item]:
    """The items of some row groups of a file, in order."""
    filename = printable(path.rsplit("/", 1)[-1])
    try:
        with paths.open_file(path) as f:
            guarded = GuardedFile(f)
            # Arrow would take a whole row group into memory before its first page.
            file = pq.ParquetFile(guarded, buffer_size=_READ_BYTES, pre_buffer=False)
            if not _has_columns(file.schema_arrow, names):
                yield LedgerRow(source, filename, "missing_column")
                return
            last = min(first_group + num_groups, file.num_row_groups)
            for group in range(first_group, last):
                place = f"{filename}:{group}"
                chunks = _chunks(file.metadata.row_group(group), names)
                num_bytes = sum(c.total_uncompressed_size for c in chunks)
                if any(map(_is_bomb, chunks)):
                    yield LedgerRow(source, place, "too_large", num_bytes)
                    continue
                guarded.watch(chunks)
                try:
                    yield from _read_group(
                        source, file, group, num_bytes, place, names, opted_out, max_file_bytes
                    )
                except PageTooLargeError:  # the rows before it are read
                    yield LedgerRow(source, place, "too_large", num_bytes)
    except _PARQUET_FAULTS:
        yield LedgerRow(source, filename, "broken_parquet")


def _has_columns(schema: pa.Schema, names: Mapping[str, str]) -> bool:
    """Whether the columns that are needed are there, and the content is text."""
    if any(names[ours] not in schema.names for ours in NEEDED):
        return False
    kind = schema.field(names["content"]).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_text(kind) for is_text in _TEXT_TYPES)


def _chunks(group: Any, names: Mapping[str, str]) -> list[Any]:
    """The columns of a row group that are read, those inside of one included."""
    columns = [group.column(i) for i in range(group.num_columns)]
    return [c for c in columns if c.path_in_schema.partition(".")[0] in names.values()]


def _is_bomb(chunk: Any) -> bool:
    return chunk.total_uncompressed_size > max(
        _MIN_GROUP_BYTES, _MAX_GROUP_RATIO * max(chunk.total_compressed_size, 1)
    )


def _read_group(
    source: str,
    file: Any,
    group: int,
    num_bytes: int,
    place: str,
    names: Mapping[str, str],
    opted_out: frozenset[str],
    max_file_bytes: int,
) -> Iterator[Item]:
    present = {ours: theirs for ours, theirs in names.items() if theirs in file.schema_arrow.names}
    # A text that is stored once for many rows unpacks for each of them: no row holds more than
    # the whole column, so that many of these fit into a batch.
    num_rows = min(max(_BATCH_BYTES // max(num_bytes, 1), 1), _BATCH_ROWS)
    row = 0
    batches = file.iter_batches(
        num_rows, row_groups=[group], columns=[*present.values()], use_threads=False
    )
    for batch in batches:
        cells = {
            ours: _values(batch[theirs]) for ours, theirs in present.items() if ours != "content"
        }
        contents = _contents(batch[names["content"]], max_file_bytes)
        for i, (content, size) in enumerate(contents):
            one = {ours: values[i] for ours, values in cells.items()}
            one |= {"content": content, "size": size}
            yield _row(source, f"{place}:{row}", one, opted_out, max_file_bytes)
            row += 1


def _values(column: Any) -> list[Any]:
    """The cells of a column as Python values; text that is not valid UTF-8 appears escaped."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raw = column.cast(pa.large_binary()).to_pylist()
        return [v if v is None else v.decode("utf-8", "backslashreplace") for v in raw]
    return list(column.to_pylist())


def _contents(column: Any, max_file_bytes: int) -> Iterator[tuple[bytes | None, int]]:
    """The bytes of each cell, cut off where it is too large, and its whole size."""
    texts, places = column, range(len(column))
    if pa.types.is_dictionary(column.type):
        texts, places = column.dictionary, column.indices.to_pylist()
    texts = texts.cast(pa.large_binary())
    for at in places:
        cell = texts[at].as_buffer() if at is not None else None
        if cell is None:
            yield None, 0
        else:
            yield cell.slice(0, min(cell.size, max_file_bytes + 1)).to_pybytes(), cell.size


def read_jsonl(
    source: str,
    path: str,
    names: Mapping[str, str],
    *,
    opted_out: frozenset[str],
    max_file_bytes: int,
) -> Iterator[Item]:
    """The items of a file of JSON lines, in order; a line is never taken into memory whole where
    it is longer than any row that is of use."""
    filename = printable(path.rsplit("/", 1)[-1])
    max_line_bytes = _JSON_ESCAPE * max_file_bytes + _JSON_ROW_BYTES
    try:
        with paths.open_file(path) as f:
            for number, (line, num_bytes) in enumerate(_lines(_unpacked(f, path), max_line_bytes)):
                place = f"{filename}:{number}"
                if line is None:
                    yield LedgerRow(source, place, "too_large", num_bytes)
                elif line.strip():
                    yield _json_row(source, place, line, names, opted_out, max_file_bytes)
    except (pa.ArrowException, OSError, EOFError):
        yield LedgerRow(source, filename, "broken_jsonl")


def _json_row(
    source: str,
    place: str,
    line: bytes,
    names: Mapping[str, str],
    opted_out: frozenset[str],
    max_file_bytes: int,
) -> Item:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return LedgerRow(source, place, "broken_row", len(line))
    cells = {ours: row.get(theirs) for ours, theirs in names.items()}
    return _row(source, place, cells, opted_out, max_file_bytes)


def _unpacked(file: IO[bytes], path: str) -> Any:
    kind = {"gz": "gzip", "zst": "zstd"}.get(path.rsplit(".", 1)[-1].lower())
    if kind is None:
        return file
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), kind)


def _lines(stream: Any, max_bytes: int) -> Iterator[tuple[bytes | None, int]]:
    """Lines without their ends and their sizes; None for one of more than `max_bytes`."""
    pieces: list[bytes] = []
    num_bytes = 0
    while chunk := stream.read(_LINES_BYTES):
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            pieces.append(chunk[start:end])
            num_bytes += end - start
            yield (b"".join(pieces) if num_bytes <= max_bytes else None), num_bytes
            pieces, num_bytes, start = [], 0, end + 1
        num_bytes += len(chunk) - start
        if num_bytes <= max_bytes:
            pieces.append(chunk[start:])
        else:
            pieces = []
    if num_bytes:
        yield (b"".join(pieces) if num_bytes <= max_bytes else None), num_bytes


def first_columns(path: str) -> set[str] | None:
    """The columns that a table has, by its schema or first line; None where it cannot be told."""
    try:
        with paths.open_file(path) as f:
            if path.lower().endswith(PARQUET_SUFFIXES):
                return set(pq.ParquetFile(f).schema_arrow.names)
            line, _ = next(_lines(_unpacked(f, path), _FIRST_LINE_BYTES), (None, 0))
            row = json.loads(line) if line else None
            return set(row) if isinstance(row, dict) else None
    except (*_PARQUET_FAULTS, EOFError, RecursionError):
        return None


def row_groups(path: str) -> list[int]:
    """The bytes of each row group of a Parquet file once unpacked; none of one that is broken."""
    try:
        with paths.open_file(path) as f:
            metadata = pq.ParquetFile(f).metadata
            return [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    except _PARQUET_FAULTS:
        return []
