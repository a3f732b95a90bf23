"""Licences: which SPDX expressions are permissive.

The list follows the Blue Oak Council's permissive list as used for The Stack (MIT-like,
BSD-like, Apache-like, Python-like, public-domain dedications).
"""

from __future__ import annotations

import re

# Code of the user's own that states no licence.
NAMED_BY_USER = "LicenseRef-named-by-user"

PERMISSIVE = frozenset(
    s.lower()
    for s in (
        "0BSD", "AFL-3.0", "Apache-1.1", "Apache-2.0", "Artistic-2.0", "BlueOak-1.0.0",
        "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-4-Clause",
        "BSD-Source-Code", "BSL-1.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CNRI-Python",
        "curl", "ECL-2.0", "HPND", "ISC", "libpng-2.0", "MIT", "MIT-0", "MIT-CMU", "NCSA",
        "OpenSSL", "PostgreSQL", "PSF-2.0", "Python-2.0", "Unlicense", "UPL-1.0", "W3C",
        "WTFPL", "X11", "Zlib", "ZPL-2.1", NAMED_BY_USER,
    )
)  # fmt: skip

_TOKEN = re.compile(r"\(|\)|[^\s()]+")


def is_permissive(expression: str | None) -> bool:
    """Whether an SPDX expression leaves a permissive choice; unknown ("" or None) does not.

    `A OR B` needs one of the two, `A AND B` both; `A WITH exception` is judged by A.
    """
    if not expression:
        return False
    tokens = _TOKEN.findall(expression)
    value, rest = _either(tokens)
    return value and not rest


def _either(tokens: list[str]) -> tuple[bool, list[str]]:
    value, tokens = _both(tokens)
    while tokens and tokens[0].upper() == "OR":
        other, tokens = _both(tokens[1:])
        value = value or other
    return value, tokens


def _both(tokens: list[str]) -> tuple[bool, list[str]]:
    value, tokens = _single(tokens)
    while tokens and tokens[0].upper() == "AND":
        other, tokens = _single(tokens[1:])
        value = value and other
    return value, tokens


def _single(tokens: list[str]) -> tuple[bool, list[str]]:
    if not tokens:
        return False, []
    head, *rest = tokens
    if head == "(":
        value, rest = _either(rest)
        return value, rest[1:] if rest[:1] == [")"] else ["unbalanced"]
    if rest[:1] and rest[0].upper() == "WITH":
        rest = rest[2:]
    return head.lower() in PERMISSIVE, rest
