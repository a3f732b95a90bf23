"""Policy and ranked selection: who is dropped and why, and the exact top of each language."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import KEY, PASS, ROWS, Corpus, hash_of, row

from beam_pipelines import select
from beam_pipelines.options import local_options
from snowcoder_jax import storage


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"), ROWS)


def test_the_first_failed_stage_is_the_reason_and_an_error_is_no_pass(tmp_path: Path) -> None:
    rows = [row("r", f"{n}.py", "Python", f"x = {n}  # é\n" * 9) for n in range(6)]
    rows.append(row("r", "gpl.py", "Python", "y = 1\n" * 9, "GPL-3.0-only"))
    rows.append(row("r", "none.py", "Python", "z = 1\n" * 9, ""))
    corpus = Corpus(tmp_path, rows, num_shards=1)
    rules = {
        "1.py": ("drop", "max_lines", 9.0, 8.0),
        "2.py": ("error", "crash", None, None),
        "4.py": ("drop", "short", 1.0, 2.0),
        "gpl.py": ("drop", "max_lines", 9.0, 8.0),
    }
    duplicates = {
        "1.py": ("drop", "exact", None, None),
        "3.py": (None, None, None, None),
        "5.py": ("drop", "near", 0.75, 0.7),
    }
    folder = corpus.policy(
        rules=lambda r: rules.get(r["path"], PASS),
        duplicates=lambda r: duplicates.get(r["path"], PASS),
    )
    by_id = {r["id"]: r for r in corpus.table(folder).to_pylist()}
    names = ["verdict", "stage", "rule", "value", "threshold", "split"]
    got = {r["path"]: tuple(by_id[r["id"]][n] for n in names) for r in rows}
    assert got == {
        "0.py": ("pass", None, None, None, None, "train"),
        "1.py": ("drop", "rules", "max_lines", 9.0, 8.0, None),
        "2.py": ("error", "rules", "crash", None, None, None),
        "3.py": ("error", "duplicates", "missing", None, None, None),
        "4.py": ("drop", "rules", "short", 1.0, 2.0, None),
        "5.py": ("drop", "duplicates", "near", 0.75, 0.7, None),
        "gpl.py": ("drop", "license", "GPL-3.0-only", None, None, None),
        "none.py": ("drop", "license", "unknown", None, None, None),
    }
    assert [by_id[r["id"]]["num_bytes"] for r in rows] == [len(r["content"].encode()) for r in rows]


def test_any_licence_is_taken_where_the_recipe_says_so() -> None:
    table = pa.table(
        [["a"], ["r"], ["GPL-3.0-only"], pa.array(["x"], pa.large_string())],
        names=["id", "repo", "license", "content"],
    )
    judged = pa.table(
        [["pass"], *[pa.nulls(1)] * 3], names=["verdict", "rule", "value", "threshold"]
    )
    values: dict[str, Any] = {"stages": ("rules",), "seed": 0, "heldout_share": 0.0}
    for permissive_only, verdict in ((True, "drop"), (False, "pass")):
        result = select.apply_policy(table, judged, permissive_only=permissive_only, **values)
        assert result["verdict"].to_pylist() == [verdict]


def test_whole_repositories_are_held_out(corpus: Corpus) -> None:
    table = corpus.table(corpus.policy(heldout_share=0.7)).to_pylist()
    splits: dict[str, set[str]] = {}
    repo_of = {r["id"]: r["repo"] for r in ROWS}
    for entry in table:
        splits.setdefault(repo_of[entry["id"]], set()).add(entry["split"])
    assert all(len(s) == 1 for s in splits.values())
    assert {s for group in splits.values() for s in group} == {"train", "heldout"}


def run_selection(
    corpus: Corpus, folder: Path, ranking: select.Ranking, score: Any = None
) -> tuple[dict[str, select.Cutoff], set[str]]:
    scores = None
    if score is not None:
        schema = pa.schema([("id", pa.string()), ("score", pa.float32())])
        scores = corpus.write("quality", schema, lambda r: {"id": r["id"], "score": score(r)})
    inputs = select.Inputs(corpus.root, corpus.policy(), corpus.tokens, scores)
    output = str(folder / "selection")
    cutoffs = select.run_selection(inputs, ranking, output=output, key=KEY, options=local_options())
    facts = storage.read_json(storage.join(output, "cutoffs.json"))
    assert [select.Cutoff(**f) for f in facts] == [cutoffs[name] for name in sorted(cutoffs)]
    return cutoffs, {r["id"] for r in corpus.table(output).to_pylist() if r["selected"]}


def test_the_best_of_each_language_up_to_its_budget(corpus: Corpus, tmp_path: Path) -> None:
    def score(r: dict[str, Any]) -> float | None:
        unscored = {"repo0": None, "repo1": float("nan")}
        return unscored.get(r["repo"], hash_of(r["id"]) / 2**64)

    def scored(language: str) -> list[dict[str, Any]]:
        rows = [r for r in ROWS if r["language"] == language]
        return [r for r in rows if r["repo"] not in ("repo0", "repo1")]

    ranking = select.Ranking("quality", 400, {}, 0, "best")
    cutoffs, chosen = run_selection(corpus, tmp_path, ranking, score)
    size = {r["id"]: r["num_tokens"] for r in corpus.table(corpus.tokens).to_pylist()}
    available = {name: sum(size[r["id"]] for r in scored(name)) for name in ("Python", "C")}
    for language, amount in available.items():
        budget = 400 * amount / sum(available.values())
        ranked = sorted(scored(language), key=lambda r: -np.float32(score(r)))
        expected, taken = [], 0
        for r in ranked:
            if taken + size[r["id"]] / 2 > budget:
                break
            expected.append(r)
            taken += size[r["id"]]
        assert {r["id"] for r in scored(language)} & chosen == {r["id"] for r in expected}
        cutoff = cutoffs[language]
        assert cutoff.size == taken > 0
        assert abs(taken - budget) <= max(size.values()) / 2
        assert cutoff.threshold == np.float32(score(expected[-1]))
        assert cutoff.percent_taken == pytest.approx(100 * taken / amount)
        assert (cutoff.num_documents, cutoff.available_size) == (len(expected), amount)
    assert not {r["id"] for r in ROWS if r["repo"] in ("repo0", "repo1")} & chosen


def test_a_random_draw_is_another_for_another_purpose_but_not_for_other_shards(
    corpus: Corpus, tmp_path: Path
) -> None:
    def draw(where: Corpus, purpose: str, name: str) -> set[str]:
        ranking = select.Ranking("random", 10, {}, 0, purpose, count_documents=True)
        cutoffs, chosen = run_selection(where, tmp_path / name, ranking)
        assert sum(c.num_documents for c in cutoffs.values()) == len(chosen)
        assert {c.threshold for c in cutoffs.values()} == {None}
        return chosen

    one = draw(corpus, "p", "a")
    other_shards = Corpus(tmp_path / "again", ROWS, num_shards=5)
    assert draw(other_shards, "p", "b") == one
    assert draw(corpus, "q", "c") != one
    assert 9 <= len(one) <= 11


def test_a_language_of_which_nothing_may_be_taken_is_not_in_the_way(tmp_path: Path) -> None:
    rows = [row("r", "x.py", "Python", "x = 1\n"), row("r", "x.c", "C", "int x;\n", "GPL-3.0-only")]
    corpus = Corpus(tmp_path, rows, num_shards=1)
    ranking = select.Ranking("natural", None, {"C": 0.9}, 0, "all")
    cutoffs, chosen = run_selection(corpus, tmp_path, ranking)
    assert (set(cutoffs), chosen) == ({"Python"}, {rows[0]["id"]})
    assert cutoffs["Python"].percent_taken == 100


# Few values, so that many are equal: of scores, of ids (the same document twice), of sizes.
document = st.tuples(
    st.sampled_from([0.0, 0.25, np.float32(0.1), 1.0, None]), st.integers(0, 4), st.integers(0, 9)
)


@given(
    st.lists(st.lists(document, max_size=12), min_size=1, max_size=4),
    st.one_of(st.integers(0, 40), st.floats(0, 200)),
)
def test_what_is_taken_is_the_exact_top_of_a_brute_force_sort(
    shards: list[list[tuple[float | None, int, int]]], budget: float
) -> None:
    ranking = select.Ranking("quality", 1, {}, 0, "best")
    tables = [
        (
            pa.table({"id": [f"d{i}" for _, i, _ in rows], "language": ["C"] * len(rows)}),
            pa.table({"split": pa.array(["train"] * len(rows), pa.string())}),
            pa.table(
                {
                    "verdict": pa.array(["pass"] * len(rows), pa.string()),
                    "num_tokens": pa.array([n for _, _, n in rows], pa.int32()),
                }
            ),
            pa.table({"score": pa.array([s for s, _, _ in rows], pa.float32())}),
        )
        for rows in shards
        if rows
    ]
    parts = []
    for documents, *besides in tables:
        mask, candidates = select.rank_rows(ranking, documents["id"], *besides)
        parts.append(candidates.taken(mask))
    if not parts:
        return
    cutoff = select.find_cutoff("C", parts, budget, by_score=True)
    marked = [
        select.mark(*table, ranking=ranking, cutoffs={"C": cutoff})["selected"].to_pylist()
        for table in tables
    ]

    everyone = [r for rows in shards for r in rows if r[0] is not None]
    hashes = {i: storage.seeded_hash(0, "best", f"d{i}") for i in range(5)}
    everyone.sort(key=lambda r: (-np.float32(r[0]), hashes[r[1]]))
    num_taken, taken = 0, 0
    for score, i, size in everyone:
        same = num_taken and (score, i) == everyone[num_taken - 1][:2]
        if taken + Fraction(size, 2) > Fraction(budget) and not same:
            break
        num_taken += 1
        taken += size
    assert (cutoff.num_documents, cutoff.size) == (num_taken, taken)
    assert sum(sum(m) for m in marked) == num_taken
    expected = sorted((np.float32(s), i, n) for s, i, n in everyone[:num_taken])
    rows = [
        r
        for rows, m in zip([r for r in shards if r], marked, strict=True)
        for r, taken_ in zip(rows, m, strict=True)
        if taken_
    ]
    assert sorted((np.float32(s), i, n) for s, i, n in rows) == expected
    assert cutoff.threshold == (everyone[num_taken - 1][0] if num_taken else None)


def candidates_of(*sizes: int) -> select.Candidates:
    n = len(sizes)
    ranks, ties = np.zeros(n, np.float32), np.arange(n, dtype=np.uint64)
    return select.Candidates(ranks, ties, np.array(sizes, np.int32))


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [
        ((100,), 49.9, 0),  # a large file is taken only if that is nearer to its due
        ((100,), 50.0, 1),
        ((3, 3, 3), 0.0, 0),
        ((3, 3, 3), 9.0, 3),
        ((3, 3, 3), 1e18, 3),
        ((2**31 - 1,) * 3, 2.0**40, 3),  # the sum does not fit 32 bits
    ],
)
def test_budgets_at_and_past_their_ends(
    sizes: tuple[int, ...], budget: float, expected: int
) -> None:
    cutoff = select.find_cutoff("C", [candidates_of(*sizes)], budget, by_score=False)
    assert (cutoff.num_documents, cutoff.size) == (expected, sum(sizes[:expected]))
    assert cutoff.available_size == sum(sizes)


@pytest.mark.parametrize(
    ("available", "shares", "expected"),
    [
        ({"Python": 80, "Java": 20}, {"Python": 0.5}, {"Python": 20, "Java": 20}),
        ({"Python": 20, "Java": 60, "C": 20}, {"Python": 0.5}, {"Python": 20, "Java": 15, "C": 5}),
        ({"Python": 80, "Java": 20}, {"Python": 0.6, "Java": 0.2}, {"Python": 60, "Java": 20}),
        ({"Python": 80, "Java": 20}, {"Python": 1.0}, {"Python": 80, "Java": 0}),
    ],
)
def test_shares_without_a_budget_take_as_much_as_keeps_them(
    available: dict[str, int], shares: dict[str, float], expected: dict[str, float]
) -> None:
    assert select.language_budgets(available, None, shares) == pytest.approx(expected)


def test_budgets_keep_the_named_share_and_the_others_in_proportion() -> None:
    available = {"Python": 100, "Java": 300, "C": 100}
    budgets = select.language_budgets(available, 200, {"Python": 0.5})
    assert budgets == {"Python": 100.0, "Java": 75.0, "C": 25.0}
    # A named language that is not there gives its share back.
    assert select.language_budgets({"C": 10}, 5, {"Python": 0.5}) == {"C": 5.0}
    # Where there is no other, all goes to those that are named.
    two = {"Python": 0.5, "C": 0.125}
    assert select.language_budgets({"Python": 10, "C": 9, "Java": 0}, 5, two) == {
        "Python": 4.0,
        "C": 1.0,
        "Java": 0.0,
    }
    assert select.language_budgets({"Python": 10}, 5, {"Python": 0.0}) == {"Python": 0.0}
    assert select.language_budgets(available, None, {}) == {
        k: float(v) for k, v in available.items()
    }
