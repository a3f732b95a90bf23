"""One evaluation of one checkpoint: bits per byte and greedy pass@1, and two of them compared.

The held-out code, the solutions given their prompts, and the shipped problems run in the sandbox
(arXiv 2409.02326, section 4). What judges the model is judged in the same run: every reference
solution must pass and every broken mutant must fail, through the path that the model's own
completions take.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.evaluation import sandbox, scores
from snowcoder_jax.evaluation.ngram import ByteNgram
from snowcoder_jax.evaluation.problems import Problem, complete, load_problems
from snowcoder_jax.evaluation.sampler import Sampler
from snowcoder_jax.model.decoder import Params
from snowcoder_jax.recipe import Recipe
from snowcoder_jax.recipe import Sandbox as Limits
from snowcoder_jax.tokenizer import FILE_SEP, REPO_NAME, Tokenizer

NUM_SAMPLES = 5
OnProgress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class HeldoutDocument:
    """A document that no phase was trained on."""

    id: str
    repo: str
    language: str
    text: str

    def data(self) -> bytes:
        return self.text.encode("utf-8", "surrogatepass")


class Scorer(Protocol):
    """Bits of each text, float64 [number of texts], given the text before it."""

    def __call__(self, texts: Sequence[str], given: Sequence[str]) -> npt.NDArray[np.float64]: ...


def choose_heldout(
    documents: Sequence[HeldoutDocument], max_bytes: int, seed: int
) -> list[HeldoutDocument]:
    """A seeded draw of whole documents of at most `max_bytes` in all, in the order of their ids.

    The same for any order of `documents`; a document that no longer fits is passed over.
    """
    drawn = sorted(documents, key=lambda d: (storage.seeded_hash(seed, "heldout", d.id), d.id))
    chosen, left = [], max_bytes
    for document in drawn:
        size = len(document.data())
        if size <= left:
            chosen.append(document)
            left -= size
    return sorted(chosen, key=lambda d: d.id)


def evaluate(
    recipe: Recipe,
    params: Params,
    *,
    tokenizer_folder: str,
    heldout: Sequence[HeldoutDocument],
    output: str,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint; write `output` (JSON) and return what it holds.

    Returns:
      `heldout_bits_per_byte` and `heldout_bytes` ({all, <language>}; None where a language has
      too few bytes), `solutions_bits_per_byte`, `document_bits` and `solution_bits` (ids or names,
      bytes, bits: for `compare`), `pass_at_1`, `references`, `mutants`, `harness_ok` (False where
      a reference fails or a mutant passes, None where nothing was run), `seconds`.

    Raises:
      InputError: the model's losses are not finite, which no restart can mend.
      MachineError: the sandbox broke down while running.
    """
    steps = _Steps(on_progress)
    tokenizer = Tokenizer.load(tokenizer_folder)

    def score(texts: Sequence[str], given: Sequence[str]) -> npt.NDArray[np.float64]:
        before = tokenizer.encode_batch(given)
        own = tokenizer.encode_batch(texts)
        bits = scores.document_bits(
            params,
            recipe.model,
            tokenizer.vocab_size,
            [a + b for a, b in zip(before, own, strict=True)],
            num_given=[len(a) for a in before],
            # What stands before a file's text in training, too.
            start_id=tokenizer.special(FILE_SEP),
            sequence_length=recipe.model.max_sequence_length,
            batch_size=recipe.evaluation.batch_size,
            compute_dtype=recipe.hardware.compute_dtype,
            loss_chunk_tokens=recipe.hardware.loss_chunk_tokens,
            on_progress=steps.advance,
        )
        if not np.isfinite(bits).all():
            raise InputError(
                "the model's losses on held-out code are not finite. Its training broke down: "
                "lower the phase's schedule.peak and train it again."
            )
        return bits

    problems = load_problems()
    result = _score_all(recipe, score, heldout, problems, steps)
    sampler = Sampler(
        params,
        recipe.model,
        tokenizer.vocab_size,
        compute_dtype=recipe.hardware.compute_dtype,
    )
    result |= _solve(recipe, sampler, tokenizer, problems, steps)
    result["seconds"] = steps.seconds
    storage.write_json(output, result)
    return result


