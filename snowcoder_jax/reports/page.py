"""One static page of a run: no network, no script, everything in one file.

`render` makes the HTML of a report, `write_report` writes `report.json` and `report.html`. Any
part of a report may be missing or null; the page then says "not measured".
"""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from snowcoder_jax import storage
from snowcoder_jax.reports import (
    corpus_sections,
    formats,
    story,
    synthesis_sections,
    training_sections,
)
from snowcoder_jax.reports.markup import Html, at, join, sequence, tag

# The contents of files stand on the page: even if some got through the escaping, the browser
# must run no script and load nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

# (anchor, title, builder), in the order of the page.
_SECTIONS = (
    ("training", "Training", training_sections.training),
    ("bits", "Bits per byte", training_sections.bits_per_byte),
    ("problems", "Problems", training_sections.problems),
    ("corpus", "Corpus", corpus_sections.corpus),
    ("sources", "Languages and licences", corpus_sections.sources),
    ("annotator", "Quality annotator", corpus_sections.annotator),
    ("selections", "Selections", corpus_sections.selections),
    ("synthesis", "Synthetic data", synthesis_sections.synthesis),
    ("times", "Time and memory", training_sections.times),
    ("stand-ins", "What stands in for what", training_sections.stand_ins),
    ("environment", "Environment", training_sections.environment),
)


def render(report: dict[str, Any]) -> str:
    """The page of a report, as a whole HTML document.

    Args:
      report: the contents of `report.json` (see `collect.py`); phases, stages and steps are shown
        in the order they stand there. A control arm's points in `curve` are drawn dashed.
    """
    sections = [
        tag("section", tag("h2", name), *build(report), id=anchor)
        for anchor, name, build in _SECTIONS
    ]
    links = [tag("a", name, href=f"#{anchor}") for anchor, name, _ in _SECTIONS]
    return shell(
        f"{report.get('name') or 'unnamed run'} · SnowCoder-JAX",
        _opening(report),
        tag("nav", *links, aria_label="Sections"),
        tag("main", *sections),
        tag(
            "footer",
            "Every figure on this page was computed in this run; the raw ones are in "
            "report.json beside it and appear when the pointer rests on a figure.",
        ),
    )


def shell(title: str, *content: object) -> str:
    """A whole HTML document of the project's style, which runs no script and loads nothing."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(_style_sheet())),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", *content), lang="en") + "\n"


def _style_sheet() -> str:
    return importlib.resources.files(__package__).joinpath("page.css").read_text("utf-8")


def _opening(report: dict[str, Any]) -> Html:
    faults = sequence(report.get("faults"))
    unfinished = [str(s) for s in sequence(report.get("unfinished"))]
    findings = story.findings(report)
    return tag(
        "header",
        tag("p", "SnowCoder-JAX run", class_="kicker"),
        tag("h1", report.get("name") or "unnamed run"),
        tag(
            "p",
            tag("b", "This run is not finished"),
            ": what is missing below has not been measured yet.",
            f" Still to come: {', '.join(unfinished)}." if unfinished else None,
            class_="banner",
        )
        if report.get("status") != "complete"
        else None,
        tag(
            "div",
            tag("b", "Something is wrong with this run:"),
            tag("ul", *(tag("li", f) for f in faults)),
            class_="banner fault",
            role="alert",
        )
        if faults
        else None,
        tag("p", story.lead(report), class_="lead"),
        tag("ul", *(tag("li", f) for f in findings), class_="findings") if findings else None,
        _key_figures(report),
    )


def _key_figures(report: dict[str, Any]) -> Html:
    phases = story.trained_phases(report)
    last = list(phases.values())[-1] if phases else None
    tokens = [t for p in phases.values() if (t := formats.number(at(p, "tokens"))) is not None]
    score = at(last, "pass_at_1")
    solved = formats.of(at(score, "passed"), at(score, "total"))
    order = at(report, "baseline", "order")
    yardstick = formats.bits_text(at(report, "baseline_bits_per_byte", "all"))
    solutions = formats.bits_text(at(last, "solutions_bits_per_byte"))
    requests = formats.count_text(at(report, "synthesis", "requests"))
    rows: list[tuple[str, object, object]] = [
        ("model", formats.count(at(report, "model", "parameters")), "parameters"),
        ("trained on", formats.count(sum(tokens) if tokens else None), "tokens"),
        (
            "held-out code",
            formats.bits(at(last, "heldout_bits_per_byte", "all")),
            f"bits per byte ({order or 'n'}-gram: {yardstick or formats.NOT_MEASURED})",
        ),
        (
            "problems solved",
            formats.missing() if solved == formats.NOT_MEASURED else solved,
            f"solutions: {solutions} bits per byte" if solutions else "greedy, one try",
        ),
        (
            "corpus",
            formats.count(at(report, "corpus", "kept_documents")),
            f"documents kept of {formats.count_text(at(report, 'corpus', 'documents')) or '?'}",
        ),
        ("annotator", formats.bits(at(report, "annotator", "auc")), "area under the ROC curve"),
        (
            "synthesis",
            formats.percent(at(report, "synthesis", "yield")),
            f"kept of {requests or 'all'} requests",
        ),
        (
            "time",
            formats.duration(story.total_seconds(report)),
            join(["peak memory ", formats.size(report.get("peak_memory_bytes"))]),
        ),
    ]
    cards = [
        tag("div", tag("dt", name), tag("dd", tag("b", value), tag("small", unit)))
        for name, value, unit in rows
    ]
    return tag("dl", *cards, class_="figures")


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numpy scalars as Python's, NaN and infinities as null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_report(report: dict[str, Any], folder: str) -> None:
    """Write `report.json` and `report.html` into `folder` (local or a URL), each whole or not.

    The page is made first: where that fails, neither file changes.

    Raises:
      InputError: the folder cannot be written.
      MachineError: the disk is full.
    """
    report = plain(report)
    page = render(report).encode("utf-8")
    # Not `storage.write_json`: it sorts keys, and the order of phases and steps is meant.
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    storage.write_bytes(storage.join(folder, "report.json"), text.encode())
    storage.write_bytes(storage.join(folder, "report.html"), page)
