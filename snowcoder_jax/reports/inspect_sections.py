"""The parts of the inspect page that are counts: funnel, rules, signals, scores, selections.

Each takes the run and its figures and gives the content of a section; where a stage was not run
yet it says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from snowcoder_jax.reports import corpus_facts, corpus_sections, formats, inspect_plots, plots
from snowcoder_jax.reports.inspect_data import NUM_SCORE_BINS, Corpus
from snowcoder_jax.reports.inspect_run import Run
from snowcoder_jax.reports.inspect_samples import Facts
from snowcoder_jax.reports.inspect_tallies import Tally, common_grid
from snowcoder_jax.reports.markup import Html, bar, details, join, table, tag
from snowcoder_jax.text import rule_table

NUM_LANGUAGES = 6
# The command that does a step which others need.
_COMMANDS = {
    "quality": "annotate",
    "select": "select",
    "pack": "train",
    "synthesize": "synthesize",
}
_STAGE_ORDER = ("opt_out", "license", "rules", "duplicates", "contamination")
_OTHERS = "others"
_LISTED = "files listed"


def not_there(step: str) -> Html:
    """What stands in a section whose stage was not run."""
    command = _COMMANDS.get(step, "prepare")
    return tag(
        "p",
        "Not there yet: the step ",
        tag("code", step),
        " of this run is not done (",
        tag("code", f"snowcoder {command}"),
        " does it).",
        class_="none",
    )


def num_of(n: int, noun: str) -> str:
    """`1 file`, `2 files`, `3 repositories`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{formats.count_text(n)} {noun if n == 1 else plural}"


def missing_steps(run: Run) -> list[str]:
    """The steps that the page shows and the run has not done."""
    steps = ["rules", "duplicates", "contamination", "secrets", "policy", "tokens", "quality"]
    selections = [s.name for s in run.recipe.selections if s.source == "corpus"]
    steps += [f"select {name}" for name in selections]
    steps += sorted(step for step in run.folders if step.startswith("pack "))
    return [step for step in steps if step in run.folders and not run.is_done(step)]


# The funnel


def funnel(run: Run, corpus: Corpus) -> list[object]:
    """From files listed to packed sequences: what each step left, and what it took out."""
    rows = list(_funnel_rows(run, corpus))
    largest = float(corpus.ingest["documents"])
    lines = [
        [
            name,
            formats.count(sizes["files"]),
            bar(formats.share(sizes["files"], largest) if name != _LISTED else None),
            formats.size(sizes["bytes"]) if sizes["bytes"] is not None else "",
            formats.count(sizes["tokens"]) if sizes["tokens"] is not None else "",
            tag("span", _reasons(reasons), class_="small why"),
        ]
        for name, sizes, reasons in rows
    ]
    header = ["what is left", "files", "", "bytes", "tokens", "taken out before it"]
    note = tag(
        "p",
        "Bytes of the files listed are those of known languages only. Selections are drawn from "
        "the train side, each for itself; a packed set counts the tokens of its sequences, names "
        "of repositories and files included.",
        class_="note",
    )
    content: list[object] = [table(header, lines, numeric=(1, 3, 4), class_="bars"), note]
    if not run.is_done("policy"):
        content.append(not_there("policy"))
    if len(corpus.ingest["sources"]) > 1:
        content += [tag("h3", "Sources"), _sources(corpus)]
    return content


def _funnel_rows(run: Run, corpus: Corpus) -> Iterator[tuple[object, Facts, dict[str, int]]]:
    left = sizes_of(corpus.groups)
    listed = sum(reason["bytes"] for reason in corpus.ledger.values())
    all_bytes = left["bytes"] + listed if left["bytes"] is not None else None
    yield _LISTED, {"files": corpus.ingest["files"], "bytes": all_bytes, "tokens": None}, {}
    yield "documents", left, corpus.ingest["ledger"]
    by_stage: defaultdict[str, list[Facts]] = defaultdict(list)
    for group in corpus.groups:
        if group["stage"] is not None:
            by_stage[group["stage"]].append(group)
    known = [s for s in _STAGE_ORDER if s in by_stage]
    for stage in [*known, *sorted(set(by_stage) - set(known))]:
        gone = sizes_of(by_stage[stage])
        left = {n: None if left[n] is None else left[n] - (gone[n] or 0) for n in left}
        reasons: Counter[str] = Counter()
        for group in by_stage[stage]:
            reasons[group["rule"]] += group["files"]
        yield f"after {stage}", left, dict(reasons)
    for split in ("train", "heldout") if run.is_done("policy") else ():
        part = sizes_of([g for g in corpus.groups if g["split"] == split])
        name = "train side" if split == "train" else "held out, whole repositories"
        yield name, part, {}
    for name, selected in corpus.selections.items():
        yield join(["selection ", tag("b", name)]), {**_NOTHING, **selected}, {}
    for step, packed in corpus.packed.items():
        sizes = {"files": packed.num_documents, "bytes": None, "tokens": packed.num_tokens}
        records = f"{num_of(packed.num_records, 'sequence')} of {packed.sequence_length}"
        name = join(["packed ", tag("b", step.removeprefix("pack ").rsplit(" ", 1)[0])])
        yield join([name, " ", tag("small", records)]), sizes, {}


