"""The pack stage: selected documents -> sequences of S+1 token ids in ArrayRecord shards.

One corpus shard makes one ArrayRecord shard for each language. Sequences overlap by one token, so
that every token is a target once; the last of a shard is padded, and its padding bears no loss.

Ids are joined as they were stored; only files turned into fill-in-the-middle are encoded again.
Of a shard, memory holds the names and places of its documents, one of them, and one record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions
from array_record.python.array_record_module import ArrayRecordWriter

from beam_pipelines import documents, workers
from beam_pipelines.documents import Shard
from snowcoder_jax import parquet, storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import (
    Packed,
    PackedShard,
    Piece,
    cut_records,
    encode_record,
    write_packed,
)
from snowcoder_jax.recipe import Grouping
from snowcoder_jax.text import fim, grouping
from snowcoder_jax.text.grouping import File, Text
from snowcoder_jax.text.reader import clean_name
from snowcoder_jax.tokenizer import (
    FILE_SEP,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    REPO_NAME,
    Tokenizer,
)

Ids = npt.NDArray[np.int32]

SOURCES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("record", pa.int64()),  # the first record that holds a token of it
        ("position", pa.int64()),  # of that token in the record
        ("num_tokens", pa.int64()),
    ]
)


@dataclasses.dataclass(frozen=True)
class PackJob:
    """What one pack stage reads and how it joins.

    Attributes:
      selection: folder of SELECTION_SCHEMA rows.
      heads: folder of the synthesis columns (`head_bytes`), whose heads bear no loss.
      fim_share: of the files, how many become fill-in-the-middle; never one with a head.
    """

    corpus: str
    tokens: str
    selection: str
    tokenizer: str
    grouping: Grouping
    metadata_share: float
    sequence_length: int
    seed: int
    heads: str | None = None
    fim_share: float = 0.0


@dataclasses.dataclass
class Joined:
    """What a partition came to: complete once its last piece has been taken.

    Attributes:
      sources: document id, position of its first token in the stream, number of its tokens.
    """

    sources: list[tuple[str, int, int]] = dataclasses.field(default_factory=list)
    num_tokens: int = 0
    num_turned: int = 0
    tokens_by_language: dict[str, int] = dataclasses.field(default_factory=dict)


def join_texts(
    job: PackJob,
    texts: Sequence[Text],
    ids_of_row: Callable[[int], Ids],
    head_bytes: Mapping[int, int],
    joined: Joined,
) -> Iterator[Piece]:
    """`<repo_name>NAME<file_sep>PATH NEWLINE CODE ... <|endoftext|>`, some without names.

    Args:
      ids_of_row: the stored ids of a file, by its row.
      head_bytes: of rows whose heads bear no loss, how long these are.
      joined: filled while the pieces are taken.
    """
    tokenizer = Tokenizer.load(job.tokenizer)
    repo_name, file_sep, end_of_text = (
        np.array([i], np.int32)
        for i in (tokenizer.special(REPO_NAME), tokenizer.special(FILE_SEP), tokenizer.end_of_text)
    )
    for text in texts:
        before = np.zeros(0, np.int32)
        if text.repo_name is not None:
            before = np.concatenate([repo_name, tokenizer.encode_array(clean_name(text.repo_name))])
        is_start = True
        for file in text.files:
            path = (
                tokenizer.encode_array(clean_name(file.path) + "\n")
                if text.repo_name is not None
                else before[:0]
            )
            ids = ids_of_row(file.row)
            num_masked = 0
            if file.row in head_bytes:
                num_masked = _num_head_tokens(ids, head_bytes[file.row], tokenizer)
            elif fim.is_turned(file.id, seed=job.seed, share=job.fim_share):
                ids = _turned(ids, path, file.id, job.seed, tokenizer)
                path = path[:0]
                joined.num_turned += 1
            before = np.concatenate([before, file_sep, path])
            yield Piece(before, is_start)
            joined.num_tokens += len(before)
            yield Piece(ids, num_masked=num_masked)
            joined.sources.append((file.id, joined.num_tokens, len(ids)))
            joined.num_tokens += len(ids)
            count = joined.tokens_by_language.get(file.language, 0)
            joined.tokens_by_language[file.language] = count + len(ids)
            before, is_start = before[:0], False
        yield Piece(end_of_text)
        joined.num_tokens += 1


def _num_head_tokens(ids: Ids, head_bytes: int, tokenizer: Tokenizer) -> int:
    """A token that begins in the head was given, even if it reaches over its end."""
    begins = np.cumsum(tokenizer.token_bytes[ids]) - tokenizer.token_bytes[ids]
    return int((begins < head_bytes).sum())


def _turned(ids: Ids, path: Ids, identity: str, seed: int, tokenizer: Tokenizer) -> Ids:
    """A file in the order of fill-in-the-middle; its path, where it is given, begins the prefix."""
    parts = fim.cut(tokenizer.decode_bytes(ids).decode(), identity, seed=seed)
    encode = tokenizer.encode_array
    prefix, middle, suffix = encode(parts.prefix), encode(parts.middle), encode(parts.suffix)
    before, between, after = (
        np.array([tokenizer.special(name)], np.int32)
        for name in (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)
    )
    if parts.suffix_first:
        order = [before, after, suffix, between, path, prefix, middle]
    else:
        order = [before, path, prefix, after, suffix, between, middle]
    return np.concatenate(order)


class _StoredIds:
    """Ids of chosen rows of a shard in a temporary file: taken in any order, none of them held."""

    def __init__(self, path: str, chosen: npt.NDArray[np.bool_]) -> None:
        self._file = tempfile.TemporaryFile(buffering=1024 * 1024)  # noqa: SIM115
        begins = [0]
        for batch in documents.iter_batches(path, ["ids"]):
            lists = batch.column(0)
            rows = chosen[len(begins) - 1 :][: len(lists)]
            assert lists.is_valid().to_numpy(False)[rows].all(), (path, "selected, no tokens")
            offsets, flat = lists.offsets.tolist(), lists.values.to_numpy()
            for wanted, begin, end in zip(rows, offsets[:-1], offsets[1:], strict=True):
                size = self._file.write(flat[begin:end].data) if wanted else 0
                begins.append(begins[-1] + size)
        self._file.flush()
        self._begins = begins

    def __call__(self, row: int) -> Ids:
        begin, end = self._begins[row : row + 2]
        return np.frombuffer(os.pread(self._file.fileno(), end - begin, begin), np.int32)

    def close(self) -> None:
        self._file.close()


def slug(partition: str) -> str:
    """A folder name for a language: C++ -> cpp, C# -> csharp."""
    text = partition.lower().replace("+", "p").replace("#", "sharp")
    return re.sub(r"[^a-z0-9]+", "_", text)


