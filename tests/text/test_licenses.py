"""Which SPDX expressions leave a permissive choice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text.licenses import NAMED_BY_USER, PERMISSIVE, PUBLIC_DOMAIN, is_permissive


@pytest.mark.parametrize(
    "expression",
    [
        "MIT",
        "mit",
        "apache-2.0",
        "BSD",
        "Apache-2.0+",
        "MS-PL",
        "Artistic-1.0",  # the lowest level of the Blue Oak list
        "Unicode-3.0",
        NAMED_BY_USER,
        PUBLIC_DOMAIN,
        "Apache-2.0 WITH LLVM-exception",
        "Apache-2.0 with llvm-exception",
        "MIT OR GPL-3.0-only",
        "GPL-3.0-only OR MIT",
        "MIT AND BSD-3-Clause",
        "(MIT)",
        "((MIT OR GPL-2.0+) AND (ISC))",
        "GPL-2.0-only AND ISC OR MIT",  # AND binds more than OR
        "MIT OR ISC AND GPL-2.0-only",
        "(GPL-2.0-only WITH Classpath-exception-2.0) OR MIT",
        "  MIT\tOR\nISC ",
    ],
)
def test_permissive(expression: str) -> None:
    assert is_permissive(expression)


@pytest.mark.parametrize(
    "expression",
    [
        None,
        "",
        " ",
        "GPL-2.0+",
        "LGPL-2.1-or-later",
        "MPL-2.0",
        "EPL-2.0",
        "CC-BY-SA-4.0",
        "CC-BY-NC-4.0",
        "BSD-Protection",
        "UNLICENSED",
        "NONE",
        "NOASSERTION",
        "LicenseRef-proprietary",
        "LicenseRef-MIT",
        "other",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "Apache-2.0 WITH Commons-Clause",  # takes permissions back
        "Apache-2.0 AND LicenseRef-Commons-Clause",
        "MIT AND GPL-3.0-only",
        "(MIT OR ISC) AND GPL-3.0-only",
        "MIT AND (ISC OR MIT) AND MPL-2.0",
    ],
)
def test_not_permissive(expression: str | None) -> None:
    assert not is_permissive(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "(MIT",
        "MIT)",
        "()",
        "MIT OR",
        "OR MIT",
        "MIT ISC",
        "MIT AND OR ISC",
        "MIT WITH",
        "MIT WITH LLVM-exception ISC",
        "WITH LLVM-exception",
        "MIT OR (GPL-2.0-only",
        "MIT, ISC",
        "MIT/ISC",
        "(" * 100_000,
        "MIT OR " * 100_000 + "MIT",
    ],
)
def test_what_is_no_expression_is_not_permissive(expression: str) -> None:
    assert not is_permissive(expression)


def test_deep_brackets() -> None:
    assert is_permissive("(" * 200 + "MIT" + ")" * 200)
    assert not is_permissive("(" * 200 + "MIT" + ")" * 199)


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    is_permissive(text)


FORMULAS = st.recursive(
    st.sampled_from([("MIT", True), ("ISC", True), ("GPL-3.0-only", False), ("x", False)]),
    lambda inner: st.tuples(inner, st.sampled_from([" AND ", " OR "]), inner).map(
        lambda t: (
            f"({t[0][0]}{t[1]}{t[2][0]})",
            (t[0][1] and t[2][1]) if "AND" in t[1] else (t[0][1] or t[2][1]),
        )
    ),
)


@given(FORMULAS)
def test_nested_formulas(formula: tuple[str, bool]) -> None:
    expression, expected = formula
    assert is_permissive(expression) is expected


def test_the_list_names_no_copyleft() -> None:
    prefixes = ("GPL", "LGPL", "AGPL", "MPL", "EPL", "CC-BY-SA", "CC-BY-NC", "CC-BY-ND", "SSPL")
    assert not [name for name in PERMISSIVE if name.startswith(prefixes)]
    assert len({name.lower() for name in PERMISSIVE}) == len(PERMISSIVE)