_NOTHING: Facts = {"files": 0, "bytes": 0, "tokens": 0}


def sizes_of(groups: Iterable[Facts]) -> Facts:
    """Sums; None where no row knows its size."""
    sizes: Facts = {"files": 0, "bytes": None, "tokens": None}
    for group in groups:
        for name in sizes:
            if group[name] is not None:
                sizes[name] = (sizes[name] or 0) + group[name]
    return sizes


def _reasons(reasons: dict[str, int]) -> str:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{r.replace('_', ' ')} {formats.count_text(n)}" for r, n in ordered) or "—"


def _sources(corpus: Corpus) -> Html:
    rows = []
    for name, facts in sorted(corpus.ingest["sources"].items()):
        kept = [g for g in corpus.groups if g["source"] == name and g["verdict"] == "pass"]
        rows.append(
            [
                name,
                formats.count(facts["files"]),
                formats.count(facts["documents"]),
                formats.size(facts["bytes"]),
                formats.count(sum(g["files"] for g in kept)),
            ]
        )
    header = ["source", "files listed", "documents", "bytes", "kept"]
    return table(header, rows, numeric=(1, 2, 3, 4))


# Rules and signals


def rules(run: Run, corpus: Corpus) -> list[object]:
    """What every rule dropped, by language."""
    if not run.is_done("rules"):
        return [not_there("rules")]
    figures = corpus.rules
    dropped: Counter[str] = Counter()
    by_language: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (stage, verdict, name, language), n in corpus.verdicts.items():
        if stage == "rules" and verdict != "pass":
            dropped[name] += n
            by_language[name][language] += n
    on = {name for name, _ in figures.fails}
    shown = sorted({*dropped, *(n for (n, _), k in figures.fails.items() if k)})
    shown.sort(key=lambda name: -dropped[name])
    columns, others = _split_languages(corpus)
    lines = []
    for name in shown:
        rule = rule_table.BY_NAME.get(name)
        beyond = sum(n for (r, _), n in figures.fails.items() if r == name)
        alone = sum(n for (r, _), n in figures.fails_alone.items() if r == name)
        counts = by_language[name]
        lines.append(
            [
                join([tag("a", name, href=f"#rule-{name}"), _description(rule)]),
                formats.count(dropped[name]),
                formats.count(beyond) if rule else "",
                formats.count(alone) if rule else "",
                *(_zero_as_dot(counts[language]) for language in columns),
                *([_zero_as_dot(sum(counts[o] for o in others))] if others else []),
            ]
        )
    header = ["rule", "dropped", "beyond it", "beyond it alone", *columns]
    header += [_OTHERS] if others else []
    preset = run.recipe.corpus.rules.preset
    quiet = sorted(on - set(shown))
    content: list[object] = [
        tag(
            "p",
            "Thresholds: the preset ",
            tag("b", preset),
            ", with changes of the recipe. " if run.recipe.corpus.rules.thresholds else ". ",
            "A file is counted as dropped under the first rule that it fails; “beyond it” counts "
            "every file past the threshold, “beyond it alone” those that no other rule would drop.",
        )
    ]
    if lines:
        content.append(table(header, lines, numeric=range(1, len(header)), class_="counts"))
    else:
        content.append(tag("p", "No file was dropped by a rule.", class_="none"))
    if quiet:
        content.append(tag("p", "On, and met by no file: ", ", ".join(quiet), ".", class_="note"))
    return content


def _description(rule: rule_table.Rule | None) -> Html:
    text = "the stage could not judge the file" if rule is None else rule.description
    return tag("small", text, class_="below")


def _zero_as_dot(count: int) -> object:
    return formats.count(count) if count else tag("span", "·", class_="none")


def _split_languages(corpus: Corpus) -> tuple[list[str], list[str]]:
    languages = corpus.languages()
    return languages[:NUM_LANGUAGES], languages[NUM_LANGUAGES:]


