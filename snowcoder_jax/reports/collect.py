"""Gathers a run's figures from its steps into the one dict that `page.py` shows.

Every number here was written by a step of the run; nothing is computed from expectations.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
from typing import Any

from snowcoder_jax import storage
from snowcoder_jax.model import decoder
from snowcoder_jax.recipe import Phase
from snowcoder_jax.reports import corpus_facts, synthesis_facts
from snowcoder_jax.reports.inspect_run import Run
from snowcoder_jax.reports.stand_ins import stand_ins
from snowcoder_jax.run import finished
from snowcoder_jax.steps.builder import Builder

Facts = dict[str, Any]

# Of each end that a request came to.
NUM_SYNTHETIC_SAMPLES = 3


def collect(b: Builder) -> Facts:
    """The report of a run as JSON-ready data; what is not finished is left out or None."""
    records = {s.name: r for s in b.steps if (r := finished(s)) is not None}
    facts = {name: r["facts"] for name, r in records.items()}
    unfinished = [s.name for s in b.steps if s.name not in records and s.name != "report"]
    evaluations = _evaluations(b)
    memory = {name: r["peak_memory_bytes"] for name, r in records.items()}
    recipe = b.recipe
    report: Facts = {
        "name": recipe.name,
        "recipe_path": storage.join(b.run_folder, "recipe.yaml"),
        "min_language_bytes": recipe.evaluation.min_language_bytes,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "status": "partial" if unfinished else "complete",
        "unfinished": unfinished,
        "model": {"parameters": decoder.num_parameters(recipe.model, recipe.tokenizer.vocab_size)},
        "corpus": corpus_facts.corpus(b, facts),
        "tokenizer": {**facts.get("tokenizer", {}), "seconds": _seconds(records, "tokenizer")},
        "annotator": corpus_facts.annotator(b, facts),
        "selections": {
            s.name: corpus_facts.selection(b.named[f"select {s.name}"])
            for s in recipe.selections
            if f"select {s.name}" in facts
        },
        "phases": {p.name: _phase(b, p, facts, evaluations) for p in recipe.phases},
        "control": _control(b, facts, evaluations),
        "curve": _curve(b),
        "synthesis": _synthesis(b, facts),
        "seconds": {name: r["seconds"] for name, r in records.items()},
        "memory": memory,
        "peak_memory_bytes": max(memory.values(), default=None),
        "stand_ins": stand_ins(recipe),
        "faults": _faults(evaluations),
    }
    baseline = facts.get("baseline")
    report["baseline_bits_per_byte"] = baseline["bits_per_byte"] if baseline else None
    report["baseline"] = baseline
    return report


def _machine() -> Facts:
    import jax

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "jax": jax.__version__,
        "devices": [str(d) for d in jax.devices()],
    }


def _seconds(records: dict[str, Facts], name: str) -> float | None:
    return records[name]["seconds"] if name in records else None


def _evaluations(b: Builder) -> dict[str, Facts]:
    result = {}
    for phase in b.recipe.all_phases():
        path = storage.join(b.run_folder, "evaluations", phase.name, "evaluation.json")
        if storage.exists(path):
            result[phase.name] = storage.read_json(path)
    return result


def _phase(b: Builder, phase: Phase, facts: dict[str, Facts], evaluations: Facts) -> Facts:
    trained = facts.get(f"train {phase.name}")
    result: Facts = {
        "starts_from": phase.starts_from,
        "tokens": trained["tokens"] if trained else None,
        "unique_tokens": _unique_tokens(phase, trained),
        "schedule": {
            "kind": phase.schedule.kind,
            "peak": phase.schedule.peak,
            "final": phase.schedule.final,
            "warmup_steps": phase.num_warmup_steps,
        },
    }
    if trained:
        result["mixture"] = trained["mixture"]
        names = ("steps", "seconds", "tokens_per_second", "final_loss", "skipped_updates")
        result.update({name: trained[name] for name in names})
        # What an earlier version trained lacks some of them.
        later = ("mfu_causal", "mfu_full", "data_wait_share", "seconds_to_first_step")
        result.update({name: trained.get(name) for name in (*later, "account", "seen")})
    shown = (
        "heldout_bits_per_byte",
        "heldout_bytes",
        "solutions_bits_per_byte",
        "pass_at_1",
        "references",
        "mutants",
    )
    evaluation = evaluations.get(phase.name, {})
    result.update({name: evaluation.get(name) for name in shown})
    return result


def _unique_tokens(phase: Phase, trained: Facts | None) -> int | None:
    """Tokens of the sequences seen at least once."""
    if trained is None:
        return None
    total = 0
    for part in trained["mixture"]:
        total += min(part["num_sequences"], part["num_records"]) * phase.sequence_length
    return total


def _control(b: Builder, facts: dict[str, Facts], evaluations: Facts) -> Facts | None:
    if not b.recipe.controls:
        return None
    control = b.recipe.controls[0]
    phase = b.recipe.phase(control.name)
    return {
        "name": control.name,
        "of": control.of,
        **_phase(b, phase, facts, evaluations),
        "difference": facts.get(f"compare {control.name}"),
    }


def _curve(b: Builder) -> list[Facts]:
    path = storage.join(b.run_folder, "metrics.jsonl")
    names = ["phase", "global_step", "step", "tokens", "loss", "learning_rate"]
    names += ["grad_norm", "num_skipped"]
    phases = {p.name for p in b.recipe.all_phases()}
    rows = [row for row in storage.read_json_lines(path) if row["phase"] in phases]
    return [{n: row.get(n) for n in names} for row in rows]


def _synthesis(b: Builder, facts: dict[str, Facts]) -> Facts | None:
    if "synthesize" not in facts:
        return None
    gathered = synthesis_facts.gather(Run(b.run_folder, b.named), NUM_SYNTHETIC_SAMPLES)
    assert gathered is not None, "it is done"
    return {**gathered, "mixture_note": _mixture_note(b, facts)}


def _mixture_note(b: Builder, facts: dict[str, Facts]) -> str:
    """What a phase lacked of synthetic sequences."""
    notes = []
    for phase in b.recipe.phases:
        trained = facts.get(f"train {phase.name}")
        synthetic = {s.name for s in b.recipe.selections if s.source == "synthetic"}
        for part in trained["mixture"] if trained else []:
            if part["selection"] in synthetic and part["shortfall"]:
                wanted = part["num_sequences"] + part["shortfall"]
                notes.append(
                    f"Phase {phase.name} wanted {wanted} synthetic sequences and had "
                    f"{part['num_sequences']} (each document at most "
                    f"{_repeat(phase, part['selection'])} times); the other {part['shortfall']} "
                    f"({part['shortfall'] / wanted:.0%}) were filled from the selection."
                )
    return " ".join(notes)


def _repeat(phase: Phase, selection: str) -> int:
    return next(p.repeat for p in phase.data if p.selection == selection)


def _faults(evaluations: dict[str, Facts]) -> list[str]:
    return [
        f"The evaluation of {name} cannot be trusted: a reference solution failed or a broken "
        "mutant passed."
        for name, evaluation in evaluations.items()
        if evaluation.get("harness_ok") is False
    ]
