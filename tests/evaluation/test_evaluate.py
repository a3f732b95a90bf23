"""Whole evaluations of a tiny untrained model, the n-gram beside it, and their comparison."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from snowcoder_jax import recipe, recipe_corpus, tokenizer
from snowcoder_jax.errors import InputError
from snowcoder_jax.evaluation import evaluate as evaluation
from snowcoder_jax.evaluation import sandbox
from snowcoder_jax.evaluation.evaluate import HeldoutDocument, compare, evaluate, evaluate_ngram
from snowcoder_jax.evaluation.problems import Problem, load_problems
from snowcoder_jax.model import decoder

RECIPE = recipe.Recipe(
    name="tiny",
    sources=(recipe_corpus.InstalledSource("installed"),),
    selections=(),
    phases=(),
    model=recipe.Model(
        hidden_dim=16, mlp_dim=24, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=8,
        max_sequence_length=64,
    ),
    evaluation=recipe.Evaluation(
        min_language_bytes=400, max_new_tokens=8, sandbox=recipe.Sandbox(seconds=20.0)
    ),
    hardware=recipe.Hardware(compute_dtype="float32"),
)  # fmt: skip
HELDOUT = [
    HeldoutDocument(f"id{i}", "repo", language, f"def function_{i}(x):\n    return x\n" * repeat)
    for i, (language, repeat) in enumerate([("Python", 20), ("C", 3), ("Python", 1), ("Python", 0)])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    tokenizer.train([p.solution for p in load_problems()], 300, folder)
    return folder


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "evaluations" / "general.json"
    seen = []
    result = evaluate(
        RECIPE,
        decoder.init_params(RECIPE.model, 300, seed=0),
        tokenizer_folder=folder,
        heldout=HELDOUT,
        output=str(output),
        on_progress=lambda done, total, note: seen.append((done, total, note)),
    )
    assert json.loads(output.read_text()) == result
    percents = [done for done, _, _ in seen]
    assert percents == sorted(percents)
    assert percents[-1] in (99, 100)
    assert [*dict.fromkeys(note for *_, note in seen)][:2] == ["held-out code", "solutions"]
    return result


def test_figures_follow_from_the_bits_of_each_document(result):
    by_document = result["document_bits"]
    bits, sizes = np.array(by_document["bits"]), np.array(by_document["bytes"])
    assert by_document["ids"] == ["id0", "id1", "id2", "id3"]
    assert sizes.tolist() == [len(d.text) for d in HELDOUT]
    assert bits[3] == 0.0
    assert result["heldout_bits_per_byte"]["all"] == pytest.approx(bits.sum() / sizes.sum())
    python = bits[[0, 2, 3]].sum() / sizes[[0, 2, 3]].sum()
    assert result["heldout_bits_per_byte"]["Python"] == pytest.approx(python)
    assert result["heldout_bits_per_byte"]["C"] is None
    assert result["heldout_bytes"]["C"] == sizes[1]
    # Untrained: near the entropy of a uniform choice among 300 tokens of a byte or more.
    assert 0.5 < result["heldout_bits_per_byte"]["all"] < math.log2(300) * 1.1


def test_solutions_are_counted_on_their_own_bytes(result):
    problems = load_problems()
    solutions = result["solution_bits"]
    assert solutions["ids"] == [p.name for p in problems]
    assert solutions["bytes"] == [len(p.solution.encode()) for p in problems]
    expected = sum(solutions["bits"]) / sum(solutions["bytes"])
    assert result["solutions_bits_per_byte"] == pytest.approx(expected)
    assert 0.5 < expected < math.log2(300) * 1.1


def test_the_harness_judges_references_and_mutants_as_it_judges_the_model(result):
    reason = sandbox.availability()
    if reason is not None:
        pytest.skip(reason)
    problems = load_problems()
    assert result["references"] == {"passed": len(problems), "total": len(problems), "failed": []}
    num_mutants = sum(len(p.mutants) for p in problems)
    assert result["mutants"] == {"failed": num_mutants, "total": num_mutants, "survived": []}
    assert result["harness_ok"] is True
    model = result["pass_at_1"]
    assert (model["status"], model["reason"]) == ("run", None)
    assert (model["passed"], model["total"]) == (0, len(problems))
    assert set(model["outcomes"]) == {p.name for p in problems}
    assert [set(sample) for sample in model["samples"]] == [{"name", "completion", "outcome"}] * 5
    assert set(result["seconds"]) == {
        "held-out code",
        "solutions",
        "completions",
        "programs",
        "references and mutants",
    }


def test_a_broken_harness_is_said_loudly():
    reason = sandbox.availability()
    if reason is not None:
        pytest.skip(reason)
    good = Problem("good", "def f():", "\n    return 1\n", "assert f() == 1", ("\n    return 2\n",))
    wrong = Problem("wrong", "def f():", "\n    return 1\n", "assert f() == 3", ())
    loose = Problem("loose", "def f():", "\n    return 1\n", "f()", ("\n    0/0", "\n    return 2"))
    harness = evaluation.check_harness([good, wrong, loose], RECIPE.evaluation.sandbox)
    assert harness == {
        "references": {"passed": 2, "total": 3, "failed": ["wrong: exit 1: AssertionError"]},
        "mutants": {"failed": 2, "total": 3, "survived": ["loose[1]"]},
        "harness_ok": False,
    }


def test_without_a_sandbox_the_rest_goes_on(folder, tmp_path):
    """In a process that may not make namespaces, as in many containers."""
    script = f"""