def signals(run: Run, corpus: Corpus) -> list[object]:
    """A histogram of each signal for each of the largest languages, thresholds as lines."""
    if not run.is_done("rules"):
        return [not_there("rules")]
    figures = corpus.rules
    languages, others = _split_languages(corpus)
    content: list[object] = [
        tag(
            "p",
            "Files by value, the languages on one axis and each to its own height; the line is "
            "the threshold of the language, and what is beyond it has the other colour.",
            f" The {len(languages)} largest of {len(languages) + len(others)} languages are shown."
            if others
            else None,
            " An axis with powers of ten is logarithmic; values of 0 stand apart at its left.",
        )
    ]
    for signal in figures.signals():
        of_signal = [r for r in rule_table.RULES if r.signal == signal]
        tallies = {
            language: tally
            for language in languages
            if (tally := figures.tallies.get((signal, language))) and tally.num_values
        }
        if not tallies:
            continue
        limits = {
            language: [t[r.name] for r in of_signal if r.name in t]
            for language in tallies
            for t in [figures.thresholds(language)]
        }
        grid = common_grid([*tallies.values()], [t for of in limits.values() for t in of])
        panels = [
            inspect_plots.histogram(name, _panel_note(tally), tally.bins(grid), limits[name])
            for name, tally in tallies.items()
        ]
        num_failed = sum(tally.num_failed for tally in tallies.values())
        what = ", ".join(r.description for r in of_signal) or "no rule looks at it"
        beyond = f": {num_of(num_failed, 'file')} beyond" if num_failed else ""
        summary = join([tag("b", signal.replace("_", " ")), " ", tag("small", f"{what}{beyond}")])
        content.append(details(summary, inspect_plots.grid(panels), open_=num_failed > 0))
    if figures.flags:
        content += [tag("h3", "Yes-or-no signals"), _flags(corpus)]
    return content


def _panel_note(tally: Tally) -> str:
    parts = [num_of(tally.num_values, "file")]
    if tally.num_failed:
        parts.append(f"{formats.count_text(tally.num_failed)} beyond")
    if tally.num_missing:
        parts.append(f"{formats.count_text(tally.num_missing)} not measured")
    return ", ".join(parts)


def _flags(corpus: Corpus) -> Html:
    languages, others = _split_languages(corpus)
    flags = corpus.rules.flags
    names = list(dict.fromkeys(name for name, _ in flags))
    header = ["yes", "all languages", *languages, *([_OTHERS] if others else [])]
    rows = []
    for name in names:
        total = sum(n for (signal, _), n in flags.items() if signal == name)
        counts = [flags[name, language] for language in languages]
        rest = [sum(flags[name, o] for o in others)] if others else []
        cells = [_zero_as_dot(n) for n in (total, *counts, *rest)]
        rows.append([name.replace("_", " "), *cells])
    return table(header, rows, numeric=range(1, len(header)), class_="counts")


# Scores and selections


def scores(run: Run, corpus: Corpus) -> list[object]:
    """The annotator's scores by language, with the cuts of the selections that rank by them."""
    if "quality" not in run.folders:
        return [tag("p", "No selection of this recipe ranks by quality.", class_="none")]
    if not run.is_done("quality"):
        return [not_there("quality")]
    cuts = {name: cut for name, cut in _cuts(run) if cut["by_score"]}
    edges = np.linspace(0, 1, NUM_SCORE_BINS + 1).tolist()
    panels = []
    for language in [n for n in corpus.languages() if n in corpus.scores][:NUM_LANGUAGES]:
        thresholds = {
            name: cut["thresholds"][language]
            for name, cut in cuts.items()
            if language in cut["thresholds"]
        }
        panels.append(
            plots.Histogram(language, edges, corpus.scores[language].tolist(), thresholds)
        )
    nothing = tag("p", "No file was scored.", class_="none")
    return [plots.score_histograms(panels) or nothing]


def _cuts(run: Run) -> Iterator[tuple[str, Facts]]:
    for selection in run.recipe.selections:
        step = f"select {selection.name}"
        if selection.source == "corpus" and run.is_done(step):
            cut = corpus_facts.selection(run.folders[step])
            yield selection.name, {**cut, "by_score": selection.order == "quality"}


def selections(run: Run, corpus: Corpus) -> list[object]:
    """What each selection took of every language."""
    facts: dict[str, Any] = dict(_cuts(run))
    undone = [s for s in missing_steps(run) if s.startswith("select ")]
    content: list[object] = []
    if facts:
        content += corpus_sections.selections({"selections": facts})
    if undone:
        names = ", ".join(step.removeprefix("select ") for step in undone)
        content += [not_there("select"), tag("p", f"Waiting: {names}.", class_="note")]
    return content
