"""Policy, ranked selection and packing on a small corpus made by hand."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from beam_pipelines import documents, pack, select, tokens
from beam_pipelines.documents import DOCUMENT_SCHEMA, VERDICT_FIELDS
from beam_pipelines.options import local_options
from snowcoder_jax import storage, tokenizer
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Record, decode_record, read_packed

KEY = "k"
SECRETS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        *VERDICT_FIELDS,
        (
            "spans",
            pa.list_(
                pa.struct([("start", pa.int32()), ("end", pa.int32()), ("kind", pa.string())])
            ),
        ),
    ]
)


def row(
    repo: str, path: str, language: str, content: str, license_id: str = "MIT"
) -> dict[str, Any]:
    identity = hashlib.sha256(f"{repo}\0{path}\0{content}".encode()).hexdigest()[:32]
    return {
        "id": identity,
        "repo": repo,
        "path": path,
        "language": language,
        "license": license_id,
        "stars": None,
        "content": content,
    }


ROWS = [
    row(f"repo{r}", f"dir/file{f}.{ext}", language, f"{ext} {r} {f}\n" + "word " * (5 + 7 * f + r))
    for r in range(6)
    for f, (ext, language) in enumerate([("py", "Python"), ("py", "Python"), ("c", "C")] * 2)
]


class Corpus:
    """A corpus folder with the columns that selection and packing read."""

    def __init__(self, root: Path, rows: list[dict[str, Any]], num_shards: int = 2) -> None:
        self.root = str(root)
        self.rows = sorted(rows, key=lambda r: (r["repo"], r["language"], r["path"]))
        self.parts = [
            [r for r in self.rows if hash_of(r["repo"]) % num_shards == shard]
            for shard in range(num_shards)
        ]
        self.write("documents", DOCUMENT_SCHEMA, lambda r: r)
        nothing = dict.fromkeys(("rule", "value", "threshold"))
        self.secrets = self.write(
            "secrets",
            SECRETS_SCHEMA,
            lambda r: {"id": r["id"], "verdict": "pass", "spans": [], **nothing},
        )
        self.tokenizer = storage.join(self.root, "tokenizer")
        tokenizer.train([Path(__file__).read_text()], 300, self.tokenizer)
        self.tokens = storage.join(self.root, "tokens")
        tokens.run(
            self.root,
            secrets=self.secrets,
            tokenizer=self.tokenizer,
            output=self.tokens,
            key=KEY,
            options=local_options(),
        )

    def write(self, name: str, schema: pa.Schema, column_of: Any) -> str:
        folder = storage.join(self.root, name)
        for number, part in enumerate(self.parts):
            table = pa.Table.from_pylist([column_of(r) for r in part], schema=schema)
            path = storage.join(folder, f"source/part-{number:05d}.parquet")
            documents.write_batches(path, schema, iter([table]), KEY)
        return folder

    def judge(self, name: str, verdict_of: Any) -> str:
        schema = pa.schema([("id", pa.string()), *VERDICT_FIELDS])
        return self.write(
            name,
            schema,
            lambda r: {"id": r["id"], **dict(zip(_VERDICT, verdict_of(r), strict=True))},
        )

    def policy(self, heldout_share: float = 0.0, **judges: Any) -> str:
        verdicts = {n: self.judge(n, f) for n, f in judges.items()}
        folder = storage.join(self.root, f"policy-{heldout_share}")
        select.run_policy(
            self.root,
            verdicts=verdicts or {"rules": self.judge("rules", lambda r: PASS)},
            permissive_only=True,
            seed=0,
            heldout_share=heldout_share,
            output=folder,
            key=KEY,
            options=local_options(),
        )
        return folder

    def table(self, folder: str) -> pa.Table:
        paths = storage.list_files(storage.join(folder, "source"), ".parquet")
        return pa.concat_tables([pq.read_table(p) for p in paths])


PASS = ("pass", None, None, None)
_VERDICT = [f.name for f in VERDICT_FIELDS]


def hash_of(text: str) -> int:
    return storage.seeded_hash(0, "shard", text)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"), ROWS)


def test_the_first_failed_stage_is_the_reason_and_an_error_is_no_pass(tmp_path: Path) -> None:
    rows = [row("r", f"{n}.py", "Python", f"x = {n}\n" * 9) for n in range(5)]
    rows.append(row("r", "gpl.py", "Python", "y = 1\n" * 9, "GPL-3.0-only"))
    rows.append(row("r", "none.py", "Python", "z = 1\n" * 9, ""))
    corpus = Corpus(tmp_path, rows, num_shards=1)
    rules = {"1.py": ("drop", "max_lines", 9.0, 8.0), "2.py": ("error", "crash", None, None)}
    duplicates = {"1.py": ("drop", "exact", None, None), "3.py": (None, None, None, None)}
    folder = corpus.policy(
        rules=lambda r: rules.get(r["path"], PASS),
        duplicates=lambda r: duplicates.get(r["path"], PASS),
    )
    by_id = {r["id"]: r for r in corpus.table(folder).to_pylist()}
    got = {r["path"]: by_id[r["id"]] for r in rows}
    assert (got["0.py"]["verdict"], got["0.py"]["split"]) == ("pass", "train")
    assert (got["1.py"]["stage"], got["1.py"]["rule"]) == ("rules", "max_lines")
    assert (got["1.py"]["value"], got["1.py"]["threshold"]) == (9.0, 8.0)
    assert (got["2.py"]["verdict"], got["2.py"]["stage"]) == ("error", "rules")
    assert (got["3.py"]["verdict"], got["3.py"]["rule"]) == ("error", "missing")
    assert (got["gpl.py"]["stage"], got["gpl.py"]["rule"]) == ("license", "GPL-3.0-only")
    assert (got["none.py"]["stage"], got["none.py"]["rule"]) == ("license", "unknown")
    assert all(got[p]["split"] is None for p in ("1.py", "2.py", "3.py", "gpl.py", "none.py"))


def test_whole_repositories_are_held_out(corpus: Corpus) -> None:
    table = corpus.table(corpus.policy(heldout_share=0.7)).to_pylist()
    splits: dict[str, set[str]] = {}
    repo_of = {r["id"]: r["repo"] for r in ROWS}
    for entry in table:
        splits.setdefault(repo_of[entry["id"]], set()).add(entry["split"])
    assert all(len(s) == 1 for s in splits.values())
    assert {s for group in splits.values() for s in group} == {"train", "heldout"}


def run_selection(
    corpus: Corpus, tmp_path: Path, ranking: select.Ranking, quality: Any = None
) -> Any:
    scores = None
    if quality is not None:
        schema = pa.schema([("id", pa.string()), ("score", pa.float32())])
        scores = corpus.write(
            f"quality-{tmp_path.name}", schema, lambda r: {"id": r["id"], "score": quality(r)}
        )
    inputs = select.Inputs(corpus.root, corpus.policy(), corpus.tokens, scores)
    output = str(tmp_path / "selection")
    cutoffs = select.run_selection(inputs, ranking, output=output, key=KEY, options=local_options())
    rows = corpus.table(output).to_pylist()
    return output, cutoffs, {r["id"] for r in rows if r["selected"]}


def test_the_best_of_each_language_up_to_its_budget(corpus: Corpus, tmp_path: Path) -> None:
    def score(r: dict[str, Any]) -> float | None:
        return None if r["repo"] == "repo0" else hash_of(r["id"]) / 2**64

    ranking = select.Ranking("quality", 400, {}, 0, "best")
    _, cutoffs, chosen = run_selection(corpus, tmp_path, ranking, score)
    size = {r["id"]: r["num_tokens"] for r in corpus.table(corpus.tokens).to_pylist()}
    available = {
        lang: sum(size[r["id"]] for r in ROWS if r["language"] == lang and r["repo"] != "repo0")
        for lang in ("Python", "C")
    }
    for language, amount in available.items():
        budget = 400 * amount / sum(available.values())
        scored = sorted(
            (np.float32(score(r)), r["id"])
            for r in ROWS
            if r["language"] == language and r["repo"] != "repo0"
        )[::-1]
        expected, taken = set(), 0
        for _, identity in scored:
            if taken + size[identity] / 2 > budget:
                break
            expected.add(identity)
            taken += size[identity]
        assert {r["id"] for r in ROWS if r["language"] == language} & chosen == expected
        assert cutoffs[language].size == taken > 0
        assert abs(taken - budget) <= max(size.values()) / 2
    assert not {r["id"] for r in ROWS if r["repo"] == "repo0"} & chosen


def test_a_random_draw_is_another_for_another_purpose_but_not_for_other_shards(
    corpus: Corpus, tmp_path: Path
) -> None:
    def draw(where: Corpus, purpose: str, name: str) -> set[str]:
        (tmp_path / name).mkdir()
        ranking = select.Ranking("random", 10, {}, 0, purpose, count_documents=True)
        chosen: set[str] = run_selection(where, tmp_path / name, ranking)[2]
        return chosen

    one = draw(corpus, "p", "a")
    other_shards = Corpus(tmp_path / "again", ROWS, num_shards=5)
    assert draw(other_shards, "p", "b") == one
    assert draw(corpus, "q", "c") != one
    assert 9 <= len(one) <= 11


def test_a_language_of_one_large_file_gets_it_only_if_that_is_nearer_its_due() -> None:
    part = ("C", np.zeros(1), np.zeros(1, np.uint64), np.array([100]))
    assert select.find_cutoff([part], 49.9).num_documents == 0
    assert select.find_cutoff([part], 50.0).num_documents == 1


def test_budgets_keep_the_named_share_and_the_others_in_proportion() -> None:
    available = {"Python": 100, "Java": 300, "C": 100}
    budgets = select.language_budgets(available, 200, {"Python": 0.5})
    assert budgets == {"Python": 100.0, "Java": 75.0, "C": 25.0}
    # A named language that is not there gives its share back.
    assert select.language_budgets({"C": 10}, 5, {"Python": 0.5}) == {"C": 5.0}
    assert select.language_budgets(available, None, {}) == {
        k: float(v) for k, v in available.items()
    }


def pack_all(corpus: Corpus, tmp_path: Path, **changes: Any) -> tuple[str, list[Record]]:
    ranking = select.Ranking("natural", None, {}, 0, "all")
    selection, _, _ = run_selection(corpus, tmp_path, ranking)
    values: dict[str, Any] = {
        "corpus": corpus.root,
        "tokens": corpus.tokens,
        "selection": selection,
        "tokenizer": corpus.tokenizer,
        "grouping": "language_then_repository",
        "metadata_share": 0.5,
        "sequence_length": 16,
        "seed": 0,
        **changes,
    }
    output = str(tmp_path / "packed")
    pack.run(pack.PackJob(**values), output=output, key=KEY, options=local_options())
    return output, [r for shard in read_packed(output).shards for r in read_records(shard.path)]


def read_records(path: str) -> list[Record]:
    reader = ArrayRecordReader(path)
    return [decode_record(r) for r in reader.read_all()]


@pytest.mark.parametrize(
    "grouping", ["language_then_repository", "repository", "repository_then_language", "file"]
)
def test_every_selected_token_is_a_target_once(
    corpus: Corpus, tmp_path: Path, grouping: str
) -> None:
    output, records = pack_all(corpus, tmp_path, grouping=grouping)
    packed = read_packed(output)
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
    assert packed.num_documents == len(ROWS)
    counts = sum(r["num_tokens"] for r in corpus.table(corpus.tokens).to_pylist())
    assert sum(packed.tokens_by_language.values()) == counts
    folders = {os.path.basename(os.path.dirname(s.path)) for s in packed.shards}
    assert folders == ({"python", "c"} if grouping == "language_then_repository" else {"all"})


def test_neighbouring_records_overlap_by_one_token_and_only_padding_is_masked(
    corpus: Corpus, tmp_path: Path
) -> None:
    output, _ = pack_all(corpus, tmp_path)
    packed = read_packed(output)
    for shard in packed.shards:
        records = read_records(shard.path)
        for before, after in zip(records, records[1:], strict=False):
            assert before.ids[-1] == after.ids[0]
            assert len(before.masked) == 0
        num_padded = sum(int(e - b) for b, e in records[-1].masked)
        assert num_padded < 17
    padded = sum(int(e - b) for s in packed.shards for b, e in read_records(s.path)[-1].masked)
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
    output, _ = pack_all(corpus, tmp_path)
    model = tokenizer.Tokenizer.load(corpus.tokenizer)
    content = {r["id"]: r["content"] for r in ROWS}
    for shard in read_packed(output).shards:
        records = read_records(shard.path)
        flat = np.concatenate([r.ids[:16] for r in records] + [records[-1].ids[16:]])
        sources = pq.read_table(shard.path.removesuffix(".array_record") + ".sources.parquet")
        for source in sources.to_pylist():
            start = source["record"] * 16 + source["position"]
            ids = flat[start : start + source["num_tokens"]]
            assert model.decode(ids.tolist()) == content[source["id"]]


def test_heads_bear_no_loss(corpus: Corpus, tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.string()), ("head_bytes", pa.int64())])
    heads = corpus.write("heads", schema, lambda r: {"id": r["id"], "head_bytes": 6})
    output, _ = pack_all(corpus, tmp_path, heads=heads, sequence_length=100_000)
    model = tokenizer.Tokenizer.load(corpus.tokenizer)
    for shard in read_packed(output).shards:
        (record,) = read_records(shard.path)
        *spans, _padding = record.masked.tolist()
        sources = pq.read_table(shard.path.removesuffix(".array_record") + ".sources.parquet")
        assert len(spans) == sources.num_rows
        for begin, end in spans:
            assert len(model.decode_bytes(record.ids[begin:end].tolist())) >= 6
            assert len(model.decode_bytes(record.ids[begin : end - 1].tolist())) < 6


def test_the_same_bytes_with_one_process_and_with_two(corpus: Corpus, tmp_path: Path) -> None:
    digests = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        ranking = select.Ranking("natural", None, {}, 0, "all")
        selection, _, _ = run_selection(corpus, folder, ranking)
        job = pack.PackJob(
            corpus.root, corpus.tokens, selection, corpus.tokenizer, "repository", 0.5, 16, 0
        )
        output = str(folder / "packed")
        pack.run(job, output=output, key=KEY, options=local_options(workers))
        digests.append([s.sha256 for s in read_packed(output).shards])
    assert digests[0] == digests[1]


def test_an_empty_selection_is_a_fault_with_a_mend(corpus: Corpus, tmp_path: Path) -> None:
    schema = select.SELECTION_SCHEMA
    empty = corpus.write("empty", schema, lambda r: {"id": r["id"], "selected": False})
    job = pack.PackJob(corpus.root, corpus.tokens, empty, corpus.tokenizer, "file", 0.5, 16, 0)
    with pytest.raises(InputError, match="selects no document"):
        pack.run(job, output=str(tmp_path / "p"), key=KEY, options=local_options())


def test_a_stage_redoes_only_what_is_missing(corpus: Corpus, tmp_path: Path) -> None:
    output = str(tmp_path / "tokens")
    values: dict[str, Any] = {
        "secrets": corpus.secrets,
        "tokenizer": corpus.tokenizer,
        "output": output,
        "key": KEY,
        "options": local_options(),
    }
    tokens.run(corpus.root, **values)
    paths = storage.list_files(output, ".parquet")
    before = {p: os.stat(p).st_mtime_ns for p in paths}
    os.unlink(paths[0] + storage.MANIFEST_SUFFIX)
    tokens.run(corpus.root, **values)
    after = {p: os.stat(p).st_mtime_ns for p in paths}
    assert after[paths[0]] != before[paths[0]]
    assert {p: after[p] for p in paths[1:]} == {p: before[p] for p in paths[1:]}
