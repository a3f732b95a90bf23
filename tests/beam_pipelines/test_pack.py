"""Packing: every selected token once, every token traceable, the same bytes each time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from small_corpus import KEY, ROWS, Corpus, Row, hash_of, row

from beam_pipelines import pack, select, tokens
from beam_pipelines.options import local_options
from snowcoder_jax import storage, tokenizer
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed, Record, decode_record, num_records, read_packed
from snowcoder_jax.recipe import Grouping

GROUPINGS: list[Grouping] = [
    "language_then_repository",
    "repository",
    "repository_then_language",
    "file",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus(tmp_path_factory.mktemp("corpus"), ROWS)
    select_rows(corpus, "all")
    return corpus


def select_rows(corpus: Corpus, name: str, wanted: Any = lambda r: True) -> str:
    def column(r: Row) -> Row:
        return {"id": r["id"], "selected": wanted(r)}

    return corpus.write(name, select.SELECTION_SCHEMA, column)


def job_of(corpus: Corpus, **changes: Any) -> pack.PackJob:
    values: dict[str, Any] = {
        "corpus": corpus.root,
        "tokens": corpus.tokens,
        "selection": storage.join(corpus.root, "all"),
        "tokenizer": corpus.tokenizer,
        "grouping": "language_then_repository",
        "metadata_share": 0.5,
        "sequence_length": 16,
        "seed": 0,
        **changes,
    }
    return pack.PackJob(**values)


def pack_all(
    corpus: Corpus, folder: Path, num_workers: int = 1, **changes: Any
) -> tuple[Packed, list[Record]]:
    output = str(folder / "packed")
    pack.run(job_of(corpus, **changes), output=output, key=KEY, options=local_options(num_workers))
    packed = read_packed(output)
    return packed, [r for shard in packed.shards for r in read_records(shard.path)]


def read_records(path: str) -> list[Record]:
    return [decode_record(r) for r in ArrayRecordReader(path).read_all()]


def sources_of(path: str) -> list[Row]:
    rows: list[Row] = pq.read_table(sources_path(path)).to_pylist()
    return rows


def sources_path(path: str) -> str:
    return path.removesuffix(".array_record") + ".sources.parquet"


def documents_of(packed: Packed) -> dict[str, list[int]]:
    """The ids of each document, found by its row in the sources."""
    result = {}
    s = packed.sequence_length
    for shard in packed.shards:
        records = read_records(shard.path)
        flat = np.concatenate([r.ids[:s] for r in records] + [records[-1].ids[s:]])
        for source in sources_of(shard.path):
            start = source["record"] * s + source["position"]
            result[source["id"]] = flat[start : start + source["num_tokens"]].tolist()
    return result


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_every_selected_token_is_a_target_once(
    corpus: Corpus, tmp_path: Path, grouping: Grouping
) -> None:
    packed, records = pack_all(corpus, tmp_path, grouping=grouping)
    model = tokenizer.Tokenizer.load(corpus.tokenizer)
    text = b""
    for record in records:
        assert len(record.ids) == 17
        ids = record.ids[1:].copy()
        for begin, end in record.masked:
            ids[max(0, begin - 1) : end - 1] = model.end_of_text
        text += model.decode_bytes(ids.tolist())
    for r in ROWS:
        assert r["content"].encode() in text, (grouping, r["path"])
    contents = sum(len(r["content"].encode()) for r in ROWS)
    names = sum(len(f"{r['repo']}{r['path']}\n".encode()) for r in ROWS)
    assert contents <= len(text) <= contents + names
    assert (packed.num_documents, packed.num_turned) == (len(ROWS), 0)
    counts = sum(r["num_tokens"] for r in corpus.table(corpus.tokens).to_pylist())
    assert sum(packed.tokens_by_language.values()) == counts
    folders = {os.path.basename(os.path.dirname(s.path)) for s in packed.shards}
    assert folders == ({"python", "c"} if grouping == "language_then_repository" else {"all"})


def test_neighbouring_records_overlap_by_one_token_and_only_padding_is_masked(
    corpus: Corpus, tmp_path: Path
) -> None:
    packed, _ = pack_all(corpus, tmp_path)
    padded = 0
    for shard in packed.shards:
        records = read_records(shard.path)
        for before, after in zip(records, records[1:], strict=False):
            assert before.ids[-1] == after.ids[0]
            assert len(before.masked) == 0
        padding = sum(int(end - begin) for begin, end in records[-1].masked)
        assert padding < 17
        padded += padding
    targets = sum(16 * s.num_records for s in packed.shards)
    assert targets - padded == packed.num_tokens - len(packed.shards)


def test_starts_mark_each_repository_of_a_language(corpus: Corpus, tmp_path: Path) -> None:
    _, records = pack_all(corpus, tmp_path, metadata_share=1.0)
    model = tokenizer.Tokenizer.load(corpus.tokenizer)
    starts = [int(r.ids[s]) for r in records for s in r.starts if s < 16]
    assert starts == [model.special(tokenizer.REPO_NAME)] * 12  # six repositories, two languages
    seps = sum(int((r.ids[:16] == model.special(tokenizer.FILE_SEP)).sum()) for r in records)
    assert seps == len(ROWS)


def test_sources_lead_back_from_a_record_to_its_document(corpus: Corpus, tmp_path: Path) -> None:
    packed, _ = pack_all(corpus, tmp_path)
    model = tokenizer.Tokenizer.load(corpus.tokenizer)
    found = {i: model.decode(ids) for i, ids in documents_of(packed).items()}
    assert found == {r["id"]: r["content"] for r in ROWS}


def head_folder(corpus: Corpus, name: str, bytes_of: Any) -> str:
    schema = pa.schema([("id", pa.string()), ("head_bytes", pa.int64())])
    return corpus.write(name, schema, lambda r: {"id": r["id"], "head_bytes": bytes_of(r)})


def test_heads_bear_no_loss_and_their_files_are_never_turned(
    corpus: Corpus, tmp_path: Path
) -> None:
    heads = head_folder(corpus, "heads", lambda r: 6)
    packed, _ = pack_all(corpus, tmp_path, heads=heads, sequence_length=100_000, fim_share=1.0)
    model = tokenizer.Tokenizer.load(corpus.tokenizer)
    assert packed.num_turned == 0
    for shard in packed.shards:
        (record,) = read_records(shard.path)
        *spans, _padding = record.masked.tolist()
        sources = sources_of(shard.path)
        assert [begin for begin, _ in spans] == [source["position"] for source in sources]
        for begin, end in spans:
            assert len(model.decode_bytes(record.ids[begin:end].tolist())) >= 6
            assert len(model.decode_bytes(record.ids[begin : end - 1].tolist())) < 6


# Of records and sources, computed before packing was made to stream: no change of code may
# change what a recipe without fill-in-the-middle packs.
GOLDEN = {
    "language_then_repository": "14d1fa3bd6363b65",
    "repository": "34b9bc7995c83972",
    "repository_then_language": "3f73b3d5d3a8fb46",
    "file": "6c22acae79a93cb0",
}


@pytest.fixture(scope="module")
def golden_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    kinds = [("py", "Python"), ("c", "C"), ("md", "Markdown"), ("c", "C")] * 5
    rows = [
        row(
            f"org/repo{r}",
            f"src/größe{f}.{ext}",
            language,
            f"{ext} é{r} {f}\n" * (f % 5 * 9) + "return words " * (r * f % 13),
        )
        for r in range(5)
        for f, (ext, language) in enumerate(kinds)
    ]
    return Corpus(tmp_path_factory.mktemp("golden"), rows)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_packed_records_are_what_they_always_were(
    golden_corpus: Corpus, tmp_path: Path, grouping: Grouping
) -> None:
    packed, _ = pack_all(
        golden_corpus,
        tmp_path,
        selection=select_rows(golden_corpus, "some", lambda r: hash_of(r["id"]) % 4 > 0),
        heads=head_folder(golden_corpus, "heads", lambda r: hash_of(r["path"]) % 3 * 8),
        grouping=grouping,
        sequence_length=32,
        seed=3,
    )
    digest = hashlib.sha256()
    for shard in packed.shards:
        digest.update(shard.path.removeprefix(packed.folder).encode())
        for record in ArrayRecordReader(shard.path).read_all():
            digest.update(record)
        for source in sources_of(shard.path):
            digest.update(repr(source).encode())
    assert digest.hexdigest()[:16] == GOLDEN[grouping]


def unturned(ids: list[int], model: tokenizer.Tokenizer) -> tuple[str, str]:
    """The order of a turned file ("PSM" or "SPM") and the file, its path before it if given."""
    before, between, after = (
        model.special(name)
        for name in (tokenizer.FIM_PREFIX, tokenizer.FIM_MIDDLE, tokenizer.FIM_SUFFIX)
    )
    assert ids[0] == before
    assert [ids.count(special) for special in (before, between, after)] == [1, 1, 1]
    a, m = ids.index(after), ids.index(between)
    assert a < m
    prefix, suffix, middle = ids[1:a], ids[a + 1 : m], ids[m + 1 :]
    text = (model.decode_bytes(prefix) + model.decode_bytes(middle + suffix)).decode()
    return ("SPM" if a == 1 else "PSM"), text


@pytest.mark.parametrize("metadata_share", [0.0, 1.0])
def test_turned_files_hold_all_of_the_file_in_either_order(
    golden_corpus: Corpus, tmp_path: Path, metadata_share: float
) -> None:
    select_rows(golden_corpus, "all")
    packed, records = pack_all(
        golden_corpus, tmp_path, fim_share=1.0, metadata_share=metadata_share, grouping="repository"
    )
    model = tokenizer.Tokenizer.load(golden_corpus.tokenizer)
    rows = {r["id"]: r for r in golden_corpus.rows}
    orders = []
    for identity, ids in documents_of(packed).items():
        order, text = unturned(ids, model)
        path = f"{rows[identity]['path']}\n" if metadata_share else ""
        assert text == path + rows[identity]["content"]
        orders.append(order)
    assert len(orders) == packed.num_turned == packed.num_documents == len(rows)
    assert 25 < orders.count("SPM") < 75
    # All of it bears loss, but for the padding of the last record of a shard.
    assert sum(len(r.masked) for r in records) <= len(packed.shards)
    # Where a document begins and what stands between its files is as without.
    plain, plain_records = pack_all(
        golden_corpus, tmp_path / "plain", metadata_share=metadata_share, grouping="repository"
    )
    assert list(documents_of(plain)) == list(documents_of(packed))
    for kind in (records, plain_records):
        assert sum((r.starts < 16).sum() for r in kind) == 5
    seps = model.special(tokenizer.FILE_SEP)
    assert sum((r.ids[:16] == seps).sum() for r in records) == len(rows)


def test_a_share_of_the_files_is_turned_and_the_others_are_joined_as_stored(
    golden_corpus: Corpus, tmp_path: Path
) -> None:
    select_rows(golden_corpus, "all")
    packed, _ = pack_all(golden_corpus, tmp_path, fim_share=0.5)
    model = tokenizer.Tokenizer.load(golden_corpus.tokenizer)
    stored = {r["id"]: r["ids"] for r in golden_corpus.table(golden_corpus.tokens).to_pylist()}
    turned = 0
    for identity, ids in documents_of(packed).items():
        if ids[:1] == [model.special(tokenizer.FIM_PREFIX)]:
            turned += 1
        else:
            assert ids == stored[identity]
    assert turned == packed.num_turned
    assert 30 < turned < 70
    tokens_packed = sum(len(ids) for ids in documents_of(packed).values())
    assert sum(packed.tokens_by_language.values()) == tokens_packed


def test_the_same_bytes_with_one_process_and_with_two(corpus: Corpus, tmp_path: Path) -> None:
    one, two = (
        pack_all(corpus, tmp_path / str(n), n, grouping="repository", fim_share=0.5)[0]
        for n in (1, 2)
    )
    assert [s.sha256 for s in one.shards] == [s.sha256 for s in two.shards]


def test_a_shard_that_is_whole_is_kept_and_one_that_is_not_is_made_again(
    corpus: Corpus, tmp_path: Path
) -> None:
    packed, _ = pack_all(corpus, tmp_path, grouping="repository")
    kept, lost = (shard.path for shard in packed.shards)
    before = os.stat(kept).st_mtime_ns
    with open(lost, "ab") as f:
        f.write(b"x")
    assert pack_all(corpus, tmp_path, grouping="repository")[0] == packed
    assert os.stat(kept).st_mtime_ns == before
    assert storage.sha256_file(lost) == packed.shards[1].sha256
    # So is what leads back from a record to its documents.
    sources = kept.removesuffix(".array_record") + ".sources.parquet"
    os.unlink(sources)
    assert pack_all(corpus, tmp_path, grouping="repository")[0] == packed
    assert os.path.exists(sources)


def test_an_object_store_holds_the_same_bytes_as_a_disk(corpus: Corpus, tmp_path: Path) -> None:
    remote = Corpus("memory:///corpus", ROWS)
    select_rows(remote, "all")
    output = "memory:///packed"
    pack.run(job_of(remote, fim_share=0.5), output=output, key=KEY, options=local_options())
    local, _ = pack_all(corpus, tmp_path, fim_share=0.5)
    there = read_packed(output)
    assert [s.sha256 for s in there.shards] == [s.sha256 for s in local.shards]
    for here, shard in zip(local.shards, there.shards, strict=True):
        assert shard.path.startswith("memory://")
        assert storage.read_bytes(shard.path) == storage.read_bytes(here.path)
        assert storage.is_done(shard.path, KEY)
        sources = storage.read_bytes(sources_path(shard.path))
        assert sources == storage.read_bytes(sources_path(here.path))


def test_an_empty_selection_is_a_fault_with_a_mend(corpus: Corpus, tmp_path: Path) -> None:
    empty = select_rows(corpus, "empty", lambda r: False)
    with pytest.raises(InputError, match="selects no document"):
        pack_all(corpus, tmp_path, selection=empty)


def test_a_document_without_tokens_is_never_packed(tmp_path: Path) -> None:
    rows = [row("r", "x.ipynb", "Jupyter Notebook", "{"), row("r", "x.py", "Python", "x = 1\n")]
    corpus = Corpus(tmp_path, rows, num_shards=1)
    select_rows(corpus, "all")
    with pytest.raises(Exception, match="selected, no tokens"):
        pack_all(corpus, tmp_path / "p")


def test_ids_above_two_bytes_are_joined_as_they_are(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, [row("r", "x.py", "Python", "x = 1\n")], num_shards=1)
    select_rows(corpus, "all")

    def column(r: Row) -> Row:
        return {"id": r["id"], "verdict": "pass", "num_tokens": 3, "ids": [70_000, 299, 65_536]}

    wide = corpus.write("wide", tokens.SCHEMA, column)
    _, (record,) = pack_all(corpus, tmp_path / "p", tokens=wide, metadata_share=0.0)
    model = tokenizer.Tokenizer.load(corpus.tokenizer)
    file_sep = model.special(tokenizer.FILE_SEP)
    assert record.ids[:5].tolist() == [file_sep, 70_000, 299, 65_536, model.end_of_text]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tokens_of_a_repository(tmp_path: Path) -> None:
    """200 MB of ids in one repository, packed in a process of its own."""
    corpus = Corpus(tmp_path, [row("r", f"{i}.py", "Python", str(i)) for i in range(200)], 1)
    select_rows(corpus, "all")
    rng = np.random.default_rng(0)

    def column(r: Row) -> Row:
        ids = rng.integers(20, 300, 250_000, dtype=np.int32)
        return {"id": r["id"], "verdict": "pass", "num_tokens": len(ids), "ids": ids}

    large = corpus.write("large", tokens.SCHEMA, column)
    job = job_of(corpus, tokens=large, sequence_length=8192)
    program = (
        "import resource, sys\n"
        "from beam_pipelines import documents, pack\n"
        f"job = pack.{job!r}\n"
        "(shard,) = documents.list_shards(job.corpus)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        f"pack.pack_shard(job, shard, {str(tmp_path / 'packed')!r}, 'k')\n"
        "print((peak() - before) // 1024)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    (facts,) = storage.read_json(str(tmp_path / f"packed/shards/{PART}.json"))["shards"]
    assert facts["num_tokens"] > 50_000_000
    assert int(result.stdout) < 150, "megabytes"


PART = "source/part-00000.parquet"


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_each_shard_tells_its_source_and_its_share_of_the_tokens(
    corpus: Corpus, tmp_path: Path, grouping: Grouping
) -> None:
    packed, _ = pack_all(corpus, tmp_path, grouping=grouping)
    assert sum(s.num_tokens for s in packed.shards) == packed.num_tokens
    assert sum(s.num_records for s in packed.shards) == packed.num_records
    by_language: Counter[str] = Counter()
    for shard in packed.shards:
        assert shard.num_records == num_records(shard.num_tokens, packed.sequence_length)
        assert shard.source == os.path.basename(shard.path).split("-part-")[0]
        by_language.update(shard.tokens_by_language)
        if grouping == "language_then_repository":
            assert list(shard.tokens_by_language) == [shard.language]
    assert dict(by_language) == packed.tokens_by_language
