"""How synthetic documents differ from selected ones: right figures, from samples that are drawn
the same whatever the shards, and a picture of them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import add_synthesis

from beam_pipelines import documents
from beam_pipelines.texts import Mask
from snowcoder_jax.languages import LANGUAGES
from snowcoder_jax.progress import Progress
from snowcoder_jax.reports import page
from snowcoder_jax.reports.inspect_run import open_run
from snowcoder_jax.reports.synthesis_comparison import (
    METRICS,
    Facts,
    Sampled,
    Side,
    compare,
    python_modules,
)
from snowcoder_jax.steps import comparison
from snowcoder_jax.steps.builder import Builder

MakeRun = Callable[..., str]

CODE = '''"""Counts things."""
import os
from collections.abc import Mapping

# This part says in words what it does.
class Counter:
    def add(self, name):
        return name

def total(counts):  # x = counts(1, 2)
    return sum(counts)
'''


def sampled(
    text: str, order: float = 0.5, language: str = "Python", score: float | None = None
) -> Sampled:
    return Sampled(order, "a.py", language, text, len(text.split()), score)


def side_of(name: str, texts: Sequence[str]) -> Side:
    side = Side(name, 100)
    for i, text in enumerate(texts):
        side.add(sampled(text, i / 1_000))
    return side


def figures(document: Sampled) -> dict[str, float]:
    side = Side("one", 1)
    side.add(document)
    return {metric: float(v[0]) for metric in METRICS if len(v := side.values(metric))}


def test_the_figures_of_a_document() -> None:
    found = figures(sampled(CODE, score=0.25))
    comments = (
        len('"""Counts things."""')
        + len("# This part says in words what it does.")
        + len("# x = counts(1, 2)")
    )
    prose = len("This part says in words what it does")
    assert found == {
        "bytes": len(CODE),
        "lines": 11,
        "tokens": len(CODE.split()),
        "documentation": pytest.approx(comments / len(CODE)),
        "natural_language": pytest.approx(prose / len(CODE)),
        "functions": 2,
        "classes": 1,
        "imports": 2,
        "parses": 1,
        "score": 0.25,
    }


def test_what_does_not_parse_is_measured_all_the_same() -> None:
    assert figures(sampled("def f(:\n"))["parses"] == 0
    too_deep = figures(sampled("(" * 1_000))
    assert too_deep["parses"] == 0
    assert "functions" not in too_deep  # no tree
    assert too_deep["bytes"] == 1_000
    assert figures(sampled(""))["documentation"] == 0
    assert "score" not in figures(sampled("x = 1\n"))


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), max_size=200),
    st.sampled_from([language.name for language in LANGUAGES]),
)
def test_any_text_of_any_language_can_be_measured(text: str, language: str) -> None:
    found = figures(sampled(text, language=language))
    for metric in ("documentation", "natural_language", "parses"):
        assert 0 <= found[metric] <= 1


def test_modules_are_those_that_are_imported() -> None:
    code = b"""
import os, numpy.linalg as la
import json  ; x = 1
from a.b import c
from . import near
  from inner import y
