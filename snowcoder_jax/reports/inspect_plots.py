"""Small histograms for the inspect page, written as SVG by hand.

A page shows hundreds of them: drawn by matplotlib each would take a tenth of a second and 20 kB,
twice, for two widths; these flow in a grid that fits any width. Colours are classes of page.css.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from snowcoder_jax.reports import formats
from snowcoder_jax.reports.inspect_tallies import Bins
from snowcoder_jax.reports.markup import Html, escape, tag

# In the units of the picture; text is 10 of them high.
_WIDTH, _HEIGHT = 240, 108
_LEFT, _RIGHT, _TOP, _BOTTOM = 6.0, 234.0, 16.0, 88.0
# The bin of the zeros stands apart on a logarithmic axis.
_ZERO_WIDTH, _ZERO_GAP = 12.0, 8.0
_MIN_BAR = 1.5


def histogram(title: str, note: str, bins: Bins, thresholds: Sequence[float] = ()) -> Html:
    """One panel: counts by value, those beyond a threshold in another colour.

    A bin with a document is never invisible, however small beside the others.

    Args:
      title: what it is of, such as a language.
      note: the figures beside the title.
      bins: of at least one value.
      thresholds: upright lines.
    """
    left = _LEFT + (_ZERO_WIDTH + _ZERO_GAP if bins.has_zeros else 0)
    scale = _Scale(float(bins.edges[0]), float(bins.edges[-1]), left, bins.is_log)
    totals = bins.passed + bins.failed
    highest = max(int(totals.max(initial=0)), sum(bins.num_zero))
    passed: list[str] = []
    failed: list[str] = []
    for i in range(len(totals)):
        x = scale(float(bins.edges[i]))
        width = max(1.0, scale(float(bins.edges[i + 1])) - x - 0.5)
        _add_bar(passed, failed, x, width, int(bins.passed[i]), int(bins.failed[i]), highest)
    if bins.has_zeros:
        _add_bar(passed, failed, _LEFT, _ZERO_WIDTH, *bins.num_zero, highest)
    parts = [
        f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>',
        f'<path class="in" d="{"".join(passed)}"/>' if passed else "",
        f'<path class="out" d="{"".join(failed)}"/>' if failed else "",
        *(_threshold(scale(t), t) for t in thresholds if scale.holds(t)),
        _text(_LEFT + _ZERO_WIDTH / 2, _HEIGHT - 6, "0", "middle") if bins.has_zeros else "",
        *(_text(x, _HEIGHT - 6, label, anchor) for x, label, anchor in scale.ticks()),
    ]
    label = escape(f"{title}: {note}")
    picture = Html(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )
    caption = tag("figcaption", tag("b", title), " ", tag("span", note))
    return tag("figure", caption, picture)


def grid(panels: Sequence[Html]) -> Html:
    return tag("div", *panels, class_="hist")


class _Scale:
    """Values -> horizontal positions."""

    def __init__(self, low: float, high: float, left: float, is_log: bool) -> None:
        self._low, self._high, self._left, self._is_log = low, high, left, is_log

    def __call__(self, value: float) -> float:
        low, high = self._low, self._high
        if self._is_log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self._left + (value - low) / (high - low) * (_RIGHT - self._left)

    def holds(self, value: float) -> bool:
        return self._low <= value <= self._high

    def ticks(self) -> list[tuple[float, str, str]]:
        """(position, label, anchor): powers of ten, or round parts of the range."""
        if self._is_log:
            exponents = range(math.ceil(math.log10(self._low) - 1e-9), 12)
            values = [10.0**e for e in exponents if 10.0**e <= self._high * (1 + 1e-9)]
            values = values[:: max(1, math.ceil(len(values) / 5))]
            if len(values) < 2:
                values = [self._low, self._high]
        else:
            step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if self._range / s <= 5)
            first = math.ceil(self._low / step - 1e-9)
            values = [i * step for i in range(first, math.floor(self._high / step + 1e-9) + 1)]
        return [(x := self(v), _number(v), _anchor(x)) for v in values]

    @property
    def _range(self) -> float:
        return self._high - self._low


def _add_bar(
    passed: list[str],
    failed: list[str],
    x: float,
    width: float,
    num_passed: int,
    num_failed: int,
    highest: int,
) -> None:
    y = _BOTTOM
    for path, n in ((passed, num_passed), (failed, num_failed)):
        if n:
            height = max(_MIN_BAR, n / highest * (_BOTTOM - _TOP))
            path.append(f"M{x:.1f} {y:.1f}v{-height:.1f}h{width:.1f}v{height:.1f}z")
            y -= height


def _threshold(x: float, value: float) -> str:
    line = f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 3}" y2="{_BOTTOM + 3}"/>'
    return line + _text(x, _TOP - 6, _number(value), _anchor(x), "limit-text")


def _text(x: float, y: float, text: str, anchor: str, class_: str = "tick") -> str:
    return f'<text class="{class_}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _anchor(x: float) -> str:
    return "start" if x < _LEFT + 16 else "end" if x > _RIGHT - 16 else "middle"


def _number(value: float) -> str:
    text = f"{value:.3g}" if value < 1_000 else (formats.count_text(value) or "")
    return text.replace(".0 ", " ")
