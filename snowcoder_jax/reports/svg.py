"""matplotlib figures as inline SVG: small, deterministic, coloured by the page's style sheet.

Colours are drawn as sentinels and replaced by CSS variables, so that one picture serves light,
dark and print; every id carries the figure's key, so that many pictures share a page.
"""

from __future__ import annotations

import io
import re
import warnings
from contextlib import AbstractContextManager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from snowcoder_jax.reports.markup import Html, clean, escape

# Drawn colour -> what the page makes of it.
TEXT = "#0a0b0c"
MUTED = "#0b0c0d"
GRID = "#0c0d0e"
PAPER = "#0d0e0f"
BASELINE = "#0e0f10"
NUM_SERIES = 6
_CSS_COLORS = {
    TEXT: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    BASELINE: "var(--baseline)",
    **{f"#5e51e{i}": f"var(--series-{i})" for i in range(NUM_SERIES)},
}

# The two widths a picture is drawn at, in points; the style sheet shows the one that fits.
WIDE_POINTS = 760
NARROW_POINTS = 350

_RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11.0,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": TEXT,
    "axes.titlesize": 11.0,
    "axes.labelsize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": TEXT,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "lines.solid_capstyle": "round",
}

_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_STYLE = re.compile(r"\s*<style [^>]*>.*?</style>", re.DOTALL)
_SVG_TAG = re.compile(r"<svg [^>]*?viewBox=\"([^\"]+)\"[^>]*>")
_COMMENT = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_ID = re.compile(r' id="([^"]+)"')
_REFERENCE = re.compile(r'(url\(#|(?:xlink:)?href="#)([^")]+)')
_FONT = re.compile(r"font: (?:\d+ )?([\d.]+)px [^;\"]*(?=[;\"])")


def series_color(index: int) -> str:
    return f"#5e51e{index % NUM_SERIES}"


def rc_context() -> AbstractContextManager[None]:
    """The settings every figure is built under."""
    return matplotlib.rc_context(_RC)


def new_figure(width_points: float, height_points: float, column_gap_points: float = 3.0) -> Figure:
    """A figure without a background, laid out so that nothing is cut; one inch is 72 points."""
    layout = ConstrainedLayoutEngine(w_pad=column_gap_points / 72, wspace=0.0)
    figure = Figure(figsize=(width_points / 72, height_points / 72), layout=layout)
    figure.patch.set_alpha(0)
    FigureCanvasSVG(figure)
    return figure


def quiet(axes: Axes) -> None:
    """No marks beside the numbers of an axis; the grid carries the eye."""
    axes.tick_params(length=0)
    axes.patch.set_alpha(0)


def _numbered_ids(text: str, key: str) -> str:
    """Ids as `key-0`, `key-1`, ...: unique on a page, and the same in every process (some of
    matplotlib's come from memory addresses). Ids that nothing refers to are left out."""
    names: dict[str, str] = {}
    for _, old in _REFERENCE.findall(text):
        names.setdefault(old, f"{key}-{len(names)}")

    def renamed(match: re.Match[str]) -> str:
        new = names.get(match.group(1))
        return f' id="{new}"' if new else ""

    text = _ID.sub(renamed, text)
    return _REFERENCE.sub(lambda m: m.group(1).removeprefix("xlink:") + names[m.group(2)], text)


def inline_svg(figure: Figure, key: str, label: str) -> Html:
    """A figure as SVG for the inside of an HTML page.

    Args:
      figure: built under `rc_context`.
      key: letters, digits and hyphens, unique on the page: it starts every id.
      label: what the picture shows, for readers who do not see it.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**_RC, "svg.hashsalt": key}):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        # Text stays text: the browser has fonts for what matplotlib's own lacks.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(buffer, format="svg", metadata=metadata)
    text = _PROLOGUE.sub("", buffer.getvalue(), count=1)
    text = _STYLE.sub("", _METADATA.sub("", text))
    text = _numbered_ids(_COMMENT.sub("", text), key)
    for drawn, wanted in _CSS_COLORS.items():
        text = text.replace(drawn, wanted)
    # The page's own typeface; sizes stay.
    text = _FONT.sub(r"font-size: \1px", text)
    opening = f'<svg viewBox="\\1" role="img" aria-label="{escape(clean(label))}">'
    text = _SVG_TAG.sub(lambda m: opening.replace("\\1", m.group(1)), text, count=1)
    return Html(re.sub(r"\n\s*", "\n", text).strip())
