"""The parts of the page about what a phase's time went into, and what it has read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from snowcoder_jax.reports import formats, training_plots
from snowcoder_jax.reports.markup import Html, at, join, mapping, sequence, table, tag

# Kind -> what the page calls it; in the order of the bars, the time that counts first.
KINDS = {
    "step": "steps",
    "compile": "compiling",
    "data": "waiting for data",
    "checkpoint": "saving",
    "evaluation": "evaluation",
    "restart": "lost to restarts",
    "start_up": "start-up",
}
# Sources shown by name; the others are summed.
MAX_SOURCES = 12

Columns = list[tuple[str, Any, bool]]


def where_time_went(report: dict[str, Any], columns: Columns) -> list[object]:
    """A stacked bar and a table; nothing where no phase kept an account."""
    accounts = {name: _seconds(report, name, phase) for name, phase, _ in columns}
    accounts = {name: seconds for name, seconds in accounts.items() if seconds}
    if not accounts:
        return []
    bars = [
        training_plots.TimeBar(name, {KINDS[k]: s for k, s in seconds.items()})
        for name, seconds in accounts.items()
    ]
    header = ["", "goodput", *KINDS.values(), "in all"]
    rows = [
        [
            name,
            formats.percent(formats.share(seconds.get("step", 0.0), sum(seconds.values()))),
            *(formats.duration(seconds.get(kind)) for kind in KINDS),
            formats.duration(sum(seconds.values())),
        ]
        for name, seconds in accounts.items()
    ]
    return [
        tag("h3", "Where the time went"),
        tag(
            "p",
            "Goodput is the share of the time in which the devices compute steps that last. What a "
            "kill undoes, and every start-up after the first, is lost to restarts.",
        ),
        training_plots.time_bars(bars, list(KINDS.values())),
        table(header, rows, numeric=tuple(range(1, len(header)))),
    ]


def _seconds(report: dict[str, Any], name: str, phase: Any) -> dict[str, float]:
    """By kind, the phase's evaluation added; empty where no attempt kept an account."""
    found = {k: at(phase, "account", "seconds", k) for k in KINDS}
    found["evaluation"] = at(report, "seconds", f"evaluate {name}")
    seconds = {k: s for k, value in found.items() if (s := formats.number(value)) is not None}
    return seconds if seconds.get("step") else {}


def what_was_read(columns: Columns) -> list[object]:
    """Tokens by language and by source; nothing where no phase tells."""
    by_language: dict[str, Counter[str]] = {}
    by_source: dict[str, Counter[str]] = {}
    for name, phase, _ in columns:
        for seen in sequence(at(phase, "seen")):
            source = str(at(seen, "source") or "not known")
            for language, tokens in mapping(at(seen, "tokens_by_language")).items():
                count = round(formats.number(tokens) or 0)
                by_language.setdefault(language, Counter())[name] += count
                by_source.setdefault(source, Counter())[name] += count
    if not by_language:
        return []
    return [
        tag("h3", "What was read"),
        tag(
            "p",
            "Tokens of the files that each phase read, every repetition counted. Of an epoch that "
            "was not ended they are taken in proportion to the sequences read of each shard.",
        ),
        _read_table("language", by_language, columns),
        _read_table("source", by_source, columns),
    ]


def _read_table(what: str, counts: dict[str, Counter[str]], columns: Columns) -> Html:
    names = [name for name, _, _ in columns]
    totals = {name: sum(count[name] for count in counts.values()) for name in names}
    ordered = sorted(counts, key=lambda key: (-counts[key].total(), key))
    shown = {key: counts[key] for key in ordered[:MAX_SOURCES]}
    if others := ordered[MAX_SOURCES:]:
        shown[f"{len(others)} others"] = sum((counts[key] for key in others), Counter())
    rows = [
        [key, *(_read_cell(count[name], totals[name]) for name in names)]
        for key, count in shown.items()
    ]
    header = [what, *(_column(name, control) for name, _, control in columns)]
    return table(header, rows, numeric=tuple(range(1, len(header))), class_="counts")


def _column(name: str, is_control: bool) -> object:
    return join([name, " ", tag("small", "control arm")]) if is_control else name


def _read_cell(tokens: int, total: int) -> object:
    if not tokens:
        return "–"
    return join([formats.count(tokens), " ", tag("small", formats.percent_text(tokens / total))])
