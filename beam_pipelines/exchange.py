"""The one shuffle of text: documents come in pieces, in any order, and leave in sorted shards.

A piece is written as sorted runs, each cut into batches by the shard that their repositories
belong to. A shard is the merge of its batches of all runs. Neither end holds more than a run, or
one batch of each run, in memory. All that is written depends on the pieces alone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import xxhash

from beam_pipelines.documents import DOCUMENT_SCHEMA, ROW_GROUP_BYTES, ROW_GROUP_ROWS
from snowcoder_jax import storage
from snowcoder_jax.parquet import open_file, read_table
from snowcoder_jax.sources.documents import LedgerRow, SourceDocument

Ints = npt.NDArray[np.int64]

RUN_BYTES = 64 * 1024**2
BATCH_BYTES = 2 * 1024**2
_DOCUMENT_BYTES = 512  # of a document in memory, besides its text
_LEDGER_ROWS = 20_000

_KEYS = ("repo", "language", "path")
_RUN_SCHEMA = pa.schema([("shard", pa.int32()), ("bytes", pa.int64()), *DOCUMENT_SCHEMA])
_KEY_FIELDS = [_RUN_SCHEMA.get_field_index(name) for name in ("bytes", *_KEYS)]
_INDEX_SCHEMA = pa.schema(
    [
        ("run", pa.int32()),
        ("batch", pa.int32()),  # its place in the file
        ("shard", pa.int32()),
        ("first_repo", pa.string()),
        ("last_repo", pa.string()),
    ]
)
REPOS_SCHEMA = pa.schema([("repo", pa.string()), ("bytes", pa.int64())])
_LEDGER_TYPES: dict[str, pa.DataType] = {
    "repo": pa.string(),
    "path": pa.string(),
    "reason": pa.string(),
    "bytes": pa.int64(),
}
LEDGER_SCHEMA = pa.schema(_LEDGER_TYPES)


def document_id(repo: str, path: str, content: str | bytes) -> str:
    """32 hex digits of xxh3_128 over repository, path and content, parted by NUL."""
    digest = xxhash.xxh3_128(f"{repo}\0{path}\0".encode("utf-8", "surrogatepass"))
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    digest.update(content)
    return digest.hexdigest()


@dataclass(frozen=True)
class Dealing:
    """Which shard a document goes to: hash(repository), and for the repositories in `spread`,
    which are too big for one, hash(repository, path)."""

    num_shards: int
    seed: int
    spread: frozenset[str] = frozenset()

    def home(self, repo: str) -> int:
        return storage.seeded_hash(self.seed, "shard", repo) % self.num_shards

    def shard(self, repo: str, path: str) -> int:
        identity = f"{repo}\0{path}" if repo in self.spread else repo
        return storage.seeded_hash(self.seed, "shard", identity) % self.num_shards


def too_big(repos: Any, num_bytes: Any, num_shards: int) -> frozenset[str]:
    """The repositories that hold more than an even share of all bytes; two Arrow columns."""
    if not len(repos):
        return frozenset()
    limit = pc.sum(num_bytes).as_py() // num_shards
    return frozenset(repos.filter(pc.greater(num_bytes, limit)).to_pylist())


def shard_bytes(repos: Any, num_bytes: Any, deal: Dealing, spread: frozenset[str]) -> list[int]:
    """Bytes of every shard, about: of the repositories in `spread` each has an even part."""
    sizes = [0] * deal.num_shards
    everywhere = 0
    for repo, size in zip(repos.to_pylist(), num_bytes.to_pylist(), strict=True):
        if repo in spread:
            everywhere += size // deal.num_shards
        else:
            sizes[deal.home(repo)] += size
    return [size + everywhere for size in sizes]


@dataclass(frozen=True)
class PieceFiles:
    """The files of one piece; `done` is written last, with the piece's key."""

    stem: str

    @property
    def runs(self) -> str:
        return self.stem + ".arrow"

    @property
    def index(self) -> str:
        return self.stem + ".index.parquet"

    @property
    def repos(self) -> str:
        return self.stem + ".repos.parquet"

    @property
    def ledger(self) -> str:
        return self.stem + ".ledger.parquet"

    @property
    def done(self) -> str:
        return self.stem + ".done.json"

    def is_done(self, key: str) -> bool:
        return storage.exists(self.done) and storage.read_json(self.done)["key"] == key


