"""Folders and installed packages: what becomes a document, what a row of the ledger."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_reading import GPL, LIMIT, LIMITS, MIT, read, read_all, write

from snowcoder_jax import sources, storage
from snowcoder_jax.errors import MachineError
from snowcoder_jax.recipe_corpus import (
    FolderSource,
    InstalledSource,
    JsonlSource,
    ParquetSource,
)
from snowcoder_jax.sources import Limits, installed
from snowcoder_jax.sources.check import check_opt_out, check_source
from snowcoder_jax.sources.documents import LedgerRow, SourceDocument


def test_folder_of_repositories(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "one/LICENSE": "Apache License\nVersion 2.0",
            "one/src/a.py": "x = 1\n",
            "one/tool": "#!/usr/bin/env python3\nx = 1\n",
            "one/Makefile": "all:\n",
            "one/.git/hooks/x.py": "x = 1\n",
            "one/.cache/x.py": "x = 1\n",
            "one/node_modules/m/x.js": "x = 1\n",
            "one/__pycache__/x.py": "x = 1\n",
            "two/a.h": "namespace a {}\n",
            "two/b.h": "int b;\n",
            "loose.go": "package loose\n",
            "picture.png": b"\x89PNG\0",
            ".hidden/x/a.py": "x = 1\n",
        },
    )
    documents, ledger = read(FolderSource("s", str(tmp_path), license="ISC"))
    loose = tmp_path.name
    assert {k: (d.language, d.license) for k, d in documents.items()} == {
        ("one", "src/a.py"): ("Python", "Apache-2.0"),
        ("one", "tool"): ("Python", "Apache-2.0"),
        ("two", "a.h"): ("C++", "ISC"),
        ("two", "b.h"): ("C", "ISC"),
        (loose, "loose.go"): ("Go", "ISC"),
    }
    assert ledger == {
        ("one", ".cache/"): "hidden",
        ("one", "node_modules/"): "vendored",
        (loose, ".hidden/"): "hidden",
    }


def test_folder_as_one_repository(tmp_path: Path) -> None:
    write(tmp_path / "name", {"a.py": "x = 1\n", "sub/b.py": "y = 1\n"})
    source = FolderSource("s", str(tmp_path / "name") + "/", layout="repository")
    assert set(read(source)[0]) == {("name", "a.py"), ("name", "sub/b.py")}


def test_glob_of_folders(tmp_path: Path) -> None:
    write(tmp_path, {f"{n}/repo{n}/a.py": "x = 1\n" for n in "abc"})
    found = read(FolderSource("s", f"{tmp_path}/[ab]"))[0]
    assert set(found) == {("repoa", "a.py"), ("repob", "a.py")}
    one = FolderSource("s", f"{tmp_path}/*/repo*", layout="repository")
    assert {repo for repo, _ in read(one)[0]} == {"repoa", "repob", "repoc"}


def test_many_repositories_share_a_piece(tmp_path: Path) -> None:
    for i in range(1_100):
        (tmp_path / f"r{i}").mkdir()
    pieces = sources.parts(FolderSource("s", str(tmp_path)), seed=0)
    assert max(map(len, pieces)) == 3
    assert len([part for piece in pieces for part in piece]) == 1_101


def test_what_cannot_be_a_document_is_a_ledger_row(tmp_path: Path) -> None:
    write(
        tmp_path / "r",
        {
            "good.py": b"\xef\xbb\xbfx = '\xc3\xa9'\r\n",
            "binary.py": b"x = 1\0",
            "latin.py": b"x = '\xe9'",
            "at_limit.py": b"#" * LIMIT,
            "too_large.py": b"#" * (LIMIT + 1),
            "big_other": b"#!/bin/sh\n" + b"#" * LIMIT,
        },
    )
    huge = tmp_path / "r" / "huge.py"
    with open(huge, "wb") as f:
        f.truncate(1 << 40)  # more than could be read
    os.mkfifo(tmp_path / "r" / "pipe.py")
    (tmp_path / "r" / "loop").symlink_to(tmp_path / "r")
    (tmp_path / "r" / "link.py").symlink_to(tmp_path / "r" / "good.py")
    (tmp_path / "r" / "secret.py").symlink_to("/etc/passwd")
    (tmp_path / "r" / "logo.png").symlink_to("good.py")
    found = read_all(FolderSource("s", str(tmp_path)))
    documents = {x.path: x.content for x in found if isinstance(x, SourceDocument)}
    assert documents == {"good.py": "x = 'é'\r\n".encode(), "at_limit.py": b"#" * LIMIT}
    rows = {x.path: (x.reason, x.size_bytes) for x in found if isinstance(x, LedgerRow)}
    assert {path: reason for path, (reason, _) in rows.items()} == {
        "binary.py": "binary",
        "latin.py": "undecodable",
        "too_large.py": "too_large",
        "huge.py": "too_large",
        "pipe.py": "not_a_file",
        "loop": "symlink",
        "link.py": "symlink",
        "secret.py": "symlink",
    }
    assert rows["huge.py"] == ("too_large", 1 << 40)
    assert found.count(None) == 2


@pytest.mark.parametrize("change", ["gone", "grown"])
def test_file_that_changes_while_its_folder_is_read(tmp_path: Path, change: str) -> None:
    write(tmp_path / "r", {"a.py": "x", "b.py": "x"})
    source = FolderSource("s", str(tmp_path / "r"), layout="repository")
    ((part,),) = sources.parts(source, seed=0)
    items = sources.read(source, part, LIMITS)
    assert isinstance(next(items), SourceDocument)
    if change == "gone":
        (tmp_path / "r" / "b.py").unlink()
    else:
        write(tmp_path / "r", {"b.py": "x" * (LIMIT + 1)})
    (row,) = items
    assert isinstance(row, LedgerRow)
    assert row.reason == {"gone": "unreadable", "grown": "too_large"}[change]


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "r")
    os.makedirs(folder + b"/\xfe")
    with open(folder + b"/\xfe/\xff.py", "wb") as f:
        f.write(b"x = 1\n")
    documents, _ = read(FolderSource("s", str(tmp_path)))
    assert set(documents) == {("r", "\\xfe/\\xff.py")}


def test_gitignore_files_are_obeyed_as_git_does(tmp_path: Path) -> None:
    write(
        tmp_path / "r",
        {
            ".gitignore": "*.gen.py\n/out/\nbuild\n!keep.gen.py\n[bad\n\\\n#comment\n",
            ".git/info/exclude": "private.py\nkept.py\n",
            "a.py": "x",
            "a.gen.py": "x",
            "keep.gen.py": "x",
            "out/a.py": "x",
            "sub/out/a.py": "x",
            "sub/build/a.py": "x",
            "sub/.gitignore": "!b.gen.py\n/c.py\n*.txt\n",
            "sub/b.gen.py": "x",
            "sub/c.py": "x",
            "sub/deep/c.py": "x",
            "private.py": "x",
            "kept.py": "x",
            "ignored/.gitignore": "*\n!.gitignore\n",
            "ignored/x.py": "x",
        },
    )
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert {path for _, path in documents} == {
        "a.py", "keep.gen.py", "sub/out/a.py", "sub/b.gen.py", "sub/deep/c.py",
    }  # fmt: skip
    assert {path: reason for (_, path), reason in ledger.items()} == dict.fromkeys(
        ["a.gen.py", "out/", "sub/build/", "sub/c.py", "private.py", "kept.py", "ignored/x.py"],
        "ignored",
    )


def test_hostile_gitignore_takes_no_time(tmp_path: Path) -> None:
    names = {"a" * 120 + f"{i}.py": "x" for i in range(5)}
    write(tmp_path / "r", {".gitignore": "*a" * 50 + "b\n" + "**/a/" * 30 + "b\n", **names})
    assert len(read(FolderSource("s", str(tmp_path)))[0]) == 5


CONTROL = (".gitignore", "LICENSE", "package.json", "Cargo.toml", "pyproject.toml", "setup.cfg",
           "composer.json", "x.gemspec")  # fmt: skip
CODE = ("a.ipynb", "a.h", "a.inc", "a.sql", "sub/tool", "sub/a.py")


@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)))
def test_any_bytes_as_a_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("any")
    write(root / "r", {**dict.fromkeys((*CONTROL, *CODE), data), "sub/run": b"#!" + data})
    found = [x for x in read_all(FolderSource("s", str(root))) if x is not None]
    reasons = {x.reason for x in found if isinstance(x, LedgerRow)}
    assert reasons <= {"binary", "undecodable", "ignored"}
    for x in found:
        if isinstance(x, SourceDocument):
            x.content.decode()
            json.dumps([x.license, x.path]).encode()


def test_vendored_and_generated_paths(tmp_path: Path) -> None:
    vendored = ["dist/", "vendor/", "lib/jquery.min.js", "x.d.ts", "gradlew", "fabfile.py"]
    generated = ["Form.Designer.cs", "Pods/", "a/__generated__/", "k.zep.c"]
    files = {p + ("x.py" if p.endswith("/") else ""): "x" for p in (*vendored, *generated)}
    write(tmp_path / "r", {**files, "src/distance.py": "x", "src/Form.cs": "x"})
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert {path for _, path in documents} == {"src/distance.py", "src/Form.cs"}
    assert ledger == {
        **{("r", p): "vendored" for p in vendored},
        **{("r", p): "generated" for p in generated},
    }


def test_opted_out_repositories_are_not_entered(tmp_path: Path) -> None:
    write(tmp_path, {"code/One/a.py": "x", "code/two/a.py": "x"})
    (tmp_path / "list.txt").write_text("\ufeff# owners who said no\n one # by mail\n\n#two\n")
    opted_out = sources.load_opt_out(str(tmp_path / "list.txt"))
    assert opted_out == {"one"}
    found, ledger = read(FolderSource("s", str(tmp_path / "code")), Limits(LIMIT, opted_out))
    assert set(found) == {("two", "a.py")}
    assert ledger == {("One", ""): "opted_out"}
    assert sources.load_opt_out(None) == frozenset()
    assert check_opt_out(str(tmp_path / "list.txt")) == []
    (fault,) = check_opt_out(str(tmp_path / "gone.txt"))
    assert fault.field == "corpus.opt_out"


def test_the_fingerprint_changes_with_what_would_be_read(tmp_path: Path) -> None:
    write(tmp_path / "r", {f"{n}.py": "x" for n in "cab"})
    source = FolderSource("s", str(tmp_path))
    seen = [sources.fingerprint(source, LIMITS, seed=0)]

    def is_new() -> bool:
        seen.append(sources.fingerprint(source, LIMITS, seed=0))
        return seen[-1] not in seen[:-1]

    assert not is_new()
    write(tmp_path / "r", {"picture.png": "x", ".git/config": "x"})
    assert not is_new()
    write(tmp_path / "r", {"b.py": "xy"})
    assert is_new()
    write(tmp_path / "r", {"LICENSE": MIT})
    assert is_new()
    write(tmp_path / "r", {".gitignore": "c.py"})
    assert is_new()
    write(tmp_path, {"a.zip": b"PK"})
    assert is_new()
    os.utime(tmp_path / "a.zip", ns=(1, 1))
    assert is_new()


@pytest.fixture
def remote() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    yield "memory://sources_test"
    fs.rm("/sources_test", recursive=True)


def upload(url: str, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        storage.write_bytes(f"{url}/{name}", data)


def test_a_url_gives_what_the_folder_gives(tmp_path: Path, remote: str) -> None:
    files: dict[str, bytes | str] = {
        "one/LICENSE": MIT,
        "one/.gitignore": "out/\n",
        "one/src/a.py": "x = 1\n",
        "one/src/big.py": b"#" * (LIMIT + 1),
        "one/out/b.py": "x",
        "one/vendor/c.py": "x",
        "one/.hidden/c.py": "x",
        "one/sub/LICENSES/GPL-3.0-only.txt": GPL,
        "one/sub/d.py": "x",
        "two/tool": "#!/bin/sh\n",
        "loose.go": "package a\n",
    }
    local = tmp_path / "sources_test"
    write(local, files)
    upload(remote, files)
    expected = read(FolderSource("s", str(local)))
    assert len(expected[0]) == 4
    assert read(FolderSource("s", remote)) == expected
    one = FolderSource("s", f"{remote}/o*", layout="repository")
    assert {repo for repo, _ in read(one)[0]} == {"one"}
    assert check_source(one) == check_source(FolderSource("s", remote)) == []

    before = sources.fingerprint(one, LIMITS, seed=0)
    assert sources.fingerprint(one, LIMITS, seed=0) == before
    upload(remote, {"one/src/a.py": "x = 2\n"})
    assert sources.fingerprint(one, LIMITS, seed=0) != before


class _FailingFile(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 20:
            raise OSError("connection reset")
        return super().read(10)


def test_storage_that_fails_ends_the_run_and_drops_nothing(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = json.dumps({"content": "x = 1", "path": "a.py"}) + "\n"
    upload(remote, {"code/r/a.py": "x" * 99, "code/b.tar": "x" * 2_000, "lines/a.jsonl": line * 9})
    for source in (FolderSource("s", f"{remote}/code"), JsonlSource("s", f"{remote}/lines")):
        assert read_all(source)
        with monkeypatch.context() as patch:
            patch.setattr(storage, "open_read", lambda path: _FailingFile(b"x" * 2_000))
            with pytest.raises(MachineError, match=r"connection reset.*[Ss]tart"):
                read_all(source)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda p: FolderSource("s", str(p / "gone")), "does not exist"),
        (lambda p: FolderSource("s", str(p / "gone*")), "does not exist"),
        (lambda p: FolderSource("s", str(p / "empty")), "is empty"),
        (lambda p: FolderSource("s", str(p / "file.txt")), "is a file"),
        (lambda p: FolderSource("s", "memory://no_such_bucket/code"), "does not exist"),
        (lambda p: ParquetSource("s", str(p / "empty")), "no Parquet file"),
        (lambda p: ParquetSource("s", str(p / "gone.parquet")), "no Parquet file"),
        (lambda p: JsonlSource("s", str(p / "*.jsonl")), "no JSON lines file"),
        (
            lambda p: ParquetSource("s", str(p / "gone.parquet"), columns={"contents": "x"}),
            "Did you mean `content`",
        ),
        (lambda p: InstalledSource("s", sample_share=0.0), "not above 0"),
        (lambda p: InstalledSource("s", exclude=("nmupy",)), "nmupy"),
    ],
)
def test_check_names_field_and_mend(tmp_path: Path, make: object, problem: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    fault = check_source(make(tmp_path))[0]  # type: ignore[operator]
    assert fault.field.startswith("sources.s.")
    assert problem in str(fault)
    assert fault.mend


def test_check_passes_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x"})
    assert check_source(FolderSource("s", str(tmp_path))) == []
    assert check_source(InstalledSource("s", exclude=("NumPy", "cpython"))) == []


def test_installed_distributions() -> None:
    source = InstalledSource("i", exclude=("torch",))
    names = sources.repositories(source, 0)
    assert installed.OWN_DISTRIBUTION not in names
    assert {"cpython", "numpy", "pyarrow", "typing-extensions"} <= set(names)
    found: dict[str, dict[str, str]] = {}
    for (part,) in sources.parts(source, seed=0):
        if part.repo in ("cpython", "typing-extensions"):
            for item in sources.read(source, part, Limits(1_000_000)):
                if isinstance(item, SourceDocument):
                    found.setdefault(item.repo, {})[item.path] = item.license
    paths = set(found["cpython"])
    assert {"Lib/bisect.py", "Lib/json/tool.py", "Include/Python.h"} <= paths
    assert found["cpython"]["Lib/bisect.py"] == "PSF-2.0"
    assert not any("site-packages" in p or "__pycache__" in p for p in paths)
    assert found["typing-extensions"] == {"typing_extensions.py": "PSF-2.0"}


def test_installed_sample_and_exclude() -> None:
    everything = set(sources.repositories(InstalledSource("i"), 3))
    half = set(sources.repositories(InstalledSource("i", sample_share=0.5), 3))
    assert half == {r for r in everything if storage.seeded_share(3, "sample", r) < 0.5}
    few = set(sources.repositories(InstalledSource("i", exclude=("NumPy", "cpython")), 3))
    assert few == everything - {"numpy", "cpython"}