def pack_shard(job: PackJob, shard: Shard, output: str, key: str) -> None:
    """Pack one corpus shard; its own manifest, written last, vouches for all it made."""
    done_path = storage.join(output, "shards", shard.relative + ".json")
    table = parquet.read_table(
        storage.join(shard.documents, shard.relative), ["id", "repo", "path", "language"]
    )
    selected = parquet.read_table(storage.join(job.selection, shard.relative), ["selected"])
    chosen = np.asarray(selected["selected"].to_numpy(), np.bool_)
    table = table.filter(pa.array(chosen))
    columns = (table[n].to_pylist() for n in ("id", "repo", "path", "language"))
    files = [File(*row) for row in zip(np.flatnonzero(chosen).tolist(), *columns, strict=True)]
    shards = []
    if files:
        heads = _head_bytes(job, shard)
        parts = grouping.group(
            files, job.grouping, seed=job.seed, metadata_share=job.metadata_share
        )
        tokens_path = storage.join(job.tokens, shard.relative)
        with contextlib.closing(_StoredIds(tokens_path, chosen)) as ids_of_row:
            for partition, texts in sorted(parts.items()):
                joined = Joined()
                pieces = join_texts(job, texts, ids_of_row, heads, joined)
                shards.append(_write_partition(job, shard, partition, pieces, joined, output, key))
    storage.write_json(done_path, {"key": key, "shards": shards})


def _head_bytes(job: PackJob, shard: Shard) -> dict[int, int]:
    if job.heads is None:
        return {}
    path = storage.join(job.heads, shard.relative)
    rows = enumerate(parquet.read_table(path, ["head_bytes"])["head_bytes"].to_pylist())
    return {row: head_bytes for row, head_bytes in rows if head_bytes}


