"""The packed record: a fixed number of token ids, where documents start, what bears no loss.

A packed folder holds `<language>/part-00000.array_record` shards, each with a manifest, a
`part-00000.sources.parquet` beside it (document id, first record, first position: the way back
to every source), and one `packed.json` written last.

Shape legend: S sequence length, K documents that start in a record, M masked spans, N tokens.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snowcoder_jax import storage

_HEADER = struct.Struct("<4sIIII")
_MAGIC = b"SCR1"


@dataclasses.dataclass(frozen=True)
class Record:
    """One training sequence.

    Attributes:
      ids: int32 [S+1]; inputs are ids[:-1], targets ids[1:].
      starts: int32 [K], ascending positions in `ids` at which a document begins. A document that
        goes on from the record before has no start here.
      masked: int32 [M, 2], half-open spans of positions in `ids` that bear no loss as targets
        (copied seed heads, padding).
    """

    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    masked: npt.NDArray[np.int32]


class Piece(NamedTuple):
    """Tokens in a row of a stream that is cut into records.

    Attributes:
      ids: int32 [N].
      is_start: whether a document begins with them.
      num_masked: how many of them, from the first on, bear no loss.
    """

    ids: npt.NDArray[np.int32]
    is_start: bool = False
    num_masked: int = 0


def cut_records(pieces: Iterable[Piece], sequence_length: int, pad_id: int) -> Iterator[Record]:
    """Records of S+1 ids; record k begins at token k*S, so neighbours share one token.

    The last is filled up with `pad_id`, masked. Holds one record at a time, whatever comes.
    """
    size = sequence_length + 1
    ids = np.empty(size, np.int32)
    starts: list[int] = []
    masked: list[tuple[int, int]] = []
    filled = 0
    shared = 0  # tokens in `ids` that stand in the record before, too
    for piece in pieces:
        if piece.is_start:
            starts.append(filled)
        if piece.num_masked:
            masked.append((filled, filled + piece.num_masked))
        rest = piece.ids
        while len(rest):
            taken = rest[: size - filled]
            ids[filled : filled + len(taken)] = taken
            filled += len(taken)
            rest = rest[len(taken) :]
            if filled < size:
                continue
            yield _record(ids, starts, masked)
            ids[0] = ids[-1]
            starts = [0] if starts and starts[-1] == sequence_length else []
            masked = [
                (max(0, begin - sequence_length), end - sequence_length)
                for begin, end in masked
                if end > sequence_length
            ]
            filled = shared = 1
    if filled > shared:
        ids[filled:] = pad_id
        yield _record(ids, starts, [*masked, (filled, size)])


def _record(ids: npt.NDArray[np.int32], starts: list[int], masked: list[tuple[int, int]]) -> Record:
    spans = np.array(masked, np.int32).reshape(-1, 2)
    return Record(ids.copy(), np.array(starts, np.int32), np.minimum(spans, len(ids)))


def num_records(num_tokens: int, sequence_length: int) -> int:
    """How many records `cut_records` makes of a stream."""
    return max(1, -(-(num_tokens - 1) // sequence_length)) if num_tokens else 0


def encode_record(record: Record) -> bytes:
    """Bytes of a record: ids as uint16 where they fit, else uint32."""
    wide = int(record.ids.max(initial=0)) > 0xFFFF
    ids = record.ids.astype("<u4" if wide else "<u2")
    header = _HEADER.pack(
        _MAGIC, 4 if wide else 2, len(ids), len(record.starts), len(record.masked)
    )
    tail = np.concatenate([record.starts, record.masked.reshape(-1)]).astype("<u4")
    return header + ids.tobytes() + tail.tobytes()


def decode_record(data: bytes) -> Record:
    """The inverse of `encode_record`.

    Raises:
      ValueError: the bytes are not a whole record.
    """
    if len(data) < _HEADER.size:
        raise ValueError("a packed record is cut short")
    magic, width, num_ids, num_starts, num_masked = _HEADER.unpack_from(data)
    num_bytes = _HEADER.size + width * num_ids + 4 * (num_starts + 2 * num_masked)
    if magic != _MAGIC or width not in (2, 4) or len(data) != num_bytes:
        raise ValueError("the bytes are not a packed record")
    ids = np.frombuffer(data, f"<u{width}", num_ids, _HEADER.size).astype(np.int32)
    tail = np.frombuffer(data, "<u4", -1, _HEADER.size + width * num_ids).astype(np.int32)
    return Record(ids, tail[:num_starts], tail[num_starts:].reshape(-1, 2))


@dataclasses.dataclass(frozen=True)
class PackedShard:
    """One file of records, cut from one stream of tokens.

    Attributes:
      language: of all its files, or "all" where the grouping does not part languages.
      num_tokens: of the stream, padding not counted.
      source: the recipe's name of what all its documents come from.
      tokens_by_language: of the stream's tokens, those of files.
    """

    path: str
    language: str
    num_records: int
    sha256: str
    num_tokens: int
    source: str
    tokens_by_language: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Packed:
    """A packed folder, as its `packed.json` tells it.

    Attributes:
      sequence_length: S; records hold S + 1 ids.
      num_tokens: tokens of documents, padding not counted.
      tokens_by_language: of those, the tokens of files, by language.
      num_turned: documents that were turned into fill-in-the-middle.
    """

    folder: str
    sequence_length: int
    vocab_size: int
    num_records: int
    num_tokens: int
    num_documents: int
    tokens_by_language: dict[str, int]
    shards: tuple[PackedShard, ...]
    num_turned: int = 0


def write_packed(packed: Packed, key: str) -> None:
    facts: dict[str, Any] = dataclasses.asdict(packed)
    del facts["folder"]
    for shard in facts["shards"]:
        shard["path"] = shard["path"].removeprefix(packed.folder.rstrip("/") + "/")
    storage.write_json(storage.join(packed.folder, "packed.json"), {"key": key, **facts})


def read_packed(folder: str) -> Packed:
    """Raises FileNotFoundError where the folder is not whole."""
    facts = storage.read_json(storage.join(folder, "packed.json"))
    del facts["key"]
    shards = tuple(
        PackedShard(**{**s, "path": storage.join(folder, s["path"])}) for s in facts.pop("shards")
    )
    return Packed(folder=folder, shards=shards, **facts)
