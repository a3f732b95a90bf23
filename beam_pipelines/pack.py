"""The pack stage: selected documents -> sequences of S+1 token ids in ArrayRecord shards.

One corpus shard makes one ArrayRecord shard for each language. Sequences overlap by one token, so
that every token is a target once; the last of a shard is padded, and its padding bears no loss.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions
from array_record.python.array_record_module import ArrayRecordWriter

from beam_pipelines import documents
from beam_pipelines.documents import Shard
from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed, PackedShard, Record, encode_record, write_packed
from snowcoder_jax.recipe import Grouping
from snowcoder_jax.text import grouping
from snowcoder_jax.text.grouping import File, Text
from snowcoder_jax.tokenizer import FILE_SEP, REPO_NAME, Tokenizer

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


@dataclasses.dataclass
class Stream:
    """One partition's tokens in order, with what must be known of them."""

    ids: list[npt.NDArray[np.int32]] = dataclasses.field(default_factory=list)
    starts: list[int] = dataclasses.field(default_factory=list)
    masked: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    sources: list[tuple[str, int, int]] = dataclasses.field(default_factory=list)
    num_tokens: int = 0
    tokens_by_language: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, ids: npt.NDArray[np.int32]) -> None:
        self.ids.append(ids)
        self.num_tokens += len(ids)


def join_texts(
    texts: list[Text],
    ids_of_row: list[npt.NDArray[np.int32] | None],
    head_tokens_of_row: dict[int, int],
    tokenizer: Tokenizer,
) -> Stream:
    """`<repo_name>NAME<file_sep>PATH NEWLINE CODE ... <|endoftext|>`, some without names."""
    stream = Stream()
    file_sep = [tokenizer.special(FILE_SEP)]
    for text in texts:
        stream.starts.append(stream.num_tokens)
        if text.repo_name is not None:
            name = [tokenizer.special(REPO_NAME), *tokenizer.encode(text.repo_name)]
            stream.add(np.array(name, np.int32))
        for file in text.files:
            head = file_sep
            if text.repo_name is not None:
                head = file_sep + tokenizer.encode(file.path + "\n")
            stream.add(np.array(head, np.int32))
            ids = ids_of_row[file.row]
            assert ids is not None, (file, "selected without tokens")
            start = stream.num_tokens
            stream.sources.append((file.id, start, len(ids)))
            if num_head := head_tokens_of_row.get(file.row, 0):
                stream.masked.append((start, start + num_head))
            stream.add(ids)
            language = file.language
            count = stream.tokens_by_language.get(language, 0)
            stream.tokens_by_language[language] = count + len(ids)
        stream.add(np.array([tokenizer.end_of_text], np.int32))
    return stream