def _write_partition(
    job: PackJob,
    shard: Shard,
    partition: str,
    pieces: Iterator[Piece],
    joined: Joined,
    output: str,
    key: str,
) -> dict[str, object]:
    end_of_text = Tokenizer.load(job.tokenizer).end_of_text
    name = shard.relative.replace("/", "-").removesuffix(".parquet")
    relative = f"{slug(partition)}/{name}.array_record"
    path = storage.join(output, relative)
    num_records = 0
    with storage.atomic_path(path) as temporary:
        # One record a group: training reads in random order.
        writer = ArrayRecordWriter(temporary, "group_size:1,zstd:3")
        for record in cut_records(pieces, job.sequence_length, end_of_text):
            writer.write(encode_record(record))
            num_records += 1
        writer.close()
    starts = np.array([start for _, start, _ in joined.sources], np.int64)
    sources = pa.table(
        [
            pa.array([i for i, _, _ in joined.sources]),
            pa.array(starts // job.sequence_length),
            pa.array(starts % job.sequence_length),
            pa.array([n for _, _, n in joined.sources], pa.int64()),
        ],
        schema=SOURCES_SCHEMA,
    )
    with storage.atomic_path(_sources_path(path)) as temporary:
        pq.write_table(sources, temporary)
    storage.write_manifest(path, key, rows=num_records)
    manifest = storage.read_manifest(path)
    assert manifest is not None, path
    return {
        "path": relative,
        "language": partition,
        "num_records": num_records,
        "sha256": manifest["sha256"],
        "num_tokens": joined.num_tokens,
        "source": shard.source,
        "num_documents": len(joined.sources),
        "num_turned": joined.num_turned,
        "tokens_by_language": joined.tokens_by_language,
    }


def _is_packed(done_path: str, output: str, key: str) -> bool:
    if not storage.exists(done_path):
        return False
    done = storage.read_json(done_path)
    paths = [storage.join(output, shard["path"]) for shard in done["shards"]]
    return done["key"] == key and all(
        storage.is_done(path, key) and storage.exists(_sources_path(path)) for path in paths
    )


def _sources_path(path: str) -> str:
    """Of a packed shard: which documents it holds, and where."""
    return path.removesuffix(".array_record") + ".sources.parquet"


class _PackFn(beam.DoFn):
    def __init__(self, job: PackJob, output: str, key: str) -> None:
        self._job, self._output, self._key = job, output, key

    def process(self, shard: Shard) -> Iterator[str]:
        done = storage.join(self._output, "shards", shard.relative + ".json")
        if not _is_packed(done, self._output, self._key):
            pack_shard(self._job, shard, self._output, self._key)
        yield done


def run(job: PackJob, *, output: str, key: str, options: PipelineOptions) -> Packed:
    """Pack a selection.

    Raises:
      InputError: the selection is empty.
    """
    shards = documents.list_shards(job.corpus)
    with workers.pipeline(options) as pipeline:
        spread = workers.spread(pipeline, shards, documents.sizes_bytes(shards), options)
        _ = spread | beam.ParDo(_PackFn(job, output, key))
    facts = []
    for shard in shards:
        facts += storage.read_json(storage.join(output, "shards", shard.relative + ".json"))[
            "shards"
        ]
    if not facts:
        raise InputError(
            f"{job.selection}: selects no document, so there is nothing to train on. "
            "Raise its budget of tokens (a file is taken only where that comes nearer to it), add "
            "sources, or loosen the policy that drops them (see `snowcoder why`)."
        )
    by_language: dict[str, int] = {}
    for fact in facts:
        for language, count in fact["tokens_by_language"].items():
            by_language[language] = by_language.get(language, 0) + count
    packed = Packed(
        folder=output,
        sequence_length=job.sequence_length,
        vocab_size=Tokenizer.load(job.tokenizer).vocab_size,
        num_records=sum(f["num_records"] for f in facts),
        num_tokens=sum(f["num_tokens"] for f in facts),
        num_documents=sum(f["num_documents"] for f in facts),
        num_turned=sum(f["num_turned"] for f in facts),
        tokens_by_language=dict(sorted(by_language.items())),
        shards=tuple(
            PackedShard(
                storage.join(output, f["path"]),
                f["language"],
                f["num_records"],
                f["sha256"],
                num_tokens=f["num_tokens"],
                source=f["source"],
                tokens_by_language=f["tokens_by_language"],
            )
            for f in sorted(facts, key=lambda f: f["path"])
        ),
    )
    write_packed(packed, key)
    return packed


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("pack")
