"""Why a document is in or out: every stage's verdict on it, and where it went.

Told as aligned text. Nothing of a document's raw text is shown: what it shares with a benchmark
goes through the one reader, and of secrets there are kinds and counts.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.parquet import read_table
from snowcoder_jax.reports import inspect_texts
from snowcoder_jax.reports.inspect_run import CORPORA, Run, open_run
from snowcoder_jax.reports.markup import clean
from snowcoder_jax.text import rule_table
from snowcoder_jax.text.reader import clean_path
from snowcoder_jax.why_text import INDENT, MAX_ROWS, aligned, first_rows, number_text, value_text

Row = dict[str, Any]

_DOCUMENT = ("id", "repo", "path", "language", "license", "stars")
_VERDICT = ("verdict", "rule", "value", "threshold")
# The steps that judge the documents of a corpus.
_JUDGES = {
    "ingest": ("rules", "duplicates", "contamination", "policy"),
    "synthesize": (
        "synthesis columns",
        *(f"synthetic {name}" for name in ("rules", "duplicates", "contamination", "policy")),
    ),
}


@dataclasses.dataclass(frozen=True)
class _Found:
    """A document: which corpus, which shard, which row; or a row of the ledger (no corpus)."""

    row: Row
    corpus: str = ""
    relative: str = ""
    index: int = -1

    @property
    def whole_path(self) -> str:
        return f"{self.row['repo']}/{self.row['path']}"

    @property
    def identity(self) -> str:
        return str(self.row.get("id") or self.whole_path)


def explain(run_folder: str, document: str) -> str:
    """A text of all that a run knows of a document, or of a file that never became one.

    Args:
      run_folder: `runs/NAME`.
      document: an id, or `repository/path` or the end of one.

    Raises:
      InputError: the run or the document is not there, or the path fits several.
    """
    run = open_run(run_folder)
    wanted = document.strip().replace(": ", "/")
    found = [*_find_documents(run, wanted), *_find_in_ledger(run, wanted)]
    # A whole path goes before the end of a longer one.
    found = [f for f in found if f.whole_path == wanted.strip("/")] or found
    if not found:
        raise InputError(
            f"{document}: no such document in {run_folder}. Give its id, or its path or the end "
            "of it. (Files in none of the known languages are counted, not listed.)"
        )
    identities = dict.fromkeys(f.identity for f in found)
    if len(identities) > 1:
        names = [
            [f.row.get("id") or f.row["reason"], clean_path(f.row["repo"], f.row["path"])]
            for f in found[:MAX_ROWS]
        ]
        more = [f"{INDENT}... and {len(found) - MAX_ROWS} more"][: len(found) > MAX_ROWS]
        lines = "\n".join([*aligned(names), *more])
        raise InputError(
            f"{document}: fits {len(identities)} files. Name one by its id or whole path.\n{lines}"
        )
    return "\n\n".join("\n".join(_tell(run, f)) for f in found)


def _find_documents(run: Run, wanted: str) -> Iterator[_Found]:
    for corpus in CORPORA:
        for relative in run.shards(corpus) if run.is_done(corpus) else ():
            table = run.table(corpus, relative, ["id", "repo", "path"])
            mask = pc.or_(pc.equal(table["id"], wanted), _ends_with(table, wanted))
            indices = pc.indices_nonzero(mask.combine_chunks()).to_pylist()
            rows = run.rows(corpus, relative, mask, _DOCUMENT) if indices else []
            for index, row in zip(indices, rows, strict=True):
                yield _Found(row, corpus, relative, index)


def _find_in_ledger(run: Run, wanted: str) -> Iterator[_Found]:
    for source, batch in run.ledger_batches():
        table = pa.Table.from_batches([batch])
        for row in table.filter(_ends_with(table, wanted)).to_pylist():
            yield _Found({**row, "source": source})


def _ends_with(table: pa.Table, wanted: str) -> pa.ChunkedArray:
    whole = pc.binary_join_element_wise("", table["repo"], table["path"], "/")
    return pc.ends_with(whole, "/" + wanted.strip("/"))


def _tell(run: Run, found: _Found) -> list[str]:
    lines = [clean(clean_path(found.row["repo"], found.row["path"], "  ")).replace("\n", " ")]
    if not found.corpus:
        facts = [
            ["not a document", str(found.row["reason"])],
            ["bytes", number_text(found.row["bytes"])],
            ["source", found.row["source"]],
        ]
        return [*lines, *aligned(facts)]
    teller = _Teller(run, found)
    lines += aligned(teller.facts())
    parts = {
        "origin": teller.origin(),
        "verdicts": teller.verdicts(),
        "cluster": teller.cluster(),
        "benchmark": teller.benchmark(),
        "secrets": teller.secrets(),
        "score": teller.score(),
        "selections": teller.selections(),
        "packed": teller.packed(),
        "signals": teller.signals(),
    }
    for title, rows in parts.items():
        if rows:
            lines += ["", title, *aligned(rows)]
    return lines


class _Teller:
    def __init__(self, run: Run, found: _Found) -> None:
        self._run, self._found = run, found
        self._prefix = CORPORA[found.corpus]
        self._rows: dict[str, Row | None] = {}

    def _row(self, step: str) -> Row | None:
        """The document's row of a step, token ids left out; None before it was run."""
        if step not in self._rows:
            run, found = self._run, self._found
            self._rows[step] = None
            if run.is_done(step):
                names = [n for n in run.column_names(step, found.relative) if n != "ids"]
                table = run.table(step, found.relative, names)
                (self._rows[step],) = table.slice(found.index, 1).to_pylist()
        return self._rows[step]

    def _get(self, stage: str) -> Row:
        """The row of a stage of this document's corpus; empty before it was run."""
        return self._row(self._prefix + stage) or {}

    def facts(self) -> list[list[str]]:
        row = self._found.row
        tokens = self._get("tokens").get("num_tokens")
        num_bytes = self._get("policy").get("num_bytes")
        facts = [
            ["id", row["id"]],
            ["language", row["language"]],
            ["licence", row["license"] or "unknown"],
            ["stars", "unknown" if row["stars"] is None else number_text(row["stars"])],
            ["bytes", "not counted yet" if num_bytes is None else number_text(num_bytes)],
            ["tokens", "not counted yet" if tokens is None else number_text(tokens)],
            ["shard", self._found.relative],
        ]
        split = self._get("policy").get("split")
        if self._row(self._prefix + "policy") is None:
            return [*facts, ["used", "not decided yet"]]
        side = {"train": "yes: on the train side", "heldout": "no: held out for measuring"}
        return [*facts, ["used", side.get(str(split), f"no: {self._get('policy').get('stage')}")]]

    def verdicts(self) -> list[list[str]]:
        """One line for each stage that judges; the policy last."""
        rows = [["stage", "verdict", "rule", "value", "threshold"]]
        for step in _JUDGES[self._found.corpus]:
            row = self._row(step)
            if row is None:
                rows.append([step, "not run yet"])
                continue
            rule = row["rule"] or ""
            if row.get("stage"):
                rule += f" (by {row['stage']})"
            rows.append([step, row["verdict"], rule, value_text(row["value"])])
            rows[-1].append(value_text(row["threshold"]))
        return rows

    def origin(self) -> list[list[str]]:
        """Of a synthetic document: the seed, what the teacher was shown of it, the request."""
        row = self._row("synthesis columns") if self._prefix else None
        if row is None:
            return []
        shown, given = "whole file", number_text(row["head_bytes"])
        if row["seed_first_line"]:
            shown = f"lines {row['seed_first_line']} to {row['seed_last_line']}"
        if row["head_bytes"]:
            shown = f"the first {given} bytes, which this document begins with"
        seed = self._document(row["seed_id"])
        path = clean_path(seed["repo"], seed["path"]) if seed else "(not in this corpus)"
        return [
            ["seed", row["seed_id"], path],
            ["shown", shown],
            ["prompt", row["prompt_version"]],
            ["request", row["key"]],
            ["tokens written", number_text(row["new_tokens"])],
        ]

    def _document(self, identity: str) -> Row | None:
        """A document of the real corpus."""
        run = self._run
        for relative in run.shards():
            mask = pc.equal(run.table("ingest", relative, ["id"])["id"], identity)
            if pc.any(mask).as_py():
                return run.rows("ingest", relative, mask, ["id", "repo", "path"])[0]
        return None

    def cluster(self) -> list[list[str]]:
        """The other members of its cluster of duplicates, and which is kept."""
        name = self._get("duplicates").get("cluster")
        if name is None:
            return []
        members: list[Row] = []
        corpus = self._found.corpus
        for relative in self._run.shards(corpus):
            clusters = self._run.table(f"{self._prefix}duplicates", relative)
            mask = pc.equal(clusters["cluster"], name).fill_null(False)
            if pc.any(mask).as_py():
                judged = clusters.filter(mask).to_pylist()
                named = self._run.rows(corpus, relative, mask, ["id", "repo", "path"])
                members += [{**j, **n} for j, n in zip(judged, named, strict=True)]
        # A synthetic document may be like one of the real corpus, which is the kept one then.
        if all(m["verdict"] != "pass" for m in members) and (kept := self._document(name)):
            members.append({"verdict": "pass", "value": None, **kept})
        if len(members) < 2:
            return []
        members.sort(key=lambda m: (m["verdict"] != "pass", m["repo"], m["path"]))
        rows = []
        for member in members:
            how = "kept" if member["verdict"] == "pass" else str(member["rule"])
            this = "(this one)" if member["id"] == self._found.row["id"] else ""
            path = clean_path(member["repo"], member["path"])
            rows.append([how, value_text(member["value"]), member["id"], path, this])
        return first_rows(rows)

    def benchmark(self) -> list[list[str]]:
        row = self._get("contamination")
        if row.get("benchmark") is None:
            return []
        rows = [["benchmark", row["benchmark"]], ["item", row["item"]]]
        if row.get("method") is not None:
            rows.append(["method", row["method"]])
        if not self._run.is_done("secrets"):
            return [*rows, ["text", "not shown before secrets have been looked for"]]
        documents = inspect_texts.read_documents(self._run, [self._found.row["id"]])
        shown = documents[self._found.row["id"]].around(row["match"] or "")
        parts = shown.marked_parts() if shown is not None else []
        lines = [line for part in parts for line in part.split("\n")]
        lines = lines or ["(does not stand in the document as such)"]
        shown_lines = [["" if i else "text", f"| {line}"] for i, line in enumerate(lines)]
        return [*rows, *first_rows(shown_lines)]

    def secrets(self) -> list[list[str]]:
        row = self._row(self._prefix + "secrets")
        if row is None:
            return [["not run yet"]]
        kinds = Counter(str(span["kind"]) for span in row["spans"] or ())
        return [[kind.replace("_", " "), number_text(n)] for kind, n in sorted(kinds.items())]

    def score(self) -> list[list[str]]:
        """The annotator's score and its rank among the scored files of its language."""
        if self._prefix or "quality" not in self._run.folders:
            return []
        row = self._row("quality")
        if row is None:
            return [["not run yet"]]
        if row["score"] is None:
            return [["not scored: no candidate, or no text"]]
        num_scored = num_above = num_below = 0
        for relative in self._run.shards():
            language = self._run.table("ingest", relative, ["language"])["language"]
            score = self._run.table("quality", relative, ["score"])["score"]
            score = score.filter(pc.equal(language, self._found.row["language"])).drop_null()
            num_scored += len(score)
            num_above += pc.sum(pc.greater(score, row["score"])).as_py() or 0
            num_below += pc.sum(pc.less(score, row["score"])).as_py() or 0
        rank = (
            f"rank {num_above + 1:,} of {num_scored:,} scored {self._found.row['language']} files"
        )
        share = f"above {num_below / num_scored:.0%} of them"
        sections = ", ".join(f"{s:.3f}" for s in row["sections"] or ())
        return [
            ["score", f"{row['score']:.4f}"],
            ["rank", f"{rank}, {share}"],
            ["sections", sections],
        ]

    def selections(self) -> list[list[str]]:
        rows = []
        source = "synthetic" if self._prefix else "corpus"
        for selection in self._run.recipe.selections:
            step = f"select {selection.name}"
            if selection.source != source or step not in self._run.folders:
                continue
            row = self._row(step)
            if row is None:
                rows.append([selection.name, "", "not run yet"])
                continue
            folder = self._run.folders[step]
            cutoffs = storage.read_json(storage.join(folder, "cutoffs.json"))
            language = self._found.row["language"]
            cut = next((c for c in cutoffs if c["language"] == language), None)
            taken = "in" if row["selected"] else "out"
            rows.append([selection.name, taken, self._cut(selection.order, cut)])
        return rows

    def _cut(self, order: str, cut: Row | None) -> str:
        """How a selection chose in the document's language."""
        policy = self._get("policy")
        if policy.get("split") != "train":
            why = "held out" if policy.get("split") == "heldout" else "dropped"
            return f"{why} by the policy, so no selection may take it"
        if self._get("tokens").get("verdict") != "pass":
            return "it has no tokens"
        if cut is None:
            return "nothing of its language could be taken"
        of = f"{cut['num_documents']:,} of {cut['available_documents']:,} files"
        if order == "quality":
            score = self._get("quality").get("score")
            if score is None:
                return "not scored, so it is never taken for a good one"
            if cut["threshold"] is None:
                return f"score {score:.4f}; nothing of its language was taken ({of})"
            return f"score {score:.4f}, the cut is at {cut['threshold']:.4f} ({of})"
        return f"a seeded draw took {of}" if order == "random" else f"took {of}"

    def packed(self) -> list[list[str]]:
        """Where its tokens begin in each packed set."""
        rows = []
        stem = self._found.relative.replace("/", "-").removesuffix(".parquet")
        for step in self._run.folders:
            if not step.startswith("pack ") or not self._run.is_done(step):
                continue
            folder = self._run.folders[step]
            for path in storage.list_files(folder, f"/{stem}.sources.parquet"):
                table = read_table(path)
                table = table.filter(pc.equal(table["id"], self._found.row["id"]))
                name = path[len(folder) :].strip("/").removesuffix(".sources.parquet")
                for row in table.to_pylist():
                    where = f"record {row.pop('record')}, position {row.pop('position')}"
                    more = [
                        f"{k.removeprefix('num_')} {value_text(v)}"
                        for k, v in row.items()
                        if k != "id"
                    ]
                    file = storage.join(storage.relative(folder, self._run.folder), name)
                    rows.append([step.removeprefix("pack "), ", ".join([where, *more])])
                    rows.append(["", f"{file}.array_record"])
        return rows

    def signals(self) -> list[list[str]]:
        """What the rules measured, with the threshold that holds for the language."""
        row = self._get("rules")
        if not row:
            return []
        limits = rule_table.thresholds(self._run.recipe.corpus.rules, self._found.row["language"])
        rows = []
        for signal, value in row.items():
            if signal in ("id", *_VERDICT):
                continue
            bounds = [
                _bound(rule, limits[rule.name], value)
                for rule in rule_table.RULES
                if rule.signal == signal and rule.name in limits
            ]
            shown = "not measured" if value is None else value_text(value)
            rows.append([signal, shown, ", ".join(bounds) or "no rule"])
        return rows


def _bound(rule: rule_table.Rule, limit: float, value: object) -> str:
    if isinstance(value, bool):
        return "must be no" if rule.kind == "max" else "must be yes"
    return f"at {'most' if rule.kind == 'max' else 'least'} {value_text(limit)}"