def write_piece(
    items: Iterable[SourceDocument | LedgerRow | None], files: PieceFiles, deal: Dealing, key: str
) -> None:
    """Write the runs of a piece, its ledger, and the bytes of its repositories."""
    ledger = _Rows(LEDGER_SCHEMA, _LEDGER_ROWS)
    bytes_by_repo: Counter[str] = Counter()
    num_other = 0
    with storage.atomic_path(files.runs) as temporary:
        writer = _RunWriter(temporary, deal)
        for item in items:
            if item is None:
                num_other += 1
            elif isinstance(item, LedgerRow):
                ledger.add((item.repo, item.path, item.reason, item.size_bytes))
            else:
                bytes_by_repo[item.repo] += len(item.content)
                writer.add(item)
        index = writer.close()
    repos = pa.table([list(bytes_by_repo), list(bytes_by_repo.values())], schema=REPOS_SCHEMA)
    for path, table in (
        (files.index, index),
        (files.repos, repos),
        (files.ledger, ledger.table()),
    ):
        write_table(path, table)
    storage.write_json(files.done, {"key": key, "other": num_other})


def write_table(path: str, table: pa.Table) -> None:
    with storage.atomic_path(path) as temporary:
        pq.write_table(table, temporary)


class _Rows:
    """Rows put into Arrow now and then, where they take a tenth of the memory."""

    def __init__(self, schema: pa.Schema, num_rows: int) -> None:
        self._schema = schema
        self._num_rows = num_rows
        self._rows: list[tuple[Any, ...]] = []
        self._tables = [schema.empty_table()]

    def add(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) >= self._num_rows:
            self._flush()

    def _flush(self) -> None:
        columns = list(map(list, zip(*self._rows, strict=True))) or [[] for _ in self._schema]
        self._tables.append(pa.table(columns, schema=self._schema))
        self._rows = []

    def table(self) -> pa.Table:
        self._flush()
        return pa.concat_tables(self._tables)


class _RunWriter:
    def __init__(self, path: str, deal: Dealing) -> None:
        self._deal = deal
        options = ipc.IpcWriteOptions(compression="lz4")
        self._writer = ipc.new_file(path, _RUN_SCHEMA, options=options)
        self._documents: list[SourceDocument] = []
        self._num_bytes = 0
        self._index: list[tuple[Any, ...]] = []
        self._run = 0
        self._homes: dict[str, int] = {}

    def add(self, document: SourceDocument) -> None:
        self._documents.append(document)
        self._num_bytes += len(document.content) + _DOCUMENT_BYTES
        if self._num_bytes >= RUN_BYTES:
            self._flush()

    def _flush(self) -> None:
        table = self._table()
        self._documents, self._num_bytes = [], 0
        order = [(name, "ascending") for name in ("shard", *_KEYS)]
        table = table.take(pc.sort_indices(table, sort_keys=order)).combine_chunks()
        for batch in _cut(table):
            repos = batch["repo"]
            self._index.append(
                (self._run, len(self._index), batch["shard"][0].as_py(),
                 repos[0].as_py(), repos[-1].as_py())
            )  # fmt: skip
            self._writer.write_batch(batch)
        self._run += 1

    def _table(self) -> pa.Table:
        documents = self._documents
        for repo in {d.repo for d in documents}:
            if repo not in self._homes:
                self._homes[repo] = self._deal.home(repo)
        columns = {
            "shard": [self._homes[d.repo] for d in documents],
            "bytes": [len(d.content) for d in documents],
            "id": [document_id(d.repo, d.path, d.content) for d in documents],
            **{
                name: [getattr(d, name) for d in documents]
                for name in ("repo", "path", "language", "license", "stars")
            },
        }
        content = pa.array([d.content for d in documents], pa.large_binary())
        return pa.table({**columns, "content": content.view(pa.large_string())}, schema=_RUN_SCHEMA)

    def close(self) -> pa.Table:
        """Write what is left; returns the index."""
        if self._documents:
            self._flush()
        self._writer.close()
        columns = list(map(list, zip(*self._index, strict=True))) or [[] for _ in _INDEX_SCHEMA]
        return pa.table(columns, schema=_INDEX_SCHEMA)