def cut_records(stream: Stream, sequence_length: int, pad_id: int) -> Iterator[Record]:
    """Records of S+1 ids; record k begins at token k*S."""
    flat = np.concatenate(stream.ids)
    starts = np.array(stream.starts, np.int64)
    masked = np.array(stream.masked, np.int64).reshape(-1, 2)
    num_records = max(1, -(-(len(flat) - 1) // sequence_length))
    for k in range(num_records):
        begin = k * sequence_length
        end = begin + sequence_length + 1
        ids = flat[begin:end]
        inside = starts[(starts >= begin) & (starts < end)] - begin
        spans = masked[(masked[:, 1] > begin) & (masked[:, 0] < end)] - begin
        spans = np.clip(spans, 0, sequence_length + 1)
        if len(ids) < sequence_length + 1:
            spans = np.concatenate([spans, [[len(ids), sequence_length + 1]]])
            ids = np.pad(ids, (0, sequence_length + 1 - len(ids)), constant_values=pad_id)
        yield Record(
            ids.astype(np.int32), inside.astype(np.int32), spans.astype(np.int32).reshape(-1, 2)
        )


def _head_tokens(
    job: PackJob, shard: Shard, ids: list[npt.NDArray[np.int32] | None]
) -> dict[int, int]:
    if job.heads is None:
        return {}
    tokenizer = Tokenizer.load(job.tokenizer)
    path = storage.join(job.heads, shard.relative)
    result = {}
    for row, head_bytes in enumerate(documents.read_table(path, ["head_bytes"])[0].to_pylist()):
        row_ids = ids[row]
        if row_ids is not None and head_bytes:
            begins = np.cumsum(tokenizer.token_bytes[row_ids]) - tokenizer.token_bytes[row_ids]
            # A token that begins in the head was given, even if it reaches over its end.
            result[row] = int((begins < head_bytes).sum())
    return result


def slug(partition: str) -> str:
    """A folder name for a language: C++ -> cpp, C# -> csharp."""
    text = partition.lower().replace("+", "p").replace("#", "sharp")
    return re.sub(r"[^a-z0-9]+", "_", text)


def pack_shard(job: PackJob, shard: Shard, output: str, key: str) -> None:
    """Pack one corpus shard; its own manifest, written last, vouches for all it made."""
    done_path = storage.join(output, "shards", shard.relative + ".json")
    table = documents.read_table(
        storage.join(shard.documents, shard.relative), ["id", "repo", "path", "language"]
    )
    selected = documents.read_table(storage.join(job.selection, shard.relative), ["selected"])
    wanted = set(np.flatnonzero(selected["selected"].to_numpy()).tolist())
    rows = zip(*(table[n].to_pylist() for n in ("id", "repo", "path", "language")), strict=True)
    files = [File(i, *r) for i, r in enumerate(rows) if i in wanted]
    shards = []
    if files:
        ids = _token_ids(storage.join(job.tokens, shard.relative), wanted)
        heads = _head_tokens(job, shard, ids)
        parts = grouping.group(
            files, job.grouping, seed=job.seed, metadata_share=job.metadata_share
        )
        for partition, texts in sorted(parts.items()):
            stream = join_texts(texts, ids, heads, Tokenizer.load(job.tokenizer))
            shards.append(_write_stream(job, shard, partition, stream, output, key))
    storage.write_json(done_path, {"key": key, "shards": shards})


def _token_ids(path: str, wanted: set[int]) -> list[npt.NDArray[np.int32] | None]:
    column = documents.read_table(path, ["ids"])["ids"].combine_chunks()
    return [
        np.asarray(column[i].values.to_numpy(), np.int32)
        if i in wanted and column[i].is_valid
        else None
        for i in range(len(column))
    ]


def _write_stream(
    job: PackJob, shard: Shard, partition: str, stream: Stream, output: str, key: str
) -> dict[str, object]:
    tokenizer = Tokenizer.load(job.tokenizer)
    name = shard.relative.replace("/", "-").removesuffix(".parquet")
    relative = f"{slug(partition)}/{name}.array_record"
    path = storage.join(output, relative)
    num_records = 0
    with storage.atomic_path(path) as temporary:
        # One record a group: training reads in random order.
        writer = ArrayRecordWriter(temporary, "group_size:1,zstd:3")
        for record in cut_records(stream, job.sequence_length, tokenizer.end_of_text):
            writer.write(encode_record(record))
            num_records += 1
        writer.close()
    s = job.sequence_length
    sources = pa.table(
        [
            pa.array([i for i, _, _ in stream.sources]),
            pa.array([start // s for _, start, _ in stream.sources], pa.int64()),
            pa.array([start % s for _, start, _ in stream.sources], pa.int64()),
            pa.array([n for _, _, n in stream.sources], pa.int64()),
        ],
        schema=SOURCES_SCHEMA,
    )
    with storage.atomic_path(path.removesuffix(".array_record") + ".sources.parquet") as temporary:
        pq.write_table(sources, temporary)
    storage.write_manifest(path, key, rows=num_records)
    return {
        "path": relative,
        "language": partition,
        "num_records": num_records,
        "sha256": storage.sha256_file(path),
        "num_tokens": stream.num_tokens,
        "num_documents": len(stream.sources),
        "tokens_by_language": stream.tokens_by_language,
    }


def _is_packed(done_path: str, output: str, key: str) -> bool:
    if not storage.exists(done_path):
        return False
    done = storage.read_json(done_path)
    paths = [storage.join(output, shard["path"]) for shard in done["shards"]]
    return done["key"] == key and all(storage.is_done(path, key) for path in paths)


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
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | beam.Create(shards, reshuffle=False)
            | beam.Reshuffle()
            | beam.ParDo(_PackFn(job, output, key))
        )
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
        tokens_by_language=dict(sorted(by_language.items())),
        shards=tuple(
            PackedShard(
                storage.join(output, f["path"]), f["language"], f["num_records"], f["sha256"]
            )
            for f in sorted(facts, key=lambda f: f["path"])
        ),
    )
    write_packed(packed, key)
    return packed
