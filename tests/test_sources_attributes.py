"""What `.gitattributes` says of vendored and generated files, against git and in walks."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from source_reading import read, write

from snowcoder_jax.recipe_corpus import FolderSource
from snowcoder_jax.sources.attributes import Attributes

FILES: dict[str, bytes | str] = {
    ".gitattributes": """# comment linguist-vendored
*.pb.py linguist-generated
odd.pb.py -linguist-generated
/js/*.js linguist-vendored=true
docs/** linguist-vendored
docs/ours.py linguist-vendored=false
docs/reset/** !linguist-vendored
folder/ linguist-vendored
folder linguist-vendored
"with space.py" linguist-generated
vendor/ours/** linguist-vendored=false
dist/*.js -linguist-vendored -text
!*.py linguist-vendored
*.py text
""",
    "a.py": "x",
    "x.pb.py": "x",
    "sub/y.pb.py": "x",
    "sub/odd.pb.py": "x",
    "sub/own/.gitattributes": "*.py linguist-vendored\n/z.pb.py -linguist-generated\n",
    "sub/own/a.py": "x",
    "sub/own/z.pb.py": "x",
    "js/a.js": "x",
    "js/deep/a.js": "x",
    "docs/a.py": "x",
    "docs/deep/a.py": "x",
    "docs/ours.py": "x",
    "docs/reset/a.py": "x",
    "folder/a.py": "x",
    "with space.py": "x",
    "vendor/ours/deep/a.py": "x",
    "vendor/theirs/a.py": "x",
    "vendor/a.py": "x",
    "dist/a.js": "x",
    "dist/deep/a.js": "x",
    "node_modules/a.js": "x",
}


def test_what_attributes_say_goes_before_the_tables(tmp_path: Path) -> None:
    write(tmp_path / "code/r", FILES)
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    for path in ("code", "r.zip"):
        documents, ledger = read(FolderSource("s", str(tmp_path / path)))
        assert {path for _, path in documents} == {
            "a.py", "sub/odd.pb.py", "js/deep/a.js", "docs/ours.py", "docs/reset/a.py",
            "folder/a.py", "vendor/ours/deep/a.py", "dist/a.js",
        }  # fmt: skip
        assert {path: reason for (_, path), reason in ledger.items()} == {
            "x.pb.py": "generated",
            "sub/y.pb.py": "generated",
            "sub/own/a.py": "vendored",
            "sub/own/z.pb.py": "vendored",
            "js/a.js": "vendored",
            "docs/a.py": "vendored",
            "docs/deep/a.py": "vendored",
            "with space.py": "generated",
            "vendor/theirs/": "vendored",
            "vendor/a.py": "vendored",
            "dist/deep/a.js": "vendored",
            "node_modules/": "vendored",
        }


PATTERNS = [
    "*", "**", "a", "/a", "a/b", "a/*", "a/**", "**/b", "a/**/b", "*.py", "a*b", "?", "a?", "[ab]",
    "[!a]", "[a-", "a]", "\\*", "a\\b", "a/", "a**b", "**b", "a**", "[^a]/b", "é*", "[[]a", "a/**b",
]  # fmt: skip
PATHS = [
    "a", "b", "ab", "a/b", "b/a", "a/b/c", "a/c/b", "a/c/d/b", "x.py", "a/x.py", "axb", "a/xb",
    "*", "éa", "[a", "c/b", "a]", "cb", "c/ab",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_gits(tmp_path: Path, pattern: str) -> None:
    text = f"{pattern} linguist-vendored\n"
    write(tmp_path, {".gitattributes": text})
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    said = subprocess.run(
        ["git", "-C", str(tmp_path), "check-attr", "-z", "linguist-vendored", *PATHS],
        capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    expected = [path for path, value in zip(said[::3], said[2::3], strict=False) if value == "set"]
    attributes = Attributes().with_file("", text)
    assert [path for path in PATHS if attributes.of(path) == {"vendored": True}] == expected


@given(st.text(st.sampled_from('a*?/[]!\\^- "é'), max_size=20), st.text("ab/é", max_size=20))
@example("*/" * 4 + "[z-a]", "a")
def test_any_text_as_a_pattern(pattern: str, path: str) -> None:
    attributes = Attributes().with_file("", f"{pattern} linguist-vendored=false\n")
    assert attributes.of(path) in ({}, {"vendored": False})
    if attributes.of(path):
        folder = path[: path.rfind("/") + 1]
        assert attributes.may_take_back("vendored", folder)
