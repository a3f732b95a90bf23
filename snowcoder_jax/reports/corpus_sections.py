"""The parts of the page about the data: funnel, languages, annotator, selections."""

from __future__ import annotations

from typing import Any

from snowcoder_jax.reports import formats, plots
from snowcoder_jax.reports.highlight import code_block
from snowcoder_jax.reports.markup import (
    Html,
    at,
    bar,
    details,
    join,
    mapping,
    sequence,
    table,
    tag,
)

NUM_REPOSITORIES_SHOWN = 12
NUM_HISTOGRAMS_SHOWN = 6


def corpus(report: dict[str, Any]) -> list[object]:
    """From files to kept documents: what is left after each stage, and why the rest went."""
    data = mapping(report.get("corpus"))
    documents, kept = data.get("documents"), data.get("kept_documents")
    share = formats.percent_text(formats.share(kept, documents))
    content: list[object] = [
        tag(
            "p",
            formats.count(documents),
            " documents (",
            formats.size(data.get("bytes")),
            ") came in; ",
            formats.count(kept),
            " (",
            formats.size(data.get("kept_bytes")),
            ") were kept",
            f", {share}." if share else ".",
        )
    ]
    stages = sequence(data.get("funnel"))
    if stages:
        content.append(_funnel_table(stages))
    content.append(
        tag(
            "div",
            _reasons("Why documents were dropped", data.get("dropped"), documents),
            _reasons("Files that never became documents", data.get("ledger"), None),
            class_="columns",
        )
    )
    return content


def _funnel_table(stages: list[Any]) -> Html:
    largest = max((formats.number(at(s, "documents")) or 0.0 for s in stages), default=0.0)
    rows = []
    for stage in stages:
        reasons = mapping(at(stage, "reasons"))
        ordered = sorted(reasons.items(), key=lambda item: -(formats.number(item[1]) or 0.0))
        why = ", ".join(
            f"{reason.replace('_', ' ')} {formats.count_text(n) or '?'}" for reason, n in ordered
        )
        documents = at(stage, "documents")
        rows.append(
            [
                at(stage, "stage") or "?",
                formats.count(documents),
                bar(formats.share(documents, largest)),
                formats.size(at(stage, "bytes")),
                tag("span", why or "—", class_="small"),
            ]
        )
    header = ["after stage", "documents", "", "bytes", "taken out by it"]
    return table(header, rows, numeric=(1, 3), class_="bars")


def _reasons(caption: str, counts: Any, whole: Any, unit: str = "files") -> Html | None:
    items = sorted(mapping(counts).items(), key=lambda i: (-(formats.number(i[1]) or 0.0), i[0]))
    if not items:
        return None
    largest = formats.number(items[0][1])
    rows = []
    for reason, n in items:
        share = formats.percent_text(formats.share(n, whole))
        rows.append(
            [
                reason.replace("_", " "),
                formats.count(n),
                tag("span", share or "", class_="small"),
                bar(formats.share(n, largest), "second"),
            ]
        )
    header = ["reason", unit, "", ""]
    return table(header, rows, caption=caption, numeric=(1, 2), class_="bars")


def sources(report: dict[str, Any]) -> list[object]:
    """Languages, licences and repositories by size."""
    data = mapping(report.get("corpus"))
    languages = _by_bytes(mapping(data.get("languages")))
    licenses = _by_bytes(mapping(data.get("licenses")))
    language_rows = [
        [
            name,
            formats.count(at(facts, "documents")),
            formats.size(at(facts, "bytes")),
            formats.size(at(facts, "kept_bytes")),
            _bar_of(facts, languages),
        ]
        for name, facts in languages
    ]
    license_rows = [
        [
            name,
            formats.count(at(facts, "documents")),
            formats.size(at(facts, "bytes")),
            _bar_of(facts, licenses),
        ]
        for name, facts in licenses
    ]
    nothing = tag("p", formats.missing())
    return [
        tag("h3", "Languages"),
        table(
            ["language", "documents", "size", "kept", ""],
            language_rows,
            numeric=(1, 2, 3),
            class_="bars",
        )
        if language_rows
        else nothing,
        tag("h3", "Licences"),
        table(["licence", "documents", "size", ""], license_rows, numeric=(1, 2), class_="bars")
        if license_rows
        else nothing,
        *_repositories(sequence(data.get("repositories"))),
    ]


