"""The picture of how synthetic documents differ from selected ones: distributions side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from snowcoder_jax.reports import svg
from snowcoder_jax.reports.formats import count_text
from snowcoder_jax.reports.markup import Html, clean
from snowcoder_jax.reports.plots import both_widths

# Above this an axis is logarithmic: lengths and counts spread over decades.
_LINEAR_UP_TO = 30


@dataclass(frozen=True)
class Distribution:
    """One panel: the share of documents in the bins between `edges`, by side."""

    label: str
    edges: Sequence[float]
    shares: dict[str, Sequence[float]]

    @property
    def is_drawable(self) -> bool:
        sizes = {len(shares) for shares in self.shares.values()}
        return bool(self.shares) and sizes == {len(self.edges) - 1}


def distributions(panels: Sequence[Distribution], sides: Sequence[str]) -> Html | None:
    """A small panel for each metric, the sides over each other.

    Args:
      sides: in the order of their colours; the first is drawn filled.
    """
    drawable = [p for p in panels if p.is_drawable]
    if not drawable:
        return None
    label = "Distributions of " + ", ".join(p.label for p in drawable) + " by side"
    return both_widths("comparison", label, lambda width: _draw(drawable, sides, width))


def _draw(panels: Sequence[Distribution], sides: Sequence[str], width: float) -> Figure:
    num_columns = min(len(panels), 3 if width > 500 else 1)
    num_rows = -(-len(panels) // num_columns)
    figure = svg.new_figure(width, 34 + 160 * num_rows, column_gap_points=8)
    grid: Any = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes, panel in itertools.zip_longest(grid.flat, panels):
        if panel is None:
            axes.set_visible(False)
            continue
        svg.quiet(axes)
        axes.grid(False, axis="x")
        for i, side in enumerate(sides):
            if side not in panel.shares:
                continue
            color = svg.series_color(i)
            if i == 0:
                axes.stairs(panel.shares[side], panel.edges, fill=True, color=color, alpha=0.25)
            dashes = "-" if i < 2 else (0, (3, 1.5))
            axes.stairs(
                panel.shares[side], panel.edges, color=color, linewidth=1.8, linestyle=dashes
            )
        if panel.edges[-1] > _LINEAR_UP_TO:
            # Linear from 0 to 1, so that zeros have a place.
            axes.set_xscale("symlog", linthresh=1)
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(panel.edges[0], panel.edges[-1])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _number(x)))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}%"))
        axes.set_ylim(bottom=0)
        axes.set_title(clean(panel.label))
    handles = [
        Line2D([], [], color=svg.series_color(i), linewidth=2, linestyle="-" if i < 2 else "--")
        for i in range(len(sides))
    ]
    figure.legend(
        handles,
        [clean(side) for side in sides],
        loc="outside upper left",
        ncols=len(sides),
        frameon=False,
        fontsize=10,
        labelcolor=svg.TEXT,
    )
    return figure


def _number(value: float) -> str:
    if 0 < value < 1:
        return f"{value:.2g}"
    return (count_text(value) or "").replace(".0 ", " ")
