"""Numbers for people: `1.2 M`, `3.4 MB`, `2 min 10 s`; the raw figure in a title attribute.

The `*_text` functions give plain text (None for a figure that is not there), the others HTML.
Sizes are decimal: 1 MB is 1,000,000 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from snowcoder_jax.reports.markup import Html, clean, tag

NOT_MEASURED = "not measured"
_COUNT_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_SIZE_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def is_number(value: object) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: object) -> float | None:
    """`value` as a float where it is a finite number, else None."""
    return float(value) if is_number(value) else None  # type: ignore[arg-type]


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str | None:
    for i, (scale, unit) in enumerate(units):
        if abs(value) >= scale * 0.9995:
            scaled = value / scale
            if abs(scaled) >= 999.5 and i > 0:
                scale, unit = units[i - 1]
                scaled = value / scale
            digits = 0 if abs(scaled) >= 99.95 else 1
            return f"{scaled:.{digits}f} {unit}"
    return None


def count_text(value: object) -> str | None:
    """`1,234` below ten thousand, then `12.3 k`, `1.2 M`, `3.0 B`."""
    x = number(value)
    if x is None:
        return None
    if abs(x) < 9_999.5:
        return f"{x:,.0f}" if x == int(x) or abs(x) >= 100 else f"{x:,.1f}"
    return _scaled(x, _COUNT_UNITS)


def size_text(value: object) -> str | None:
    x = number(value)
    if x is None:
        return None
    return _scaled(x, _SIZE_UNITS) or f"{x:.0f} bytes"


def duration_text(value: object) -> str | None:
    """Seconds as `0.3 s`, `42 s`, `2 min 10 s`, `1 h 4 min`, `3 d 2 h`."""
    x = number(value)
    if x is None:
        return None
    if x < 9.95:
        return f"{x:.1f} s"
    seconds = round(x)
    for unit, small_unit, size, small_size in (
        ("d", "h", 86_400, 3_600),
        ("h", "min", 3_600, 60),
        ("min", "s", 60, 1),
    ):
        if seconds >= size:
            rest = seconds % size // small_size
            return (
                f"{seconds // size} {unit} {rest} {small_unit}"
                if rest
                else (f"{seconds // size} {unit}")
            )
    return f"{seconds} s"


def percent_text(value: object) -> str | None:
    """A share (0 to 1) in percent."""
    x = number(value)
    return None if x is None else percentage_text(100 * x)


def percentage_text(value: object) -> str | None:
    """A figure that is in percent already."""
    x = number(value)
    if x is None:
        return None
    if x == 0 or abs(x) >= 9.95:
        return f"{x:.0f}%"
    return f"{x:.1f}%" if abs(x) >= 0.095 else f"{x:.1g}%"


def bits_text(value: object) -> str | None:
    x = number(value)
    return None if x is None else f"{x:.3f}"


def signed_text(value: object) -> str | None:
    """Three digits with a sign; a minus, not a hyphen."""
    x = number(value)
    return None if x is None else f"{x:+.3f}".replace("-", "\N{MINUS SIGN}")


def decimal_text(value: object) -> str | None:
    """Four digits; whole numbers of more in full."""
    x = number(value)
    if x is None:
        return None
    return f"{x:,.0f}" if abs(x) >= 1_000 else f"{x:.4g}"


def _as_html(value: object, formatted: Callable[[object], str | None]) -> Html:
    text = formatted(value)
    if text is not None:
        return tag("span", text, title=repr(value))
    if value is None:
        return missing()
    if isinstance(value, float):
        return tag("span", "not finite", title=repr(value), class_="worse")
    return tag("span", clean(str(value)))


def missing(why: str = NOT_MEASURED) -> Html:
    """What stands where a figure is not there."""
    return tag("span", why, class_="none")


def count(value: object) -> Html:
    return _as_html(value, count_text)


def size(value: object) -> Html:
    return _as_html(value, size_text)


def duration(value: object) -> Html:
    return _as_html(value, duration_text)


def percent(value: object) -> Html:
    return _as_html(value, percent_text)


def percentage(value: object) -> Html:
    return _as_html(value, percentage_text)


def bits(value: object) -> Html:
    return _as_html(value, bits_text)


def decimal(value: object) -> Html:
    return _as_html(value, decimal_text)


def text(value: object) -> Html:
    """Any plain leaf; None says that nothing is known."""
    return missing("not given") if value is None else tag("span", clean(str(value)))


def share(part: object, whole: object) -> float | None:
    """`part / whole` where both are known and the whole is not 0."""
    p, w = number(part), number(whole)
    return p / w if p is not None and w else None


def of(part: object, whole: object) -> str:
    """`3 of 30`, or what is not known of it."""
    p, w = count_text(part), count_text(whole)
    return NOT_MEASURED if p is None or w is None else f"{p} of {w}"