def _by_bytes(groups: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(groups.items(), key=lambda g: (-(formats.number(at(g[1], "bytes")) or 0.0), g[0]))


def _bar_of(facts: Any, groups: list[tuple[str, Any]]) -> Html:
    return bar(formats.share(at(facts, "bytes"), at(groups[0][1], "bytes")))


def _repositories(repositories: list[Any]) -> list[object]:
    if not repositories:
        return []
    ordered = sorted(repositories, key=lambda r: -(formats.number(at(r, "bytes")) or 0.0))

    def rows(part: list[Any]) -> Html:
        lines = [
            [
                at(r, "repo") or "?",
                formats.count(at(r, "documents")),
                formats.size(at(r, "bytes")),
                formats.text(at(r, "license") or "unknown"),
                "held out" if at(r, "heldout") else "",
            ]
            for r in part
        ]
        return table(["repository", "documents", "size", "licence", ""], lines, numeric=(1, 2))

    shown, rest = ordered[:NUM_REPOSITORIES_SHOWN], ordered[NUM_REPOSITORIES_SHOWN:]
    num_heldout = sum(1 for r in ordered if at(r, "heldout"))
    summary = f"{len(ordered)} repositories, {num_heldout} of them held out for measuring"
    return [
        tag("h3", "Repositories"),
        details(
            summary,
            rows(shown),
            details(f"the {len(rest)} smaller ones", rows(rest)) if rest else None,
        ),
    ]


def annotator(report: dict[str, Any]) -> list[object]:
    """How well quality is told apart, the scores by language, the best and the worst files."""
    data = mapping(report.get("annotator"))
    positives = ", ".join(
        f"{formats.count_text(n) or '?'} {origin.replace('_', ' ')}"
        for origin, n in mapping(data.get("positives")).items()
    )
    by_epoch = [x for x in sequence(data.get("auc_by_epoch")) if formats.is_number(x)]
    epochs = (
        f" (by epoch: {', '.join(formats.bits_text(x) or '' for x in by_epoch)})"
        if len(by_epoch) > 1
        else ""
    )
    facts = tag(
        "p",
        "A linear head on the encoder ",
        tag("b", formats.text(data.get("encoder"))),
        ", taught with ",
        positives or formats.missing(),
        " as good examples against ",
        formats.count(data.get("negatives")),
        " random documents. On examples kept aside it ranks "
        "a good one above a random one with an area under the ROC curve of ",
        tag("b", formats.bits(data.get("auc"))),
        " (0.5 is chance, 1 perfect)",
        tag("span", epochs, class_="small"),
        ". It scored ",
        formats.count(data.get("scored_files")),
        " files.",
    )
    return [
        facts,
        plots.score_histograms(_histograms(report, mapping(data.get("histogram")))),
        *_scored_files("The best-scored files", sequence(data.get("best"))),
        *_scored_files("The worst-scored files", sequence(data.get("worst"))),
    ]


def _histograms(report: dict[str, Any], histogram: dict[str, Any]) -> list[plots.Histogram]:
    edges = [e for e in sequence(histogram.get("edges")) if formats.is_number(e)]
    result = []
    for language, counts in mapping(histogram.get("counts_by_language")).items():
        thresholds = {
            name: value
            for name, selection in mapping(report.get("selections")).items()
            if (value := formats.number(at(selection, "thresholds", language))) is not None
        }
        numbers = [formats.number(c) or 0.0 for c in sequence(counts)]
        result.append(plots.Histogram(language, edges, numbers, thresholds))
    result.sort(key=lambda h: (-sum(h.counts), h.label))
    return result[:NUM_HISTOGRAMS_SHOWN]


def _scored_files(title: str, files: list[Any]) -> list[object]:
    if not files:
        return []
    blocks = []
    for file in files:
        language = at(file, "language")
        summary = join(
            [
                tag("b", formats.bits(at(file, "score")), class_="score"),
                " ",
                str(at(file, "repo") or "?"),
                " ",
                tag("span", str(at(file, "path") or "?"), class_="path"),
                " ",
                tag("small", str(language or "")),
            ]
        )
        blocks.append(details(summary, code_block(at(file, "code"), str(language or ""))))
    return [tag("h3", title), *blocks]


def selections(report: dict[str, Any]) -> list[object]:
    """What each selection took: size, threshold and share of every language."""
    rows = []
    for name, selection in mapping(report.get("selections")).items():
        shares = mapping(at(selection, "share"))
        languages = dict.fromkeys(
            [
                *shares,
                *mapping(at(selection, "thresholds")),
                *mapping(at(selection, "effective_percent")),
            ]
        )
        ordered = sorted(languages, key=lambda n: (-(formats.number(shares.get(n)) or 0.0), n))
        for i, language in enumerate(ordered or ["—"]):
            threshold = at(selection, "thresholds", language)
            rows.append(
                [
                    name if i == 0 else "",
                    formats.count(at(selection, "documents")) if i == 0 else "",
                    formats.count(at(selection, "tokens")) if i == 0 else "",
                    language,
                    formats.percent(shares.get(language)),
                    formats.percentage(at(selection, "effective_percent", language)),
                    formats.bits(threshold)
                    if threshold is not None
                    else tag("span", "no threshold", class_="none"),
                ]
            )
    if not rows:
        return [tag("p", formats.missing())]
    header = [
        "selection",
        "documents",
        "tokens",
        "language",
        "share",
        "taken of its language",
        "lowest score",
    ]
    return [table(header, rows, numeric=(1, 2, 4, 5, 6))]