def evaluate_ngram(
    recipe: Recipe,
    training: Sequence[bytes],
    *,
    heldout: Sequence[HeldoutDocument],
    output: str,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """The yardstick: a byte n-gram trained on `training`, with the scores that `evaluate` gives.

    Returns:
      `evaluate`'s scores, of the same documents, and `training_bytes`.
    """
    model = ByteNgram(recipe.evaluation.ngram_order)
    model.train(training)

    def score(texts: Sequence[str], given: Sequence[str]) -> npt.NDArray[np.float64]:
        before = [t.encode("utf-8", "surrogatepass") for t in given]
        both = [a + t.encode("utf-8", "surrogatepass") for a, t in zip(before, texts, strict=True)]
        return model.document_bits(both) - model.document_bits(before)

    steps = _Steps(on_progress)
    result = _score_all(recipe, score, heldout, load_problems(), steps)
    result["training_bytes"] = sum(len(document) for document in training)
    result["seconds"] = steps.seconds
    storage.write_json(output, result)
    return result


def _score_all(
    recipe: Recipe,
    score: Scorer,
    heldout: Sequence[HeldoutDocument],
    problems: Sequence[Problem],
    steps: _Steps,
) -> dict[str, Any]:
    heldout = choose_heldout(heldout, recipe.evaluation.max_heldout_bytes, recipe.seed)
    with steps.step("held-out code", 60):
        bits = score([d.text for d in heldout], [""] * len(heldout))
    sizes = np.array([len(d.data()) for d in heldout], np.int64)
    languages = [d.language for d in heldout]
    minimum = recipe.evaluation.min_language_bytes
    by_language, language_bytes = scores.by_language(bits, sizes, languages, minimum)
    with steps.step("solutions", 5):
        solution_bits = score([p.solution for p in problems], [p.prompt for p in problems])
    solution_bytes = [len(p.solution.encode()) for p in problems]
    return {
        "heldout_bits_per_byte": by_language,
        "heldout_bytes": language_bytes,
        "solutions_bits_per_byte": scores.bits_per_byte(solution_bits, solution_bytes),
        "document_bits": {
            "ids": [d.id for d in heldout],
            "languages": languages,
            "bytes": sizes.tolist(),
            "bits": bits.tolist(),
        },
        "solution_bits": {
            "ids": [p.name for p in problems],
            "bytes": solution_bytes,
            "bits": solution_bits.tolist(),
        },
    }


def _solve(
    recipe: Recipe,
    sampler: Sampler,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    steps: _Steps,
) -> dict[str, Any]:
    """Greedy pass@1 with its two controls, or why it was not run."""
    reason = sandbox.availability()
    if reason is not None:
        total = len(problems)
        return {
            "pass_at_1": {
                "passed": None, "total": total, "status": "not run", "reason": reason, "samples": []
            },
            "references": {"passed": None, "total": total, "failed": []},
            "mutants": {"failed": None, "total": sum(len(p.mutants) for p in problems),
                        "survived": []},
            "harness_ok": None,
        }  # fmt: skip
    with steps.step("completions", 25):
        completions = _completions(recipe, sampler, tokenizer, problems, steps)
    programs = [complete(p, text) for p, text in zip(problems, completions, strict=True)]
    limits = recipe.evaluation.sandbox
    with steps.step("programs", 3):
        outcomes = sandbox.run_programs(programs, limits, steps.advance)
    with steps.step("references and mutants", 7):
        harness = check_harness(problems, limits, steps.advance)
    samples = [
        {"name": p.name, "completion": text, "outcome": outcome.reason}
        for p, text, outcome in zip(problems, completions, outcomes, strict=True)
    ]
    samples.sort(key=lambda sample: sample["outcome"] != "passed")
    return {
        "pass_at_1": {
            "passed": sum(outcome.passed for outcome in outcomes),
            "total": len(outcomes),
            "status": "run",
            "reason": None,
            "outcomes": {p.name: o.reason for p, o in zip(problems, outcomes, strict=True)},
            "samples": samples[:NUM_SAMPLES],
        },
        **harness,
    }


def _completions(
    recipe: Recipe,
    sampler: Sampler,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    steps: _Steps,
) -> list[str]:
    """What the model writes after each prompt, greedily, up to the end of the file."""
    window = recipe.model.max_sequence_length
    max_new_tokens = min(recipe.evaluation.max_new_tokens, window // 2)
    # A prompt that leaves no room for an answer loses its head: the signature's end matters most.
    room = window - max_new_tokens - 1
    prompts = [
        [tokenizer.special(FILE_SEP), *ids[-room:]]
        for ids in tokenizer.encode_batch([p.prompt for p in problems])
    ]
    stop_ids = (tokenizer.end_of_text, tokenizer.special(REPO_NAME), tokenizer.special(FILE_SEP))
    texts = []
    batch_size = recipe.evaluation.batch_size
    for first in range(0, len(prompts), batch_size):
        new_ids = sampler.generate(
            prompts[first : first + batch_size],
            max_new_tokens=max_new_tokens,
            stop_ids=stop_ids,
            batch_size=batch_size,
        )
        for ids in new_ids:
            end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
            texts.append(tokenizer.decode(ids[:end]))
        steps.advance(len(texts), len(prompts))
    return texts


def check_harness(
    problems: Sequence[Problem],
    limits: Limits,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Run every reference and every mutant as if a model had written it.

    Returns:
      `references` {passed, total, failed: names with reasons}, `mutants` {failed, total,
      survived: names}, `harness_ok`.
    """
    labels, programs = [], []
    for problem in problems:
        labels.append(problem.name)
        programs.append(complete(problem, problem.solution))
    num_references = len(programs)
    for problem in problems:
        for i, mutant in enumerate(problem.mutants):
            labels.append(f"{problem.name}[{i}]")
            programs.append(complete(problem, mutant))
    outcomes = sandbox.run_programs(programs, limits, on_progress)
    judged = list(zip(labels, outcomes, strict=True))
    failed = [f"{n}: {o.reason}" for n, o in judged[:num_references] if not o.passed]
    survived = [name for name, outcome in judged[num_references:] if outcome.passed]
    num_mutants = len(programs) - num_references
    return {
        "references": {
            "passed": num_references - len(failed), "total": num_references, "failed": failed
        },
        "mutants": {
            "failed": num_mutants - len(survived), "total": num_mutants, "survived": survived
        },
        "harness_ok": not failed and not survived,
    }  # fmt: skip


def compare(a: dict[str, Any], b: dict[str, Any], *, samples: int, seed: int) -> dict[str, Any]:
    """a minus b of two results of `evaluate`, in bits per byte; below 0 where a is better.

    Returns:
      `heldout` and `solutions`, each as `scores.bootstrap_difference` gives it.

    Raises:
      InputError: the two were not measured on the same documents.
    """
    result = {}
    for name, field in (("heldout", "document_bits"), ("solutions", "solution_bits")):
        if a[field]["ids"] != b[field]["ids"] or a[field]["bytes"] != b[field]["bytes"]:
            raise InputError(
                f"{field}: the two evaluations were not made on the same documents. "
                "Evaluate both with the same recipe and corpus."
            )
        result[name] = scores.bootstrap_difference(
            a[field]["bits"],
            b[field]["bits"],
            a[field]["bytes"],
            samples=samples,
            seed=storage.seeded_hash(seed, "bootstrap", name),
        )
    return result


class _Steps:
    """Progress over the steps of an evaluation, in percent of all, and the seconds of each."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._on_progress = on_progress
        self._done_percent = 0.0
        self._name = ""
        self._percent = 0.0
        self._start = 0.0

    def step(self, name: str, percent: float) -> _Steps:
        self._name, self._percent = name, percent
        return self

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._done_percent += self._percent
        self.seconds[self._name] = time.monotonic() - self._start

    def advance(self, done: int, total: int) -> None:
        """`done` of `total` items of the running step are done."""
        if self._on_progress is not None:
            percent = self._done_percent + self._percent * done / max(total, 1)
            self._on_progress(int(percent), 100, self._name)
