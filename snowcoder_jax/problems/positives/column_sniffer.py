"""Guess the type of every column of a small CSV table.

Before loading a table into a database one needs a type per column. Read CSV text
whose first row is the header and name for each column the narrowest of these
types that fits all of its cells: ``integer``, ``decimal``, ``date`` (such as
2024-02-29), ``text``. Empty cells fit every type; a column with nothing but
empty cells is ``text``.
"""

import csv
import io
import re
from collections.abc import Callable
from datetime import date


def _is_date(cell: str) -> bool:
    """Accept real calendar days only: 2023-02-29 is not one."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", cell):
        return False
    try:
        date.fromisoformat(cell)
    except ValueError:
        return False
    return True


# From narrow to wide: the first test that all cells pass decides.
_TESTS: list[tuple[str, Callable[[str], object]]] = [
    ("integer", re.compile(r"[+-]?\d+").fullmatch),
    ("decimal", re.compile(r"[+-]?(\d+\.?\d*|\.\d+)").fullmatch),
    ("date", _is_date),
]


def column_type(cells: list[str]) -> str:
    """Return the narrowest type that fits all cells which are not empty."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    if filled:
        for name, fits in _TESTS:
            if all(fits(cell) for cell in filled):
                return name
    return "text"


def sniff(table: str) -> dict[str, str]:
    """Map each column name of the CSV text to its type."""
    header, *rows = csv.reader(io.StringIO(table))
    return {
        name: column_type([row[index] for row in rows if index < len(row)])
        for index, name in enumerate(header)
    }


if __name__ == "__main__":
    sample = "id,price,bought,note\n1,2.50,2024-02-29,\n2,3,,late\n"
    expected = {"id": "integer", "price": "decimal", "bought": "date", "note": "text"}
    assert sniff(sample) == expected
    assert column_type(["2023-02-29"]) == "text"
    assert column_type(["", " "]) == "text"
    print(sniff(sample))
