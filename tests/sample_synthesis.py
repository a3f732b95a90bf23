"""The synthesis of a report as a run makes it, for the tests of the page."""

from __future__ import annotations

from typing import Any


def sample_synthesis(code: str) -> dict[str, Any]:
    """A report's synthesis with every part; `code` stands for a seed."""
    return {
        "teacher": "instruct-70b",
        "requests": 200,
        "accepted": 29,
        "kept": 23,
        "yield": 0.115,
        "reasons": [
            _end("answers", "unparsable", 131),
            _end("answers", "too_short", 31),
            _end("answers", "error", 9),
            _end("duplicates", "near_duplicate", 6),
        ],
        "cut_off": {"unparsable": 100},
        "tokens": {"generated": 25_600, "kept": 1_912, "copied": 2_944},
        "secrets": {"email": 2},
        "prompt_versions": {"oss_instruct-1-01234567": 190, "oss_instruct-1-89abcdef": 10},
        "seeds": {"skipped": {"long_lines": 3}, "unusable_language": {}},
        "asked": {
            "dead": 9,
            "dead_letters": {
                "counts": {"context": 9},
                "samples": [
                    {
                        "key": "0123456789abcdef",
                        "repo": "numpy",
                        "path": "core/long.py",
                        "error": "context: 9,000 tokens are more than 8,192",
                    }
                ],
            },
            "spent": {
                "prompt_tokens": 812_345,
                "new_tokens": 25_600,
                "machine_seconds": 7_512.0,
                "dollars": 8.35,
            },
            "estimate": {"prompt_tokens": 790_000, "new_tokens": 31_000, "dollars": 9.1},
        },
        "samples": [
            {
                "seed_path": "heapq.py",
                "given": code[:260],
                "given_is": "head",
                "accepted": True,
                "stage": None,
                "reason": None,
                "language": "Python",
                "written": "def gcd(a: int, b: int) -> int:\n    while b:\n"
                "        a, b = b, a % b\n    return a\n",
                "marks": "",
            },
            {
                "seed_path": "email/_policybase.py",
                "given": code[:120],
                "given_is": "seed",
                "accepted": False,
                "stage": "duplicates",
                "reason": "near_duplicate",
                "language": "Python",
                "written": "\ue000        self.self = self\ue001\n" * 4,
                "marks": "\ue000\ue001",
                "value": 0.91,
                "threshold": 0.7,
                "detail": "kept: email/_policybase.py",
            },
        ],
        "mixture_note": "Synthetic text fills 9% of the phase; the selection “best” the rest.",
        "comparison": {
            "seeds": "best",
            "edges": {"tokens": [0.0, 1.0, 10.0, 100.0, 1_000.0], "score": [0.0, 0.5, 1.0]},
            "sides": {
                "synthetic": _compared(23, 410.0, [0, 0, 3, 20], None),
                "selected": _compared(118, 1_650.0, [0, 1, 17, 100], None),
                "corpus": _compared(990, 1_790.0, [2, 8, 200, 780], 0.14),
            },
            "differences": {
                "tokens": {"difference": -1_240.0, "low": -1_500.0, "high": -990.0, "larger": 0.2},
                "score": {"difference": 0.01, "low": -0.02, "high": 0.04, "larger": 0.52},
            },
        },
    }


def _end(stage: str, reason: str, documents: int) -> dict[str, Any]:
    languages = {"Python": documents}
    return {"stage": stage, "reason": reason, "documents": documents, "languages": languages}


def _compared(
    documents: int, tokens: float, counts: list[int], dropped: float | None
) -> dict[str, Any]:
    return {
        "documents": documents,
        "sampled": documents,
        "languages": {"Python": documents},
        "given_share": 0.1,
        "figures": {
            "tokens": {
                "num": documents,
                "mean": tokens,
                "p10": tokens / 4,
                "median": tokens,
                "p90": tokens * 3,
                "counts": counts,
            },
            "score": {
                "num": documents,
                "mean": 0.71,
                "p10": 0.4,
                "median": 0.72,
                "p90": 0.9,
                "counts": [documents // 5, documents - documents // 5],
            },
        },
        "repeated_share": 0.12,
        "vocabulary": {"words": 9_000, "distinct": 2_100, "not_in_second_share": 0.4},
        "modules": {
            "files": documents,
            "distinct": 40,
            "standard_library_share": 0.9,
            "share_of_files": {"os": 0.3, "typing": 0.2},
        },
        "duplicates": None
        if dropped is None
        else {"documents": 1_000, "dropped": round(1_000 * dropped)},
    }
