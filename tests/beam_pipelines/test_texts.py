"""Clean text of chosen documents, for one process."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from small_corpus import Corpus, row

from beam_pipelines import texts
from beam_pipelines.documents import ROW_GROUP_ROWS, Shard

NUM_ROWS = ROW_GROUP_ROWS + 90


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    email = {"start": 2, "end": 15, "kind": "email"}
    rows = [
        row("r", f"{i:05d}.py", "Python", f"# a@example.org {i}\n") | {"spans": [email]}
        for i in range(NUM_ROWS)
    ]
    broken = row("r", "99999.ipynb", "Jupyter Notebook", "{")
    return Corpus(tmp_path_factory.mktemp("corpus"), [*rows, broken], num_shards=1)


def test_the_chosen_documents_come_clean_and_in_order(corpus: Corpus) -> None:
    chosen = np.arange(NUM_ROWS + 1) % 7 == 0
    # Rows are sorted by language: the broken notebook is the first.
    assert corpus.rows[0]["path"].endswith("ipynb") and chosen[0]
    found = list(texts.read_texts(corpus.root, corpus.secrets, lambda shard: chosen))
    assert [(d.id, d.path, d.license) for d in found] == [
        (r["id"], r["path"], "MIT") for r in corpus.rows[7::7]
    ]
    assert [d.text for d in found] == [f"# <EMAIL_1> {i}\n" for i in range(6, NUM_ROWS, 7)]


def test_a_sample_is_a_seeded_share_of_what_was_chosen(corpus: Corpus) -> None:
    def draw(seed: int, share: float) -> set[int]:
        choose = texts.sampled(
            lambda shard: np.arange(NUM_ROWS + 1) < 500,
            corpus.root,
            share=share,
            seed=seed,
            purpose="p",
        )
        return set(np.flatnonzero(choose(Shard(f"{corpus.root}/documents", PART))).tolist())

    assert draw(0, 0.3) == draw(0, 0.3) != draw(1, 0.3)
    assert draw(0, 0.0) == set()
    assert draw(0, 1.0) == set(range(500))
    assert 100 < len(draw(0, 0.3)) < 200


PART = "source/part-00000.parquet"


def test_bytes_and_values_are_those_of_one_side_of_the_split(corpus: Corpus) -> None:
    policy = corpus.policy()
    sizes = sum(len(r["content"].encode()) for r in corpus.rows)
    assert texts.total_bytes(corpus.root, policy, "train") == sizes
    assert texts.total_bytes(corpus.root, policy, "heldout") == 0
    schema = pa.schema([("id", pa.string()), ("score", pa.float32())])
    folder = corpus.write(
        "scores", schema, lambda r: {"id": r["id"], "score": r.get("spans") and 0.5}
    )
    values = texts.values_by_id(folder, corpus.root, "score")
    assert values == {r["id"]: 0.5 for r in corpus.rows if r.get("spans")}
