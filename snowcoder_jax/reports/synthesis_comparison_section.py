"""Synthetic documents beside selected ones, and the whole corpus: a table and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from snowcoder_jax.reports import formats, synthesis_plots
from snowcoder_jax.reports.markup import Html, at, bar, join, mapping, sequence, table, tag
from snowcoder_jax.reports.synthesis_comparison import METRICS, SIDES

# Metric -> the title of its panel.
_PANELS = {
    "tokens": "tokens a file",
    "documentation": "documentation, share",
    "natural_language": "natural language, share",
    "functions": "functions a file",
    "imports": "imports a file",
    "score": "annotator's score",
}
_SHARES = ("documentation", "natural_language", "parses")


def comparison(data: dict[str, Any]) -> list[object]:
    """The comparison of a report, or of `comparison.json`; nothing where it was not measured."""
    measured = mapping(data.get("sides"))
    names = [name for name in SIDES if name in measured]
    if not names:
        return []
    sides = {name: measured[name] for name in names}
    return [
        tag("h3", "How it differs from selected code"),
        _introduction(data, sides),
        _table(data, sides, names),
        tag(
            "p",
            "Medians, below them the 10th and 90th percentile; of the means, the difference "
            "synthetic minus selected, below it its 95% bootstrap interval. “Larger” is how often "
            "a synthetic document has the larger value of a pair (50%: no difference).",
            class_="note",
        ),
        synthesis_plots.distributions(_panels(data, sides), names),
        _modules(sides, names),
    ]


def _introduction(data: dict[str, Any], sides: dict[str, Any]) -> Html:
    sizes = ", ".join(
        f"{formats.of(at(side, 'sampled'), at(side, 'documents'))} {name} documents"
        for name, side in sides.items()
    )
    given = formats.percent_text(at(sides, "synthetic", "given_share"))
    parts = [
        f"Measured on samples drawn by seeded hash: {sizes}; the selection is "
        f"“{data.get('seeds') or '?'}”, which the seeds come from. Languages have the shares that "
        "they have among the synthetic documents."
    ]
    if formats.number(at(sides, "synthetic", "given_share")):
        parts.append(f" {given} of the synthetic bytes were given heads of seeds.")
    return tag("p", *parts)


def _table(data: dict[str, Any], sides: dict[str, Any], names: list[str]) -> Html:
    rows: list[list[object]] = []
    for metric, label in METRICS.items():
        figures = [mapping(at(sides, name, "figures", metric)) for name in names]
        if not any(formats.number(f.get("num")) for f in figures):
            continue
        difference = at(data, "differences", metric)
        rows.append(
            [
                _label(label),
                *(_figure(metric, f) for f in figures),
                _difference(metric, difference),
                formats.percent(at(difference, "larger")) if difference else "",
            ]
        )
    for label, keys, formatted in _OTHERS:
        values = [at(sides, name, *keys) for name in names]
        if keys[-1] == "not_in_second_share" and len(values) > 1:
            values[1] = None  # its own words
        if any(v is not None for v in values):
            cells = [formatted(v) if v is not None else tag("span", "—") for v in values]
            rows.append([_label(_with_words(label, sides)), *cells, "", ""])
    dropped = [mapping(at(sides, name, "duplicates")) for name in names]
    if any(dropped):
        cells = [
            formats.percent(formats.share(d.get("dropped"), d.get("documents")))
            if d
            else tag("span", "—")
            for d in dropped
        ]
        label = "taken out as duplicates (of all documents, before these were drawn)"
        rows.append([_label(label), *cells, "", ""])
    header = ["of a document", *names, "difference of means", "larger"]
    return table(header, rows, numeric=range(1, len(header)), class_="compare")


# Label -> where it stands in a side, and how it is shown.
_OTHERS: tuple[tuple[str, tuple[str, ...], Callable[[object], Html]], ...] = (
    (
        "5-grams of words met in another document (of as many documents of each side)",
        ("repeated_share",),
        formats.percent,
    ),
    ("distinct words (of {words} drawn from each side)", ("vocabulary", "distinct"), formats.count),
    (
        "of them, not met in the selected (among as many words)",
        ("vocabulary", "not_in_second_share"),
        formats.percent,
    ),
    (
        "imports of the standard library (of all imports of Python files)",
        ("modules", "standard_library_share"),
        formats.percent,
    ),
)


def _with_words(label: str, sides: dict[str, Any]) -> str:
    words = formats.count_text(at(sides, "synthetic", "vocabulary", "words"))
    return label.format(words=words or "?")


def _label(text: str) -> Html:
    """The part in brackets, and what follows it, below."""
    name, _, rest = text.partition(" (")
    if not rest:
        return tag("span", name)
    inner, _, unit = rest.rpartition(")")
    return join([name + unit, tag("small", inner, class_="below")])


def _figure(metric: str, figure: dict[str, Any]) -> Html:
    if not formats.number(figure.get("num")):
        return formats.missing()
    if metric == "parses":
        return formats.percent(figure.get("mean"))
    shown = formats.percent_text if metric in _SHARES else formats.count_text
    if metric == "score":
        shown = formats.bits_text
    median, low, high = (shown(figure.get(name)) for name in ("median", "p10", "p90"))
    if median is None:
        return formats.missing()
    title = f"mean {figure.get('mean')!r} of {figure.get('num')} documents"
    spread = tag("small", f"{low} – {high}", class_="below") if low and high else None
    return join([tag("span", median, title=title), spread])


def _difference(metric: str, difference: Any) -> Html:
    """In grey where the interval holds 0; neither direction is better by itself."""
    low, high = formats.number(at(difference, "low")), formats.number(at(difference, "high"))
    value = formats.number(at(difference, "difference"))
    if value is None or low is None or high is None:
        return Html("")
    interval = f"{_signed(metric, low)} to {_signed(metric, high)}"
    class_ = None if low > 0 or high < 0 else "none"
    shown = tag("span", _signed(metric, value), class_=class_)
    return join([shown, tag("small", interval, class_="below")])


def _signed(metric: str, value: float) -> str:
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
    if metric in _SHARES:
        return f"{sign}{100 * abs(value):.1f} points"
    if metric == "score":
        return f"{sign}{abs(value):.3f}"
    return f"{sign}{formats.count_text(round(abs(value), 1))}"


def _panels(data: dict[str, Any], sides: dict[str, Any]) -> list[synthesis_plots.Distribution]:
    result = []
    for metric, label in _PANELS.items():
        edges = [e for e in sequence(at(data, "edges", metric)) if formats.is_number(e)]
        shares: dict[str, Sequence[float]] = {}
        for name, side in sides.items():
            counts = sequence(at(side, "figures", metric, "counts"))
            numbers = [formats.number(c) or 0.0 for c in counts]
            if sum(numbers):
                shares[name] = [n / sum(numbers) for n in numbers]
        result.append(synthesis_plots.Distribution(label, edges, shares))
    return result


def _modules(sides: dict[str, Any], names: list[str]) -> Html | None:
    """What Python files import most, by side."""
    shares = {n: mapping(at(sides, n, "modules", "share_of_files")) for n in names}
    largest: dict[str, float] = {}
    for of in shares.values():
        for module, share in of.items():
            largest[module] = max(largest.get(module, 0.0), formats.number(share) or 0.0)
    modules = sorted(largest, key=lambda module: (-largest[module], module))
    if not modules:
        return None
    first = names[0]
    rows = [
        [
            tag("code", module),
            *(formats.percent(shares[n].get(module)) for n in names),
            bar(formats.number(shares[first].get(module)) or None),
        ]
        for module in modules
    ]
    num_files = ", ".join(
        f"{name} {formats.count_text(at(sides, name, 'modules', 'files')) or '?'}" for name in names
    )
    caption = f"Modules that Python files import, by share of the files ({num_files})"
    header = ["module", *names, first]
    return table(header, rows, caption=caption, numeric=range(1, len(names) + 1), class_="bars")
