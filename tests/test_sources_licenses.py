"""Which licence a file gets: of files above it, of a package, of the place it lies in."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from source_reading import GPL, MIT, licenses, read, write

from snowcoder_jax.recipe_corpus import FolderSource


def test_the_nearest_licence_file_counts(tmp_path: Path) -> None:
    write(
        tmp_path / "r",
        {
            "LICENSE": MIT,
            "a.py": "x",
            "sub/a.py": "x",
            "third/COPYING": GPL,
            "third/deep/a.py": "x",
            "odd/LICENSE.txt": "All rights reserved.",
            "odd/a.py": "x",
            "odd/deep/a.py": "x",
            "odd/own/LICENSE": MIT,
            "odd/own/a.py": "x",
            "dual/LICENSE-MIT": MIT,
            "dual/LICENSE-APACHE": "Apache License, Version 2.0",
            "dual/a.py": "x",
            "reuse/LICENSES/GPL-3.0-only.txt": GPL,
            "reuse/a.py": "x",
            "code/license_checker.py": GPL,
            "code/license.json": GPL,
            "code/LICENSE_THIRD_PARTY": GPL,
            "code/a.py": "x",
            "header/a.py": "# SPDX-License-Identifier: BSD-2-Clause\nx = 1\n",
        },
    )
    (tmp_path / "r/linked").mkdir()
    (tmp_path / "r/linked/LICENSE").symlink_to("../third/COPYING")
    (tmp_path / "r/linked/a.py").write_text("x")
    source = FolderSource("s", str(tmp_path), license="ISC")
    assert licenses(source) == {
        "a.py": "MIT",
        "sub/a.py": "MIT",
        "third/deep/a.py": "GPL-3.0-only",
        "odd/a.py": "",
        "odd/deep/a.py": "",
        "odd/own/a.py": "MIT",
        "dual/a.py": "Apache-2.0 AND MIT",
        "reuse/a.py": "GPL-3.0-only",
        "code/license_checker.py": "MIT",
        "code/a.py": "MIT",
        "header/a.py": "BSD-2-Clause",
        "linked/a.py": "MIT",
    }


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("package.json", '{"license": "MIT"}', "MIT"),
        ("package.json", '{"license": {"type": "ISC"}}', "ISC"),
        ("package.json", '{"license": "SEE LICENSE IN x"}', "stated"),
        ("package.json", '{"license": "UNLICENSED"}', "UNLICENSED"),
        ("package.json", '{"license": 5', "stated"),
        ("package.json", "[" * 100_000, "stated"),
        ("Cargo.toml", '[package]\nlicense = "MIT/Apache-2.0"\n', "MIT OR Apache-2.0"),
        ("Cargo.toml", "[package\n", "stated"),
        ("pyproject.toml", '[project]\nlicense = "GPL-3.0-or-later"\n', "GPL-3.0-or-later"),
        ("pyproject.toml", '[project]\nlicense = {text = "BSD 3-Clause"}\n', "BSD-3-Clause"),
        ("pyproject.toml", '[tool.poetry]\nlicense = "MIT"\n', "MIT"),
        ("setup.cfg", "[metadata]\nlicense = MIT License\n", "MIT"),
        ("composer.json", '{"license": ["MIT", "GPL-3.0-only"]}', "MIT OR GPL-3.0-only"),
        ("x.gemspec", "Gem::Specification.new { |s| s.license = 'MIT' }", "MIT"),
    ],
)
def test_package_metadata_counts_where_there_is_no_licence_file(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    write(tmp_path / "r", {name: text, "sub/a.py": "x"})
    source = FolderSource("s", str(tmp_path), license="stated")
    assert licenses(source)["sub/a.py"] == expected
    write(tmp_path / "r", {"LICENSE": "All rights reserved"})
    assert licenses(source)["sub/a.py"] == (expected if expected != "stated" else "")
    write(tmp_path / "r", {"LICENSE": "Apache License, Version 2.0"})
    assert licenses(source)["sub/a.py"] == "Apache-2.0"


def test_package_metadata_of_the_nearest_folder_counts(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "LICENSE": MIT,
        "a.py": "x",
        "gpl/Cargo.toml": '[package]\nlicense = "GPL-3.0-only"\n',
        "gpl/src/deep/a.py": "x",
        "gpl/src/isc/package.json": '{"license": "ISC"}',
        "gpl/src/isc/a.py": "x",
        "closed/package.json": '{"license": "UNLICENSED"}',
        "closed/a.py": "x",
        "silent/package.json": '{"name": "x"}',
        "silent/a.py": "x",
        "both/LICENSE": GPL,
        "both/package.json": '{"license": "ISC"}',
        "both/a.py": "x",
    }
    write(tmp_path / "code/r", files)
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    for path in ("code", "r.zip"):
        assert licenses(FolderSource("s", str(tmp_path / path), license="0BSD")) == {
            "a.py": "MIT",
            "gpl/src/deep/a.py": "GPL-3.0-only",
            "gpl/src/isc/a.py": "ISC",
            "closed/a.py": "UNLICENSED",
            "silent/a.py": "MIT",
            "both/a.py": "GPL-3.0-only",
        }


def test_licence_above_the_repositories(tmp_path: Path) -> None:
    write(tmp_path, {"LICENSE": MIT, "r/a.py": "x", "q/a.py": "x", "q/COPYING": GPL})
    source = FolderSource("s", str(tmp_path), license="stated")
    found = read(source)[0]
    assert {repo: d.license for (repo, _), d in found.items()} == {"r": "MIT", "q": "GPL-3.0-only"}
    write(tmp_path, {"LICENSE": "Proprietary. All rights reserved."})
    found = read(source)[0]
    assert {repo: d.license for (repo, _), d in found.items()} == {"r": "", "q": "GPL-3.0-only"}
