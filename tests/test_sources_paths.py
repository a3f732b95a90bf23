"""Linguist's tables of vendored and generated paths."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.sources.path_rules import GENERATED, VENDORED, refused

LINGUIST = (
    Path(os.environ.get("SNOWCODER_BENCHMARKS", Path(__file__).parents[2] / "shared" / "data"))
    / "linguist"
)


@pytest.mark.skipif(
    not LINGUIST.exists(), reason=f"no Linguist data at {LINGUIST}: set SNOWCODER_BENCHMARKS"
)
def test_the_table_is_linguists() -> None:
    assert list(VENDORED) == yaml.safe_load((LINGUIST / "vendor.yml").read_text())


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("src/main.py", None),
        ("src/distance/", None),
        ("my_vendor/x.go", None),
        ("a/vendor/", "vendored"),
        ("vendor/github.com/x/y.go", "vendored"),
        ("third-party/x.c", "vendored"),
        ("deps/x.c", "vendored"),
        ("src/deps/x.c", None),
        ("js/jquery-3.1.min.js", "vendored"),
        ("js/app.js", None),
        ("prototype/app.js", "vendored"),  # as in Linguist, whose pattern runs over the slash
        ("types/index.d.ts", "vendored"),
        ("src/index.ts", None),
        ("ios/Pods/A.swift", "generated"),
        ("Form1.designer.CS", "generated"),
        ("ext/kernel.zep.c", "generated"),
        (".pnp.cjs", "generated"),
    ],
)
def test_refused(path: str, reason: str | None) -> None:
    assert refused(path) == reason


WORDS = "a / . vendor x.min.js dist jquery -ui.js 3rd party d.ts Pods extjs/ cache .github d3.v4.js"
PIECES = WORDS.split()


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_fast_matching_finds_what_a_plain_search_finds(path: str) -> None:
    vendored = any(re.search(p, path) for p in VENDORED)
    generated = any(re.search(p, path) for p in GENERATED)
    assert refused(path) == ("vendored" if vendored else "generated" if generated else None)


@given(
    st.lists(st.sampled_from(PIECES), max_size=3).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=3).map("".join),
)
def test_what_is_true_of_a_folder_is_true_of_all_in_it(folder: str, name: str) -> None:
    if refused(folder + "/"):
        assert refused(f"{folder}/{name}")
