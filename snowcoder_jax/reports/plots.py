"""The pictures of a report: loss and learning rate, bits per byte, quality scores.

Each takes plain numbers and gives `Html`: the picture at two widths, of which the style sheet
shows the one that fits; or None where there is nothing to draw.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from snowcoder_jax.reports import svg
from snowcoder_jax.reports.formats import count_text, is_number
from snowcoder_jax.reports.markup import Html, clean, tag

# Points of one curve that a picture keeps: beyond it neighbours are averaged.
MAX_CURVE_POINTS = 240
# A phase gets at least this part of the width, however short it is beside the others.
MIN_PHASE_POINTS = 105
# How far below its line the control arm's mark stands, so that it never hides a phase's dot.
CONTROL_DROP = 0.27
# Room that one step number and one letter of a title need.
_TICK_POINTS = 75
_LETTER_POINTS = 7.5


@dataclass(frozen=True)
class Curve:
    """Loss and learning rate of one phase.

    Attributes:
      name: the phase.
      series: its place among the run's phases: it picks the colour, the same on every picture.
      steps: [N] step numbers, rising.
      losses: [N] nats a token.
      learning_rates: [N].
      control_steps, control_losses: the control arm beside it, on the same steps; may be empty.
      control_name: its name.
    """

    name: str
    series: int
    steps: Sequence[float]
    losses: Sequence[float]
    learning_rates: Sequence[float]
    control_steps: Sequence[float] = ()
    control_losses: Sequence[float] = ()
    control_name: str = ""


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


def _both_widths(key: str, label: str, draw: Callable[[float], Figure]) -> Html:
    pictures = []
    for class_, width in (("wide", svg.WIDE_POINTS), ("narrow", svg.NARROW_POINTS)):
        with svg.rc_context():
            picture = svg.inline_svg(draw(width), f"{key}-{class_}", label)
        pictures.append(tag("div", picture, class_=class_))
    return tag("div", *pictures, class_="plot")


def bucketed(values: Sequence[float]) -> tuple[Any, Any, Any, Any]:
    """At most `MAX_CURVE_POINTS` of a curve: middle index, mean, lowest, highest of each bucket.

    Returns:
      Four float arrays [M], M <= MAX_CURVE_POINTS; buckets differ in size by one at most.
    """
    y = np.asarray(values, dtype=np.float64)
    edges = np.unique(np.linspace(0, len(y), min(len(y), MAX_CURVE_POINTS) + 1).astype(int))
    groups = [slice(a, b) for a, b in itertools.pairwise(edges)]
    middle = np.array([(g.start + g.stop - 1) / 2 for g in groups])
    return (
        middle,
        np.array([y[g].mean() for g in groups]),
        np.array([y[g].min() for g in groups]),
        np.array([y[g].max() for g in groups]),
    )


def _thinned(values: Sequence[float]) -> list[int]:
    """Indices that keep a schedule's shape: evenly spaced, both ends, highest and lowest."""
    n = len(values)
    even = np.linspace(0, n - 1, min(n, MAX_CURVE_POINTS)).astype(int)
    return sorted({*even.tolist(), int(np.argmax(values)), int(np.argmin(values))})


def training_curves(curves: Sequence[Curve]) -> Html | None:
    """Loss above, learning rate below, the phases side by side in the order they ran."""
    curves = [c for c in curves if len(c.steps)]
    if not curves:
        return None
    names = ", ".join(clean(c.name) for c in curves)
    label = f"Training loss and learning rate by step over the phases {names}"
    return _both_widths("training", label, lambda width: _draw_training(curves, width))