text = "import nothing"
important = 1
"""
    assert python_modules(code) == {"os", "numpy", "json", "a", "inner"}


def test_differences_have_a_sign_an_interval_and_a_share_of_pairs() -> None:
    short = side_of("synthetic", [f"x = {i}\n" for i in range(20)])
    long = side_of("selected", ["y = 1\n" * (20 + i) for i in range(20)])
    found = compare([short, long], 0, {})["differences"]
    assert found["lines"]["difference"] == pytest.approx(1 - 29.5)
    assert found["lines"]["low"] < 1 - 29.5 < found["lines"]["high"] < 0
    assert found["lines"]["larger"] == 0
    assert compare([long, short], 0, {})["differences"]["lines"]["larger"] == 1
    same = compare([short, side_of("selected", [f"x = {i}\n" for i in range(20)])], 0, {})
    assert same["differences"]["bytes"]["larger"] == 0.5
    assert same["differences"]["bytes"]["low"] <= 0 <= same["differences"]["bytes"]["high"]
    assert same["differences"]["functions"]["difference"] == 0


def test_histograms_count_every_document_once() -> None:
    texts = ["", "import os\n" * 3, "x = 1\n" * 4_000, CODE]
    found = compare([side_of("synthetic", texts), side_of("selected", [CODE])], 0, {})
    for side, num in (("synthetic", 4), ("selected", 1)):
        for metric, edges in found["edges"].items():
            counts = found["sides"][side]["figures"][metric]["counts"]
            assert sum(counts) == num
            assert len(edges) == len(counts) + 1
            assert edges == sorted(set(edges))
    # The zeros have a bin to themselves.
    imports = found["sides"]["synthetic"]["figures"]["imports"]["counts"]
    assert imports[0] == 2


def test_repetition_and_vocabulary() -> None:
    rng = random.Random(0)
    words = [f"word{i}" for i in range(3_000)]
    varied = [" ".join(rng.sample(words, 200)) for _ in range(10)]
    copies = [" ".join(words[:200])] * 10
    found = compare([side_of("synthetic", copies), side_of("selected", varied)], 0, {})["sides"]
    assert found["synthetic"]["repeated_share"] == 1
    assert found["selected"]["repeated_share"] < 0.05
    assert found["synthetic"]["vocabulary"]["words"] == 2_000
    assert found["synthetic"]["vocabulary"]["distinct"] == 200
    assert found["selected"]["vocabulary"]["distinct"] > 1_000
    assert found["selected"]["vocabulary"]["not_in_second_share"] == 0
    # A side of many more words has no larger vocabulary for that.
    more = side_of("selected", copies * 20)
    found = compare([side_of("synthetic", copies), more], 0, {})["sides"]
    assert found["selected"]["vocabulary"] == found["synthetic"]["vocabulary"]


def test_the_order_of_the_documents_has_no_say() -> None:
    texts = [CODE, "x = 1\n", "import os\n\n\ndef f():\n    return os\n", "y = 2\n" * 9]
    entries = [sampled(text, i / 10, score=i / 10) for i, text in enumerate(texts)]

    def result(order: Sequence[int]) -> Facts:
        sides = [Side("synthetic", 4), Side("selected", 4)]
        for side in sides:
            for i in order:
                side.add(entries[i])
        return compare(sides, 7, {})

    assert result([0, 1, 2, 3]) == result([3, 1, 0, 2])


def test_a_side_without_documents() -> None:
    found = compare([Side("synthetic", 0), side_of("selected", [CODE])], 0, {})
    assert found["sides"]["synthetic"]["figures"]["bytes"] == {"num": 0}
    assert found["sides"]["synthetic"]["repeated_share"] is None
    assert found["differences"] == {}
    html = page.render({"synthesis": {"comparison": found}})
    assert "not measured" in html


def _all_but_every_tenth(shard: documents.Shard) -> Mask:
    table = pq.read_table(f"{shard.documents}/{shard.relative}", columns=["take"])
    return np.asarray(table["take"].to_numpy(), np.bool_)


def test_the_draw_does_not_depend_on_the_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language_of = {f"{i:04d}": "Python" if i % 4 else "Go" for i in range(200)}
    rows = [
        {"id": identity, "language": language, "take": i % 10 != 0}
        for i, (identity, language) in enumerate(language_of.items())
    ]

    def drawn(num_shards: int, quotas: dict[str, int] | None, seed: int = 0) -> dict[str, float]:
        folder = tmp_path / f"{num_shards}"
        (folder / "documents/code").mkdir(parents=True, exist_ok=True)
        for k in range(num_shards):
            path = folder / f"documents/code/part-{k:05d}.parquet"
            pq.write_table(pa.Table.from_pylist(rows[k::num_shards]), path)
        found, num_documents = comparison.draw(str(folder), _all_but_every_tenth, quotas, seed)
        assert num_documents == 180
        return found

    order = drawn(1, None)
    assert len(order) == 180
    assert not {row["id"] for row in rows if not row["take"]} & set(order)
    monkeypatch.setattr(comparison, "NUM_DOCUMENTS", 20)
    smallest = sorted(order, key=lambda i: order[i])
    assert drawn(1, None) == drawn(7, None) == {i: order[i] for i in smallest[:20]}
    assert set(drawn(1, None, seed=1)) != set(smallest[:20])
    quotas = {"Go": 3, "Python": 5, "Rust": 9}
    expected = {
        i
        for language, size in quotas.items()
        for i in [i for i in smallest if language_of[i] == language][:size]
    }
    assert set(drawn(7, quotas)) == expected
    assert len(expected) == 8


def test_a_run_is_compared_by_what_its_stages_kept(make_run: MakeRun) -> None:
    run = open_run(add_synthesis(make_run(overrides=("synthesis.seeds=best",))))
    b = Builder(run.recipe)
    b.named.update(run.folders)
    facts = comparison.compare(b, Progress("comparison"))
    sides = facts["sides"]
    assert facts["seeds"] == "best"
    assert sides["synthetic"]["languages"] == {"Python": 2, "Go": 1}
    assert (sides["synthetic"]["documents"], sides["synthetic"]["sampled"]) == (3, 3)
    assert sides["selected"]["documents"] == 2
    assert sides["selected"]["languages"] == {"Python": 2}
    # Of the corpus what may be trained on; without a document in another language.
    assert sides["corpus"]["documents"] == 7
    assert set(sides["corpus"]["languages"]) == {"Python", "Go"}
    assert 0 < sides["synthetic"]["given_share"] < 1
    assert sides["selected"]["given_share"] == 0
    # The copies were judged by the stages; the corpus has two of sixteen.
    assert sides["synthetic"]["duplicates"] == {"documents": 6, "dropped": 1}
    assert sides["corpus"]["duplicates"] == {"documents": 16, "dropped": 2}
    # Scores were measured for the corpus; here no annotator scores the synthetic ones.
    assert sides["selected"]["figures"]["score"]["mean"] == pytest.approx(0.7)
    assert sides["synthetic"]["figures"]["score"] == {"num": 0}
    assert sides["synthetic"]["modules"]["share_of_files"]["heapq"] == 0.5
    # What is learnt from is compared, not what a secret was.
    assert "corp-mail" not in str(facts)


def test_the_page_has_the_table_the_picture_and_a_sentence(make_run: MakeRun) -> None:
    synthetic = side_of("synthetic", [CODE * 3 + f"x = {i}\n" for i in range(30)])
    selected = side_of("selected", [f"import sys\nx = {i}\n" for i in range(30)])
    corpus = side_of("corpus", [f"import re\ny = {i}\n" for i in range(30)])
    facts = compare([synthetic, selected, corpus], 0, {"corpus": {"documents": 50, "dropped": 5}})
    report = {"synthesis": {"requests": 9, "comparison": {"seeds": "best", **facts}}}
    html = page.render(report)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert "30 of 100 synthetic documents, 30 of 100 selected documents" in text
    assert "the selection is “best”" in text
    assert "Against selected files they are, in the mean, longer, more documented" in text
    assert "of fewer" not in text
    assert 'aria-label="Distributions of tokens a file, ' in html
    assert "annotator's score by side" not in html  # nothing was scored
    row = re.search(r"<tr><th[^>]*><span>functions a file</span>.*?</tr>", html)
    assert row is not None
    assert "+6" in row.group()
    assert "100%" in row.group()  # of the pairs
    assert "10%" in html  # duplicates of the corpus
    assert "<code>collections</code>" in html
    assert page.render(report) == html


def test_of_few_documents_nothing_is_put_in_words() -> None:
    def told(num_documents: int) -> str:
        sides = [
            side_of("synthetic", [CODE * 3] * num_documents),
            side_of("selected", ["x = 1\n"] * 30),
        ]
        facts = compare(sides, 0, {})
        return page.render({"synthesis": {"requests": 9, "comparison": facts}})

    assert "Against selected files" in told(30)
    assert "Against selected files" not in told(29)
