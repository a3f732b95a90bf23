"""The text that `why` tells things by: numbers, and columns under each other."""

from __future__ import annotations

from collections.abc import Sequence

from snowcoder_jax.reports.markup import clean

MAX_ROWS = 20
INDENT = "  "


def value_text(value: object) -> str:
    """What a stage measured, or a threshold; "" where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return number_text(value) if isinstance(value, (int, float)) else str(value)


def number_text(value: object) -> str:
    return f"{value:,.0f}" if isinstance(value, (int, float)) else "unknown"


def first_rows(rows: list[list[str]]) -> list[list[str]]:
    """The first rows, and how many more there are."""
    left = len(rows) - MAX_ROWS
    return rows if left <= 0 else [*rows[:MAX_ROWS], ["", f"... and {left} more"]]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other; what could steer a terminal is made visible."""
    cells = [[clean(cell).replace("\n", " ").replace("\t", "    ") for cell in r] for r in rows]
    num_columns = max((len(row) for row in cells), default=0)
    # The last cell of a row may be long: it widens no column.
    widths = [
        max((len(row[i]) for row in cells if i < len(row) - 1), default=0)
        for i in range(num_columns)
    ]
    return [
        INDENT + "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip()
        for row in cells
    ]