import platform, sys
from snowcoder_jax.evaluation import sandbox_child, sandbox_filter
sandbox_child.prctl("x", sandbox_child.PR_SET_NO_NEW_PRIVS, 1)
sandbox_child.refuse_system_calls(sandbox_filter.filter_program(platform.machine()))
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_evaluate as t
from snowcoder_jax.model import decoder
result = t.evaluate(
    t.RECIPE, decoder.init_params(t.RECIPE.model, 300, seed=0), tokenizer_folder={folder!r},
    heldout=t.HELDOUT, output={str(tmp_path / "e.json")!r},
)
"""
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=True)
    result = json.loads((tmp_path / "e.json").read_text())
    assert result["heldout_bits_per_byte"]["all"] > 0
    assert result["solutions_bits_per_byte"] > 0
    assert result["harness_ok"] is None
    model = result["pass_at_1"]
    assert (model["status"], model["passed"], model["samples"]) == ("not run", None, [])
    assert "a user namespace was refused" in model["reason"]
    assert result["references"]["passed"] is result["mutants"]["failed"] is None


def test_the_ngram_is_measured_on_the_same_and_can_be_compared(result, tmp_path):
    training = [d.data() for d in HELDOUT[:1]]
    baseline = evaluate_ngram(RECIPE, training, heldout=HELDOUT, output=str(tmp_path / "n.json"))
    assert json.loads((tmp_path / "n.json").read_text()) == baseline
    assert baseline["training_bytes"] == len(HELDOUT[0].data())
    assert baseline["heldout_bytes"] == result["heldout_bytes"]
    # It knows this text by heart, the untrained model nothing.
    assert baseline["heldout_bits_per_byte"]["all"] < result["heldout_bits_per_byte"]["all"]
    difference = compare(baseline, result, samples=200, seed=0)
    assert difference["heldout"]["low"] <= difference["heldout"]["difference"] < 0
    expected = baseline["solutions_bits_per_byte"] - result["solutions_bits_per_byte"]
    assert difference["solutions"]["difference"] == pytest.approx(expected)
    assert difference["solutions"]["documents"] == len(load_problems())
    back = compare(result, baseline, samples=200, seed=0)
    assert back["heldout"]["high"] == pytest.approx(-difference["heldout"]["low"])


def test_what_was_measured_on_other_documents_is_not_compared(result, tmp_path):
    other = evaluate_ngram(RECIPE, [b"x"], heldout=HELDOUT[1:], output=str(tmp_path / "n.json"))
    with pytest.raises(InputError, match="not made on the same documents"):
        compare(result, other, samples=10, seed=0)


def test_heldout_is_a_seeded_draw_within_the_bytes():
    documents = [HeldoutDocument(f"d{i}", "r", "C", "x" * (i % 7)) for i in range(100)]
    chosen = evaluation.choose_heldout(documents, 100, seed=1)
    assert chosen == evaluation.choose_heldout(documents[::-1], 100, seed=1)
    assert chosen != evaluation.choose_heldout(documents, 100, seed=2)
    assert 90 < sum(len(d.text) for d in chosen) <= 100
    assert [d.id for d in chosen] == sorted(d.id for d in chosen)
    assert len(evaluation.choose_heldout(documents, 10**9, seed=1)) == 100
    assert evaluation.choose_heldout([], 10, seed=1) == []


def test_a_broken_model_is_refused(folder, tmp_path):
    params = decoder.init_params(RECIPE.model, 300, seed=0)
    params["final_norm"] = params["final_norm"] * np.nan
    with pytest.raises(InputError, match="not finite"):
        evaluate(
            RECIPE, params, tokenizer_folder=folder, heldout=HELDOUT, output=str(tmp_path / "e")
        )
    assert not (tmp_path / "e").exists()