def _draw_training(curves: Sequence[Curve], width: float) -> Figure:
    figure = svg.new_figure(width, 380 if width > 500 else 340, column_gap_points=1.5)
    spans = [max(c.steps[-1] - c.steps[0], 1.0) for c in curves]
    shares = [max(s / sum(spans), MIN_PHASE_POINTS / width) for s in spans]
    panels: Any = figure.subplots(
        2,
        len(curves),
        sharey="row",
        squeeze=False,
        gridspec_kw={"width_ratios": shares, "height_ratios": [2.1, 1]},
    )
    handles: dict[str, Any] = {}
    for i, curve in enumerate(curves):
        color = svg.series_color(curve.series)
        top, bottom = panels[0, i], panels[1, i]
        _draw_loss(top, curve, color, handles)
        kept = _thinned(curve.learning_rates)
        bottom.plot(
            [curve.steps[k] for k in kept],
            [curve.learning_rates[k] for k in kept],
            color=color,
            linewidth=1.6,
        )
        top.tick_params(labelbottom=False)
        for axes in (top, bottom):
            svg.quiet(axes)
            axes.axvspan(curve.steps[0], curve.steps[-1], color=color, alpha=0.07, linewidth=0)
            pad = 0.01 * max(curve.steps[-1] - curve.steps[0], 1.0)
            axes.set_xlim(curve.steps[0] - pad, curve.steps[-1] + pad)
            axes.spines["left"].set_visible(i == 0)
            if i:
                axes.tick_params(labelleft=False)
        room = 0.9 * width * shares[i] / sum(shares)
        top.set_title(_fitted(curve.name, room), color=color, fontweight="bold")
        for axes in (top, bottom):
            axes.set_xticks(_inner_ticks(curve.steps[0], curve.steps[-1], room))
        bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count_text(round(x)) or ""))
    panels[0, 0].set_ylabel("loss (nats a token)")
    panels[1, 0].set_ylabel("learning rate")
    highest_rate = max(max(c.learning_rates) for c in curves)
    panels[1, 0].set_ylim(0, 1.08 * highest_rate or 1.0)
    panels[1, 0].yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    panels[1, 0].yaxis.set_major_formatter(FuncFormatter(_learning_rate_label))
    figure.supxlabel("step", fontsize=10, color=svg.MUTED)
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            frameon=False,
            fontsize=10,
            labelcolor=svg.TEXT,
            loc="outside upper right",
            handlelength=2.4,
        )
    return figure


def _fitted(name: str, room_points: float) -> str:
    name, most = clean(name), max(3, int(room_points / _LETTER_POINTS))
    return name if len(name) <= most else name[: most - 1] + "…"


def _inner_ticks(first: float, last: float, room_points: float) -> list[float]:
    """Round numbers away from the edges, so that they do not run into the next panel's."""
    most = max(1, int(room_points / _TICK_POINTS))
    margin = 0.3 * _TICK_POINTS / room_points * (last - first)
    ticks = MaxNLocator(most, integer=True).tick_values(first, last)
    inner = [float(t) for t in ticks if first + margin <= t <= last - margin]
    return inner or [round((first + last) / 2)]


def _learning_rate_label(value: float, _: object) -> str:
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


def _draw_loss(axes: Axes, curve: Curve, color: str, handles: dict[str, Any]) -> None:
    middle, mean, low, high = bucketed(curve.losses)
    x = np.interp(middle, np.arange(len(curve.steps)), curve.steps)
    if len(curve.losses) > MAX_CURVE_POINTS:
        axes.fill_between(x, low, high, color=color, alpha=0.22, linewidth=0)
    axes.plot(x, mean, color=color, linewidth=1.6)
    if len(curve.control_steps):
        middle, mean, _, _ = bucketed(curve.control_losses)
        x = np.interp(middle, np.arange(len(curve.control_steps)), curve.control_steps)
        axes.plot(x, mean, color=svg.MUTED, linewidth=1.1, linestyle=(0, (4, 2)))
        name = clean(curve.control_name) + " (control)"
        handles[name] = Line2D([], [], color=svg.MUTED, linewidth=1.1, linestyle=(0, (4, 2)))


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
    return _both_widths(
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
    return _both_widths("scores", label, lambda width: _draw_histograms(drawable, width))


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
