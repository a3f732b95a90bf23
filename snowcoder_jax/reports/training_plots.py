"""The pictures of training: loss, gradient norm and learning rate; where the time went.

Each takes plain numbers and gives `Html`, or None where there is nothing to draw.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from snowcoder_jax.reports import svg
from snowcoder_jax.reports.formats import count_text
from snowcoder_jax.reports.markup import Html, clean
from snowcoder_jax.reports.plots import both_widths

# Points of one curve that a picture keeps: beyond it neighbours are averaged.
MAX_CURVE_POINTS = 240
# A phase gets at least this part of the width, however short it is beside the others.
MIN_PHASE_POINTS = 105
# Room that one step number and one letter of a title need.
_TICK_POINTS = 75
_LETTER_POINTS = 7.5


@dataclass(frozen=True)
class Curve:
    """Loss, gradient norm and learning rate of one phase.

    Attributes:
      name: the phase.
      series: its place among the run's phases: it picks the colour, the same on every picture.
      steps: [N] step numbers, rising.
      losses: [N] nats a token.
      learning_rates: [N].
      control_steps, control_losses: the control arm beside it, on the same steps; may be empty.
      control_name: its name.
      grad_steps, grad_norms: before the clip, where it was finite; may be empty.
      skipped_steps: steps whose update was skipped, because loss or gradient was not finite.
    """

    name: str
    series: int
    steps: Sequence[float]
    losses: Sequence[float]
    learning_rates: Sequence[float]
    control_steps: Sequence[float] = ()
    control_losses: Sequence[float] = ()
    control_name: str = ""
    grad_steps: Sequence[float] = ()
    grad_norms: Sequence[float] = ()
    skipped_steps: Sequence[float] = ()


@dataclass(frozen=True)
class TimeBar:
    """Where the time of one phase went: seconds by kind, in the order they are drawn."""

    label: str
    seconds: dict[str, float]


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
    """Loss above, then gradient norm and learning rate; the phases side by side as they ran."""
    curves = [c for c in curves if len(c.steps)]
    if not curves:
        return None
    names = ", ".join(clean(c.name) for c in curves)
    label = f"Training loss, gradient norm and learning rate by step over the phases {names}"
    return both_widths("training", label, lambda width: _draw_training(curves, width))


def _draw_training(curves: Sequence[Curve], width: float) -> Figure:
    has_norms = any(len(c.grad_norms) for c in curves)
    height = (380 if width > 500 else 340) + (95 if has_norms else 0)
    figure = svg.new_figure(width, height, column_gap_points=1.5)
    spans = [max(c.steps[-1] - c.steps[0], 1.0) for c in curves]
    shares = [max(s / sum(spans), MIN_PHASE_POINTS / width) for s in spans]
    heights = [2.1, 1, 1] if has_norms else [2.1, 1]
    panels: Any = figure.subplots(
        len(heights),
        len(curves),
        sharey="row",
        squeeze=False,
        gridspec_kw={"width_ratios": shares, "height_ratios": heights},
    )
    handles: dict[str, Any] = {}
    for i, curve in enumerate(curves):
        color = svg.series_color(curve.series)
        top, bottom = panels[0, i], panels[-1, i]
        _draw_loss(top, curve, color, handles)
        if has_norms:
            _draw_grad_norm(panels[1, i], curve, color, handles)
        kept = _thinned(curve.learning_rates)
        bottom.plot(
            [curve.steps[k] for k in kept],
            [curve.learning_rates[k] for k in kept],
            color=color,
            linewidth=1.6,
        )
        for axes in panels[:-1, i]:
            axes.tick_params(labelbottom=False)
        for axes in panels[:, i]:
            svg.quiet(axes)
            axes.axvspan(curve.steps[0], curve.steps[-1], color=color, alpha=0.07, linewidth=0)
            pad = 0.01 * max(curve.steps[-1] - curve.steps[0], 1.0)
            axes.set_xlim(curve.steps[0] - pad, curve.steps[-1] + pad)
            axes.spines["left"].set_visible(i == 0)
            if i:
                axes.tick_params(labelleft=False)
        room = 0.9 * width * shares[i] / sum(shares)
        top.set_title(_fitted(curve.name, room), color=color, fontweight="bold")
        for axes in panels[:, i]:
            axes.set_xticks(_inner_ticks(curve.steps[0], curve.steps[-1], room))
        bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count_text(round(x)) or ""))
    panels[0, 0].set_ylabel("loss (nats a token)")
    if has_norms:
        panels[1, 0].set_ylabel("gradient norm")
    panels[-1, 0].set_ylabel("learning rate")
    highest_rate = max(max(c.learning_rates) for c in curves)
    panels[-1, 0].set_ylim(0, 1.08 * highest_rate or 1.0)
    panels[-1, 0].yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    panels[-1, 0].yaxis.set_major_formatter(FuncFormatter(_learning_rate_label))
    figure.align_ylabels(panels[:, 0])
    figure.supxlabel("step", fontsize=10, color=svg.MUTED)
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            frameon=False,
            fontsize=10,
            labelcolor=svg.TEXT,
            loc="outside upper right",
            ncols=len(handles) if width > 500 else 1,
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


def _draw_grad_norm(axes: Axes, curve: Curve, color: str, handles: dict[str, Any]) -> None:
    """On a scale of powers: a spike of a hundred times the usual would flatten all else."""
    positive = [(x, y) for x, y in zip(curve.grad_steps, curve.grad_norms, strict=True) if y > 0]
    if positive:
        steps, norms = zip(*positive, strict=True)
        middle, mean, low, high = bucketed(norms)
        x = np.interp(middle, np.arange(len(steps)), steps)
        if len(norms) > MAX_CURVE_POINTS:
            axes.fill_between(x, low, high, color=color, alpha=0.22, linewidth=0)
        axes.plot(x, mean, color=color, linewidth=1.3)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0), numticks=4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    if curve.skipped_steps:
        marks = {"marker": "x", "color": svg.BASELINE, "linestyle": "", "markersize": 6}
        axes.plot(
            curve.skipped_steps,
            [0.06] * len(curve.skipped_steps),
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            **marks,
        )
        handles["skipped update"] = Line2D([], [], **marks)


def time_bars(bars: Sequence[TimeBar], kinds: Sequence[str]) -> Html | None:
    """One stacked bar for each phase, all of full width: the share of each kind of time.

    Args:
      bars: from top to bottom.
      kinds: in the order they are drawn; the first is the time that counts.
    """
    bars = [b for b in bars if sum(b.seconds.values()) > 0]
    if not bars:
        return None
    label = "Share of time by kind: " + ", ".join(clean(b.label) for b in bars)
    return both_widths("goodput", label, lambda width: _draw_time(bars, kinds, width))


def _draw_time(bars: Sequence[TimeBar], kinds: Sequence[str], width: float) -> Figure:
    wide = width > 500
    shown = [k for k in kinds if any(b.seconds.get(k, 0) > 0 for b in bars)]
    num_columns = len(shown) if wide else 3
    legend_points = 22 * -(-len(shown) // num_columns)
    figure = svg.new_figure(width, 42 + legend_points + 30 * len(bars))
    axes = figure.subplots()
    svg.quiet(axes)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    for y, row in enumerate(bars):
        left, total = 0.0, sum(row.seconds.values())
        for kind in shown:
            share = row.seconds.get(kind, 0.0) / total
            color, alpha = _kind_style(kinds.index(kind))
            axes.barh(y, share, left=left, height=0.62, color=color, alpha=alpha, linewidth=0)
            left += share
    axes.set_yticks(range(len(bars)), [_fitted(b.label, 0.3 * width) for b in bars])
    axes.tick_params(axis="y", labelcolor=svg.TEXT)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f}%"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    figure.legend(
        [Patch(facecolor=c, alpha=a) for c, a in (_kind_style(kinds.index(k)) for k in shown)],
        [clean(k) for k in shown],
        loc="outside upper left",
        ncols=num_columns,
        frameon=False,
        fontsize=10,
        labelcolor=svg.TEXT,
        handlelength=1.1,
        columnspacing=1.2,
    )
    return figure


def _kind_style(index: int) -> tuple[str, float]:
    """Colour and opacity of a kind of time; one more than there are series is muted."""
    if index < svg.NUM_SERIES:
        return svg.series_color(index), 0.85
    return svg.MUTED, 0.6
