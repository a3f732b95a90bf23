"""Adds a synthesis to a run that `hand_run` wrote: documents, verdicts, refused answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hand_run
import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax import storage
from snowcoder_jax.reports.inspect_run import open_run

SECRET = "jane.roe@corp-mail.com"
HOSTILE = "</script><script>alert(1)</script>\x00"
# The seed of most documents is `lib/words.py` of the hand-made run; this is its first function.
SEED_ID = hand_run._identity("first", "lib/words.py")
HEAD = "def function_0(argument_0):\n    return 0\n"

_SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("kind", pa.string())])
_TEXT = pa.string()
_VERDICT = {"verdict": _TEXT, "rule": _TEXT, "value": pa.float64(), "threshold": pa.float64()}
_SCHEMAS: dict[str, dict[str, pa.DataType]] = {
    "documents": {
        **dict.fromkeys(("repo", "path", "language", "license"), _TEXT),
        "stars": pa.int32(),
        "content": pa.large_string(),
    },
    "synthesis columns": {
        **_VERDICT,
        "seed_id": _TEXT,
        "seed_first_line": pa.int32(),
        "seed_last_line": pa.int32(),
        "head_bytes": pa.int64(),
        "new_tokens": pa.int64(),
    },
    "synthetic duplicates": {**_VERDICT, "cluster": _TEXT, "kept": pa.bool_()},
    "synthetic contamination": {
        **_VERDICT,
        **dict.fromkeys(("benchmark", "item", "match", "method"), _TEXT),
    },
    "synthetic secrets": {**_VERDICT, "spans": pa.list_(_SPAN)},
    "synthetic policy": {**_VERDICT, "stage": _TEXT, "split": _TEXT, "num_bytes": pa.int64()},
    "synthetic tokens": {**_VERDICT, "num_tokens": pa.int32()},
}
_REJECTED = {
    **dict.fromkeys(("key", "seed_id", "language", "reason"), _TEXT),
    "value": pa.float64(),
    "threshold": pa.float64(),
    **dict.fromkeys(("head", "text"), pa.large_string()),
    "detail": _TEXT,
}
_MATCH = "def intersperse(numbers, delimiter):"


def add_synthesis(run: str, without: tuple[str, ...] = ()) -> str:
    """Write the synthesis of a run beside it, without the steps that are named; returns the run.

    Kept: two Python documents (one with a head and a secret, one of a window of two lines of its
    seed), one of Go. Dropped: one by rules,
    one as a near-duplicate of a document of the corpus, one for a benchmark. Refused answers:
    three that do not parse, a copy of the seed, two dead letters.
    """
    root = Path(run).parent.parent / "synthetic"
    folders = {"synthesize": root}
    rows = _rows()
    shards = {f"synthetic/part-0000{i}.parquet": rows[i::2] for i in (0, 1)}
    for step, columns in _SCHEMAS.items():
        folder = root / step.replace(" ", "-")
        if step != "documents":
            folders[step] = folder
        if step in without:
            continue
        for relative, part in shards.items():
            schema = pa.schema({"id": _TEXT, **columns})
            table = pa.Table.from_pylist([{"id": r["id"], **r[step]} for r in part], schema)
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, folder / relative, row_group_size=2)
        storage.write_json(str(folder / "stage.json"), {"key": "k", "rows": len(rows)})
    _write_rejected(root / "rejected")
    made = {
        "key": "k",
        "teacher": "instruct-70b",
        "requests": 12,
        "accepted": 6,
        "tokens": {"generated": 900, "kept": 400, "copied": 20},
        "cut_off": {"unparsable": 2},
        "prompt_versions": {"oss_instruct-1-abcdef": 12},
        "seeds": {"skipped": {"long_lines": 3}, "unusable_language": {"Markdown": 4}},
    }
    storage.write_json(str(root / "synthesis.json"), made)
    storage.write_json(str(root / "step.json"), {"key": "k", "facts": made})
    folders["synthesize ask"] = root / "ask"
    asked = {
        "dead": 2,
        "dead_letters": {
            "counts": {"context": 1, "refused": 1},
            "samples": [
                {"key": "k9", "repo": "first", "path": "a.py", "error": "context: 9 > 8"},
                {"key": "k8", "repo": SECRET, "path": SECRET, "error": f"refused: {SECRET}"},
            ],
        },
        "spent": {
            "prompt_tokens": 7_000,
            "new_tokens": 900,
            "machine_seconds": 3_600.0,
            "dollars": 4.5,
        },
        "estimate": {"prompt_tokens": 6_500, "new_tokens": 1_000, "dollars": 4.0},
    }
    storage.write_json(str(root / "ask" / "step.json"), {"key": "k", "facts": asked})
    path = f"{run}/folders.json"
    named = storage.read_json(path)
    seen = {step: storage.relative(str(folder), run) for step, folder in folders.items()}
    storage.write_json(path, {**named, **seen})
    return run


def _rows() -> list[dict[str, Any]]:
    shared = "def function_1(argument_1):\n    return 1\n"
    with_secret = f'{HEAD}{shared}\n\nmail = "{SECRET}"\nlast = 1\n'
    near = {"stage": "duplicates", "rule": "near_duplicate", "value": 0.9, "threshold": 0.7}
    match = {"benchmark": "HumanEval", "item": "HumanEval/5", "match": _MATCH, "method": "ngram"}
    return [
        _row("kept.py", with_secret, head_bytes=len(HEAD)),
        _row("plain.py", '"""Counts what is left of a list."""\n\nimport heapq\n\n\nx = 1\n'),
        _row("main.go", 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println() }\n', "Go"),
        _row("short.py", "x = 1\n", stage="rules", rule="min_words", value=2.0, threshold=5.0),
        _row("near.py", hand_run.MANY_WORDS + "y = 2\n", **near, cluster=SEED_ID),
        _row("task.py", f"import os\n\n{_MATCH}\n", stage="contamination", rule="contaminated")
        | {"synthetic contamination": {**_verdict("drop", "contaminated"), **match}},
    ]


def _verdict(verdict: str, rule: str | None) -> dict[str, Any]:
    return {"verdict": verdict, "rule": rule, "value": None, "threshold": None}


def _row(
    path: str,
    content: str,
    language: str = "Python",
    *,
    head_bytes: int = 0,
    stage: str | None = None,
    rule: str | None = None,
    value: float | None = None,
    threshold: float | None = None,
    cluster: str | None = None,
) -> dict[str, Any]:
    identity = hand_run._identity("synthetic/teacher", path)
    passed = _verdict("pass", None)
    dropped = {**_verdict("drop", rule), "value": value, "threshold": threshold}
    start = content.find(SECRET)
    spans = [{"start": start, "end": start + len(SECRET), "kind": "email"}] if start >= 0 else []
    return {
        "id": identity,
        "documents": {
            "repo": "synthetic/teacher",
            "path": path,
            "language": language,
            "license": "MIT",
            "stars": None,
            "content": content,
        },
        "synthesis columns": {
            **passed,
            "seed_id": SEED_ID,
            "seed_first_line": 3 if path == "plain.py" else 0,
            "seed_last_line": 4 if path == "plain.py" else 0,
            "head_bytes": head_bytes,
            "new_tokens": 9,
        },
        "synthetic duplicates": {
            **(dropped if stage == "duplicates" else passed),
            "cluster": cluster or identity,
            "kept": stage != "duplicates",
        },
        "synthetic contamination": {
            **passed,
            **dict.fromkeys(("benchmark", "item", "match", "method")),
        },
        "synthetic secrets": {**passed, "spans": spans},
        "synthetic policy": {
            **(dropped if stage else passed),
            "stage": stage,
            "split": None if stage else "train",
            "num_bytes": len(content),
        },
        "synthetic tokens": {**passed, "num_tokens": len(content.split())},
    }


def _write_rejected(folder: Path) -> None:
    def refused(number: int, reason: str, text: str, **columns: Any) -> dict[str, Any]:
        row = dict.fromkeys(_REJECTED) | {"key": f"k{number}", "seed_id": SEED_ID}
        return row | {"language": "Python", "reason": reason, "text": text, "head": ""} | columns

    rows = [
        refused(1, "unparsable", f"def (:  # {HOSTILE}\n"),
        refused(2, "unparsable", f'mail = "{SECRET}" (\n', language="Go", detail=SECRET),
        refused(3, "unparsable", "x = (\n", head=HEAD),
        refused(4, "copy_of_seed", hand_run.MANY_WORDS, value=0.93, threshold=0.7),
        refused(5, "error", "", detail="context: 9 > 8 tokens"),
        refused(6, "error", "", detail="refused: 400"),
    ]
    folder.mkdir()
    for i in (0, 1):
        table = pa.Table.from_pylist(rows[i::2], pa.schema(_REJECTED))
        pq.write_table(table, folder / f"part-0000{i}.parquet", row_group_size=1)


def reasons_on_disk(run: str) -> dict[tuple[str, str], int]:
    """(stage, reason) -> documents, counted from the files that were written."""
    counts: dict[tuple[str, str], int] = {}
    folders = open_run(run).folders
    for path in sorted(Path(folders["synthesize"], "rejected").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            end = ("answers", row["reason"])
            counts[end] = counts.get(end, 0) + 1
    for path in sorted(Path(folders["synthetic policy"]).rglob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if row["stage"]:
                end = (row["stage"], row["rule"])
                counts[end] = counts.get(end, 0) + 1
    return counts