def _cut(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Batches of one shard each, of about `BATCH_BYTES`."""
    shards = table["shard"].to_numpy()
    sizes = np.cumsum(table["bytes"].to_numpy()) // BATCH_BYTES
    is_first = np.ones(len(shards), bool)
    is_first[1:] = (np.diff(shards) != 0) | (np.diff(sizes) != 0)
    starts = [*np.flatnonzero(is_first).tolist(), len(shards)]
    (whole,) = table.to_batches()
    for start, stop in itertools.pairwise(starts):
        yield whole.slice(start, stop - start)


@dataclass
class _Stream:
    """The batches of one run and shard: sorted documents, read once from front to back."""

    path: str
    batches: list[int]
    rest: pa.Table | None = None

    def keys(self) -> pa.Table:
        options = ipc.IpcReadOptions(included_fields=_KEY_FIELDS)
        with open_file(self.path) as f, ipc.open_file(f, options=options) as reader:
            return pa.Table.from_batches([reader.get_batch(i) for i in self.batches])

    def take(self, num_rows: int) -> Iterator[pa.Table]:
        while num_rows:
            if self.rest is None or not self.rest.num_rows:
                with open_file(self.path) as f, ipc.open_file(f) as reader:
                    batch = reader.get_batch(self.batches.pop(0))
                self.rest = pa.Table.from_batches([batch]).select(DOCUMENT_SCHEMA.names)
            part = self.rest.slice(0, num_rows)
            self.rest = self.rest.slice(part.num_rows)
            num_rows -= part.num_rows
            yield part


def merge(pieces: list[PieceFiles], index: int, deal: Dealing) -> tuple[Iterator[pa.Table], Any]:
    """The documents of shard `index` in their order, and the counts of each language."""
    streams: list[_Stream] = []
    keys: list[pa.Table] = []
    for piece in pieces:
        for stream in _streams(piece, index, deal):
            found = stream.keys()
            streams.append(stream)
            keys.append(found.append_column("own", _own(found, index, deal)))
    if not streams:
        return iter(()), {}
    numbers = np.repeat(np.arange(len(keys), dtype=np.int32), [t.num_rows for t in keys])
    table = pa.concat_tables(keys).append_column("stream", pa.array(numbers))
    order = [(name, "ascending") for name in _KEYS]
    table = table.take(pc.sort_indices(table, sort_keys=order))
    by_language = (
        table.filter(table["own"])
        .group_by("language")
        .aggregate([("bytes", "count"), ("bytes", "sum")])
    )
    counts = {
        row["language"]: {"documents": row["bytes_count"], "bytes": row["bytes_sum"]}
        for row in by_language.to_pylist()
    }
    own = np.flatnonzero(table["own"].to_numpy())
    return _batches(streams, table["stream"].to_numpy(), own, table["bytes"].to_numpy()), counts


def _streams(piece: PieceFiles, index: int, deal: Dealing) -> Iterator[_Stream]:
    """Those of a piece that hold documents of a shard: its own, and of spread repositories."""
    rows = read_table(piece.index)
    wanted = pc.equal(rows["shard"], index)
    for repo in sorted(deal.spread):
        covers = pc.and_(
            pc.less_equal(rows["first_repo"], repo), pc.greater_equal(rows["last_repo"], repo)
        )
        wanted = pc.or_(wanted, pc.and_(covers, pc.equal(rows["shard"], deal.home(repo))))
    rows = rows.filter(wanted).select(["run", "shard", "batch"]).to_pylist()
    for _, group in itertools.groupby(rows, key=lambda r: (r["run"], r["shard"])):
        yield _Stream(piece.runs, [row["batch"] for row in group])


def _own(keys: pa.Table, index: int, deal: Dealing) -> pa.Array:
    """Which rows go to the shard: all, or where a spread repository is among them, some."""
    repos = keys["repo"].to_pylist()
    if deal.spread.isdisjoint(repos):
        return pa.array(np.full(len(repos), deal.home(repos[0]) == index))
    return pa.array(
        [
            deal.shard(repo, path) == index
            for repo, path in zip(repos, keys["path"].to_pylist(), strict=True)
        ]
    )


def _batches(
    streams: list[_Stream],
    numbers: Ints,
    own: Ints,
    num_bytes: Ints,
) -> Iterator[pa.Table]:
    """The shard's rows in their order, in batches that depend on them alone.

    Args:
      numbers: for each row in order the stream that gives it; a stream gives its rows in order.
      own: the places of the shard's rows among them.
      num_bytes: of each row's text.
    """
    sizes = np.cumsum(num_bytes[own])
    first = start = 0
    while first < len(own):
        before = sizes[first - 1] if first else 0
        last = int(np.searchsorted(sizes, before + ROW_GROUP_BYTES, "right"))
        last = min(max(last, first + 1), first + ROW_GROUP_ROWS, len(own))
        stop = int(own[last - 1]) + 1
        here = numbers[start:stop]
        counts = np.bincount(here)
        parts = [p for i in np.flatnonzero(counts) for p in streams[i].take(int(counts[i]))]
        place = np.empty(len(here), np.int64)
        place[np.argsort(here, kind="stable")] = np.arange(len(here))
        yield pa.concat_tables(parts).take(place[own[first:last] - start])
        first, start = last, stop
