"""The pictures of a report: bits per byte, quality scores (training: `training_plots.py`).

Each takes plain numbers and gives `Html`: the picture at two widths, of which the style sheet
shows the one that fits; or None where there is nothing to draw.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from snowcoder_jax.reports import svg
from snowcoder_jax.reports.formats import count_text, is_number
from snowcoder_jax.reports.markup import Html, clean, tag

# How far below its line the control arm's mark stands, so that it never hides a phase's dot.
CONTROL_DROP = 0.27


@dataclass(frozen=True)
class DotRow:
    """One line of the bits-per-byte picture: values by series name, None where not measured."""

    label: str
    values: dict[str, float | None]
    baseline: float | None = None
    control: float | None = None


@dataclass(frozen=True)
class Histogram:
    """Scores of one language: `counts` in the bins between `edges`, thresholds by selection."""

    label: str
    edges: Sequence[float]
    counts: Sequence[float]
    thresholds: dict[str, float] = field(default_factory=dict)


def both_widths(key: str, label: str, draw: Callable[[float], Figure]) -> Html:
    """A picture drawn at both widths; `key` is unique on the page."""
    pictures = []
    for class_, width in (("wide", svg.WIDE_POINTS), ("narrow", svg.NARROW_POINTS)):
        with svg.rc_context():
            picture = svg.inline_svg(draw(width), f"{key}-{class_}", label)
        pictures.append(tag("div", picture, class_=class_))
    return tag("div", *pictures, class_="plot")


def bits_per_byte(
    rows: Sequence[DotRow], series: Sequence[str], *, control_name: str, baseline_name: str
) -> Html | None:
    """A line of dots for each language, one dot for each phase; left is better.

    Args:
      rows: from top to bottom.
      series: the phases, in order; the last is drawn largest.
      control_name: name of the control arm (hollow diamonds); empty where there is none.
      baseline_name: name of the yardstick (upright bars).
    """
    rows = [r for r in rows if any(is_number(v) for v in (*r.values.values(), r.baseline))]
    if not rows:
        return None
    label = "Bits per byte on held-out code by language and phase"
    return both_widths(
        "bits", label, lambda width: _draw_bits(rows, series, control_name, baseline_name, width)
    )


def _draw_bits(
    rows: Sequence[DotRow], series: Sequence[str], control: str, baseline: str, width: float
) -> Figure:
    wide = width > 500
    figure = svg.new_figure(width, 74 + 34 * len(rows) + (0 if wide else 40))
    axes = figure.subplots()
    svg.quiet(axes)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    for y, row in enumerate(rows):
        known = [v for v in row.values.values() if v is not None]
        if len(known) > 1:
            axes.plot([min(known), max(known)], [y, y], color=svg.GRID, linewidth=3, zorder=1)
        if row.baseline is not None:
            axes.vlines(row.baseline, y - 0.34, y + 0.34, color=svg.BASELINE, linewidth=2.6)
        for i, name in enumerate(series):
            value = row.values.get(name)
            if value is not None:
                size = 80 if i == len(series) - 1 else 52
                axes.scatter(
                    [value],
                    [y],
                    s=size,
                    color=svg.series_color(i),
                    zorder=3,
                    edgecolors=svg.PAPER,
                    linewidths=0.8,
                )
        if row.control is not None:
            axes.scatter(
                [row.control],
                [y + CONTROL_DROP],
                s=36,
                marker="D",
                facecolors="none",
                edgecolors=svg.TEXT,
                linewidths=1.3,
                zorder=4,
            )
    axes.set_yticks(range(len(rows)), [clean(r.label) for r in rows])
    axes.tick_params(axis="y", labelcolor=svg.TEXT)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(8 if wide else 4))
    axes.set_xlabel("bits per byte \N{LEFTWARDS ARROW} better")
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=8, color=svg.series_color(i))
        for i in range(len(series))
    ]
    names = [clean(s) for s in series]
    if control:
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="D",
                markersize=6.5,
                markerfacecolor="none",
                markeredgecolor=svg.TEXT,
            )
        )
        names.append(f"{clean(control)} (control)")
    if any(r.baseline is not None for r in rows):
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="|",
                markersize=13,
                markeredgewidth=2.6,
                color=svg.BASELINE,
            )
        )
        names.append(clean(baseline))
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=len(names) if wide else 2,
        frameon=False,
        fontsize=10,
        labelcolor=svg.TEXT,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    return figure


def score_histograms(histograms: Sequence[Histogram]) -> Html | None:
    """Annotator scores by language: one small panel each, thresholds as upright lines."""
    drawable = [h for h in histograms if len(h.edges) == len(h.counts) + 1 and sum(h.counts) > 0]
    if not drawable:
        return None
    label = "Distribution of quality scores by language, with the thresholds of the selections"
    return both_widths("scores", label, lambda width: _draw_histograms(drawable, width))


def _draw_histograms(histograms: Sequence[Histogram], width: float) -> Figure:
    num_columns = min(len(histograms), 3 if width > 500 else 1)
    num_rows = -(-len(histograms) // num_columns)
    names = sorted({name for h in histograms for name in h.thresholds})
    figure = svg.new_figure(width, 30 + 165 * num_rows + (24 if names else 0))
    panels: Any = figure.subplots(num_rows, num_columns, sharex=True, squeeze=False)
    for axes, histogram in itertools.zip_longest(panels.flat, histograms):
        if histogram is None:
            axes.set_visible(False)
            continue
        svg.quiet(axes)
        axes.grid(False, axis="x")
        axes.stairs(
            histogram.counts, histogram.edges, fill=True, color=svg.series_color(0), alpha=0.75
        )
        for i, name in enumerate(names):
            if name in histogram.thresholds:
                axes.axvline(
                    histogram.thresholds[name],
                    color=svg.series_color(i + 1),
                    linewidth=2,
                    linestyle=(0, (5, 2)) if i else "-",
                )
        axes.set_title(f"{clean(histogram.label)} ({count_text(sum(histogram.counts))} files)")
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: count_text(round(y)) or ""))
    figure.supxlabel("score", fontsize=10, color=svg.MUTED)
    if names:
        handles = [
            Line2D(
                [],
                [],
                color=svg.series_color(i + 1),
                linewidth=2,
                linestyle=(0, (5, 2)) if i else "-",
            )
            for i in range(len(names))
        ]
        figure.legend(
            handles,
            [f"threshold of {clean(n)}" for n in names],
            loc="outside upper left",
            ncols=len(names) if width > 500 else 1,
            frameon=False,
            fontsize=10,
            labelcolor=svg.TEXT,
        )
    return figure
