"""What became of a run's requests to the teacher: counts of every stage, and samples.

One pass over the columns of the synthetic corpus and of what was rejected; then the texts of the
few samples. Memory grows with neither. Secrets are redacted in whatever is shown.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from snowcoder_jax import storage
from snowcoder_jax.parquet import open_parquet
from snowcoder_jax.reports.inspect_run import Run
from snowcoder_jax.reports.inspect_samples import Bucket, Smallest
from snowcoder_jax.reports.inspect_texts import Document, read_documents
from snowcoder_jax.synthesis import runner
from snowcoder_jax.text.reader import clean_name, clean_path

Facts = dict[str, Any]

STEP, PREFIX = "synthesize", "synthetic "
# The judge of answers; the other stages are those of any corpus.
ANSWERS = "answers"
_STAGE_ORDER = (ANSWERS, "license", "rules", "contamination", "duplicates")
SAMPLE_CHARACTERS = 4_000
_MIN_SHARED_CHARACTERS = 8
_PRIVATE_USE = range(0xE000, 0xF8FF)
_REJECTED = ("key", "seed_id", "language", "reason", "value", "threshold", "detail")
_DOCUMENT = ("id", "repo", "path", "language", "license")
_COLUMNS = ("seed_id", "seed_first_line", "seed_last_line", "head_bytes")
# Stage -> what its columns tell of a document it drops.
_TELLING = {"contamination": ("benchmark", "item", "match"), "duplicates": ("cluster",)}


def gather(run: Run, num_samples: int) -> Facts | None:
    """The figures of a run's synthesis, or None where it is not done.

    Args:
      num_samples: of each reason, and of what was accepted in each language.

    Returns:
      What `synthesis.json` tells (`teacher`, `requests`, `accepted` by the judge of answers, ...)
      and: `kept` by all stages; `yield`, kept of requests; `reasons`: one row for each `stage`
      and `reason`, with `documents` and `languages`; `secrets`: kind -> documents; `asked`: what
      `synthesis.runner.summarize` tells; `comparison`; `samples`: `accepted`, `stage`, `reason`,
      `language`, `seed_path`, `given` and `written` (redacted; `marks`: the two characters around
      what is marked in the latter), `value`, `threshold`, `detail`.
    """
    if not run.is_done(STEP):
        return None
    made: Facts = storage.read_json(storage.join(run.folders[STEP], "synthesis.json"))
    asked = _step_facts(run, "synthesize ask")
    gatherer = _Gatherer(run, num_samples)
    for relative in run.shards(STEP):
        gatherer.add_shard(relative)
    for path in rejected_paths(run):
        gatherer.add_rejected(path)
    entries = gatherer.smallest.buckets()
    counts = gatherer.counts
    rows: dict[tuple[str, str], Counter[str]] = {}
    for (stage, reason, language), n in counts.items():
        rows.setdefault((stage, reason), Counter())[language] += n
    kept = sum(rows.pop(("", ""), Counter()).values())
    return {
        **made,
        "asked": runner.with_clean_letters(asked) if asked else {},
        "kept": kept,
        "yield": kept / made["requests"] if made["requests"] else None,
        "reasons": [
            {
                "stage": stage,
                "reason": reason,
                "documents": sum(languages.values()),
                "languages": dict(sorted(languages.items(), key=lambda i: (-i[1], i[0]))),
            }
            for (stage, reason), languages in sorted(rows.items(), key=_by_stage)
        ],
        "secrets": dict(sorted(gatherer.secrets.items(), key=lambda i: (-i[1], i[0]))),
        "samples": list(_samples(run, entries)),
        "comparison": _comparison(run),
    }


def _by_stage(item: tuple[tuple[str, str], Counter[str]]) -> tuple[int, str, int, str]:
    (stage, reason), languages = item
    known = _STAGE_ORDER.index(stage) if stage in _STAGE_ORDER else len(_STAGE_ORDER)
    return known, stage, -sum(languages.values()), reason


def _step_facts(run: Run, step: str) -> Facts:
    """What a step told when it was finished."""
    path = storage.join(run.folders.get(step, ""), "step.json")
    if step not in run.folders or not storage.exists(path):
        return {}
    facts: Facts = storage.read_json(path)["facts"]
    return facts


def _comparison(run: Run) -> Facts | None:
    """What the step `steps.comparison.STEP` measured."""
    if not run.is_done(f"{PREFIX}comparison"):
        return None
    folder = run.folders[f"{PREFIX}comparison"]
    measured: Facts = storage.read_json(storage.join(folder, "comparison.json"))
    return measured


def rejected_paths(run: Run) -> list[str]:
    return storage.list_files(storage.join(run.folders[STEP], "rejected"), ".parquet")


class _Gatherer:
    def __init__(self, run: Run, num_samples: int) -> None:
        self._run, self._seed = run, run.recipe.seed
        self.smallest = Smallest(num_samples)
        # (stage, reason, language); ("", "", language) of what passed all stages.
        self.counts: Counter[Bucket] = Counter()
        self.secrets: Counter[str] = Counter()

    def add_shard(self, relative: str) -> None:
        run = self._run
        columns = run.table("synthesis columns", relative, _COLUMNS)
        entries = run.table(STEP, relative, _DOCUMENT).to_pylist()
        for entry, row in zip(entries, columns.to_pylist(), strict=True):
            entry.update(row, key=storage.seeded_share(self._seed, "inspect", entry["id"]))
        if not run.is_done(f"{PREFIX}policy"):
            self.counts.update(("", "", e["language"]) for e in entries)
            return
        names = ["stage", "rule", "value", "threshold"]
        told = run.table(f"{PREFIX}policy", relative, names).to_pylist()
        for entry, row in zip(entries, told, strict=True):
            entry.update(row)
            stage, reason = row["stage"] or "", row["rule"] or ""
            self.counts[stage, reason, entry["language"]] += 1
        for stage, telling in _TELLING.items():
            if run.is_done(PREFIX + stage):
                rows = run.table(PREFIX + stage, relative, telling).to_pylist()
                for entry, row in zip(entries, rows, strict=True):
                    entry.update(row)
        if run.is_done(f"{PREFIX}secrets"):
            spans = run.table(f"{PREFIX}secrets", relative, ["spans"])["spans"].to_pylist()
            for entry, found in zip(entries, spans, strict=True):
                kinds = {str(span["kind"]) for span in found or ()}
                self.secrets.update(kinds)
                if kinds and not entry["stage"]:
                    self.smallest.add(("secrets", min(kinds)), {**entry, "kind": min(kinds)})
        for entry in entries:
            bucket = (entry["stage"], entry["rule"] or "") if entry["stage"] else None
            self.smallest.add(bucket or ("", "", entry["language"]), entry)

    def add_rejected(self, path: str) -> None:
        with open_parquet(path) as file:
            names = [n for n in _REJECTED if n in file.schema_arrow.names]
            for batch in file.iter_batches(columns=names, use_threads=False):
                for row in batch.to_pylist():
                    self.counts[ANSWERS, row["reason"], row["language"]] += 1
                    key = storage.seeded_share(self._seed, "inspect", row["key"])
                    entry = {**row, "id": row["key"], "key": key, "file": path}
                    self.smallest.add((ANSWERS, row["reason"]), entry)


# Samples


def _samples(run: Run, buckets: dict[Bucket, list[Facts]]) -> Iterator[Facts]:
    ordered = sorted(buckets, key=lambda b: _by_stage(((b[0], b[1]), Counter())) if b[0] else ())
    entries = [(bucket, entry) for bucket in ordered for entry in buckets[bucket]]
    ids = {e["id"] for _, e in entries if "file" not in e}
    clusters = {e["cluster"] for _, e in entries if e.get("cluster")}
    made, real = {}, {}
    if run.is_done(f"{PREFIX}secrets"):
        made = read_documents(run, ids | clusters, STEP)
    if run.is_done("secrets"):
        real = read_documents(run, {e["seed_id"] for _, e in entries} | clusters)
    rejected = _rejected_texts(run, {(e["file"], e["id"]) for _, e in entries if "file" in e})
    for bucket, entry in entries:
        seed = real.get(entry["seed_id"])
        seed_text = _lines((seed.text() if seed is not None else None) or "", entry)
        sample: Facts = {
            "id": entry["id"],
            "accepted": bucket[0] in ("", "secrets"),
            "stage": bucket[0] or None,
            "reason": bucket[1] if bucket[0] else None,
            "language": entry["language"],
            "seed_path": _name(seed, ": ") if seed is not None else None,
            "value": entry.get("value"),
            "threshold": entry.get("threshold"),
            # It may quote a line of the answer.
            "detail": clean_name(entry.get("detail") or "") or None,
        }
        if "file" in entry:
            head, text = rejected.get((entry["file"], entry["id"]), ("", ""))
            sample |= _shown(bucket, head, text, seed_text)
        else:
            sample |= _document(bucket, entry, made.get(entry["id"]), seed_text, made | real)
        yield sample


def _name(document: Document, between: str) -> str:
    return clean_path(document.repo, document.path, between)


def _lines(text: str, entry: Facts) -> str:
    """What the teacher was shown of its seed, where that is known; else all of it."""
    first, last = entry.get("seed_first_line") or 0, entry.get("seed_last_line") or 0
    return "\n".join(text.split("\n")[first - 1 : last]) if last else text


def _rejected_texts(
    run: Run, wanted: Collection[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, str]]:
    """(file, key) -> what was given of a seed and what was written, redacted."""
    found = {}
    for path in sorted({path for path, _ in wanted}):
        keys = pa.array(sorted(key for p, key in wanted if p == path), pa.string())
        with open_parquet(path) as file:
            for i in range(file.num_row_groups):
                mask = pc.is_in(file.read_row_group(i, ["key"])["key"], value_set=keys)
                # Texts are large: only groups that hold a sample are read.
                if not pc.any(mask).as_py():
                    continue
                group = file.read_row_group(i, ["key", "head", "text"], use_threads=False)
                for row in group.filter(mask).to_pylist():
                    head, text = (row[n] or "" for n in ("head", "text"))
                    found[path, row["key"]] = (clean_name(head), clean_name(text))
    return found


def _document(
    bucket: Bucket,
    entry: Facts,
    document: Document | None,
    seed_text: str,
    others: dict[str, Document],
) -> Facts:
    """The texts of a document that the judge of answers let pass."""
    if document is None:
        return {"given": None, "written": None, "marks": ""}
    if bucket[0] == "contamination":
        shown = document.around(str(entry.get("match") or ""))
        detail = f"{entry.get('benchmark')} {entry.get('item')}"
        if shown is not None:
            return {"given": None, "written": shown.text, "marks": shown.marks, "detail": detail}
    if bucket[0] == "secrets":
        shown = document.secrets(bucket[1])
        if shown is not None:
            return {"given": None, "written": shown.text, "marks": shown.marks}
    text = document.text() or ""
    if bucket[0] == "duplicates":
        other = others.get(str(entry.get("cluster")))
        name = _name(other, "/") if other is not None else "a document of the corpus"
        shown_of = _shown(bucket, "", text, (other.text() if other is not None else None) or "")
        return {**shown_of, "detail": f"kept: {name}", "compared_with": "the kept document"}
    head, rest = document.parted(entry.get("head_bytes") or 0) or ("", "")
    return _shown(bucket, head, rest, seed_text)


def _shown(bucket: Bucket, head: str, text: str, compared: str) -> Facts:
    """What was given (a head, or the seed) and what was written, lines of the seed marked.

    Args:
      head: that a base model goes on from; "" of an instruct model.
      compared: the text beside it: the seed.
    """
    given = head or compared
    if not bucket[0] or bucket[1].startswith(("copy", "near", "exact")):
        written, marks = mark_shared(text[:SAMPLE_CHARACTERS], compared)
    else:
        written, marks = text[:SAMPLE_CHARACTERS], ""
    return {
        "given": given[:SAMPLE_CHARACTERS],
        "given_is": "head" if head else "seed",
        "written": written,
        "marks": marks,
    }


def mark_shared(text: str, other: str) -> tuple[str, str]:
    """`text` with the lines that `other` has too between two characters, and these characters.

    Lines of few characters (a bracket, `else:`) say nothing by being in both.
    """
    used = set(text)
    free = (c for c in map(chr, _PRIVATE_USE) if c not in used)
    marks = "".join(itertools.islice(free, 2))
    known = {line.strip() for line in other.split("\n")}
    lines = []
    any_shared = False
    for line in text.split("\n"):
        bare = line.strip()
        if len(bare) >= _MIN_SHARED_CHARACTERS and bare in known:
            line, any_shared = marks[0] + line + marks[1], True
        lines.append(line)
    return ("\n".join(lines), marks) if any_shared else (text, "")
