"""Walking sources: what becomes a reference, what becomes a ledger row, and never an exception."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax import archives, sources, storage
from snowcoder_jax.recipe import FolderSource, InstalledSource, ParquetSource, Source
from snowcoder_jax.source_files import (
    FileReference,
    LedgerRow,
    Listing,
    SourceDocument,
    read_references,
)

LIMIT = 10_000


def walk(source: Source, seed: int = 0, limit: int = LIMIT) -> Listing:
    return sources.list_source(source, seed=seed, max_file_bytes=limit)


def read(
    source: Source,
) -> tuple[dict[tuple[str, str], SourceDocument], dict[tuple[str, str], str]]:
    """Documents, and reasons of ledger rows, by (repository, path)."""
    listing = walk(source)
    found = list(read_references(listing.references, LIMIT))
    documents = [x for x in found if isinstance(x, SourceDocument)]
    ledger = [*listing.ledger, *(x for x in found if isinstance(x, LedgerRow))]
    return (
        {(d.reference.repo, d.reference.path): d for d in documents},
        {(r.repo, r.path): r.reason for r in ledger},
    )


def write(root: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


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
            "two/a.h": "namespace a {}\n",
            "two/b.h": "int b;\n",
            "loose.go": "package loose\n",
            "picture.png": b"\x89PNG\0",
        },
    )
    documents, ledger = read(FolderSource("s", str(tmp_path), license="ISC"))
    loose = tmp_path.name
    assert {k: (d.language, d.reference.license) for k, d in documents.items()} == {
        ("one", "src/a.py"): ("Python", "Apache-2.0"),
        ("one", "tool"): ("Python", "Apache-2.0"),
        ("two", "a.h"): ("C++", "ISC"),
        ("two", "b.h"): ("C", "ISC"),
        (loose, "loose.go"): ("Go", "ISC"),
    }
    assert ledger == {}


def test_folder_as_one_repository(tmp_path: Path) -> None:
    write(tmp_path / "name", {"a.py": "x = 1\n", "sub/b.py": "y = 1\n"})
    source = FolderSource("s", str(tmp_path / "name") + "/", layout="repository")
    assert set(read(source)[0]) == {("name", "a.py"), ("name", "sub/b.py")}


def test_what_cannot_be_a_document_is_a_ledger_row(tmp_path: Path) -> None:
    write(
        tmp_path / "r",
        {
            "good.py": b"\xef\xbb\xbfx = '\xc3\xa9'\r\n",
            "binary.py": b"x = 1\0",
            "latin.py": b"x = '\xe9'",
            "at_limit.py": b"#" * LIMIT,
            "too_large.py": b"#" * (LIMIT + 1),
            "gone.py": b"x",
            "big_other": b"#!/bin/sh\n" + b"#" * LIMIT,
        },
    )
    huge = tmp_path / "r" / "huge.py"
    with open(huge, "wb") as f:
        f.truncate(200 * 1024 * 1024)
    os.mkfifo(tmp_path / "r" / "pipe.py")
    (tmp_path / "r" / "loop").symlink_to(tmp_path / "r")
    (tmp_path / "r" / "link.py").symlink_to(tmp_path / "r" / "good.py")
    source = FolderSource("s", str(tmp_path))
    listing = walk(source)
    assert str(huge) not in {r.location for r in listing.references}  # known by stat, never read
    (tmp_path / "r" / "gone.py").unlink()
    found = list(read_references(listing.references, LIMIT))
    documents = {x.reference.path: x.content for x in found if isinstance(x, SourceDocument)}
    assert documents == {"good.py": "x = 'é'\r\n", "at_limit.py": "#" * LIMIT}
    rows = [*listing.ledger, *(x for x in found if isinstance(x, LedgerRow))]
    assert {r.path: r.reason for r in rows} == {
        "binary.py": "binary",
        "latin.py": "undecodable",
        "too_large.py": "too_large",
        "huge.py": "too_large",
        "gone.py": "unreadable",
        "pipe.py": "not_a_file",
        "loop": "symlink",
        "link.py": "symlink",
    }
    assert next(r for r in rows if r.path == "huge.py").size_bytes == 200 * 1024 * 1024
    assert listing.num_other == 1


def test_file_that_grew_since_it_was_listed(tmp_path: Path) -> None:
    write(tmp_path / "r", {"a.py": "x"})
    listing = walk(FolderSource("s", str(tmp_path)))
    write(tmp_path / "r", {"a.py": "x" * (LIMIT + 1)})
    (row,) = read_references(listing.references, LIMIT)
    assert isinstance(row, LedgerRow)
    assert row.reason == "too_large"


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "r")
    os.mkdir(folder)
    with open(folder + b"/\xff.py", "wb") as f:
        f.write(b"x = 1\n")
    documents, _ = read(FolderSource("s", str(tmp_path)))
    assert set(documents) == {("r", "\\xff.py")}


def test_listing_has_one_order_and_one_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "r", {f"{n}.py": "x" for n in "cab"})
    source = FolderSource("s", str(tmp_path))
    first = walk(source)
    assert [r.path for r in first.references] == ["a.py", "b.py", "c.py"]
    assert sources.fingerprint([first]) == sources.fingerprint([walk(source)])
    write(tmp_path / "r", {"b.py": "xy"})
    assert sources.fingerprint([first]) != sources.fingerprint([walk(source)])


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda p: FolderSource("s", str(p / "gone")), "does not exist"),
        (lambda p: FolderSource("s", str(p / "empty")), "is empty"),
        (lambda p: FolderSource("s", str(p / "file.txt")), "is a file"),
        (lambda p: FolderSource("s", "gs://bucket/code"), "not a local folder"),
        (lambda p: ParquetSource("s", str(p / "empty")), "no Parquet file"),
        (lambda p: ParquetSource("s", str(p / "gone.parquet")), "no Parquet file"),
        (
            lambda p: ParquetSource("s", str(p / "gone.parquet"), columns={"contents": "x"}),
            "column",
        ),
        (lambda p: InstalledSource("s", sample_share=0.0), "not above 0"),
        (lambda p: InstalledSource("s", exclude=("nmupy",)), "nmupy"),
    ],
)
def test_check_names_field_and_mend(tmp_path: Path, make: object, problem: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    fault = sources.check_source(make(tmp_path))[0]  # type: ignore[operator]
    assert fault.field.startswith("sources.s.")
    assert problem in str(fault)
    assert fault.mend


def test_check_passes_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x"})
    assert sources.check_source(FolderSource("s", str(tmp_path))) == []
    assert sources.check_source(InstalledSource("s", exclude=("NumPy", "cpython"))) == []


def test_installed_distributions() -> None:
    listing = walk(InstalledSource("i"), limit=1_000_000)
    by_repo: dict[str, list[FileReference]] = {}
    for reference in listing.references:
        by_repo.setdefault(reference.repo, []).append(reference)
    assert sources.OWN_DISTRIBUTION not in by_repo
    assert {"cpython", "numpy", "pyarrow", "typing-extensions"} <= set(by_repo)
    assert {r.license for r in by_repo["cpython"]} == {"PSF-2.0"}
    paths = {r.path for r in by_repo["cpython"]}
    assert {"Lib/bisect.py", "Lib/json/tool.py", "Include/Python.h"} <= paths
    assert not any("site-packages" in p or "__pycache__" in p for p in paths)
    (typing_extensions,) = (r for r in by_repo["typing-extensions"] if r.path.endswith(".py"))
    assert typing_extensions.path == "typing_extensions.py"
    assert typing_extensions.license == "PSF-2.0"
    assert not any(r.path.startswith(("/", "..")) for r in listing.references)


def test_installed_sample_and_exclude() -> None:
    everything = {r.repo for r in walk(InstalledSource("i")).references}
    half = {r.repo for r in walk(InstalledSource("i", sample_share=0.5), seed=3).references}
    assert half == {r for r in everything if storage.seeded_share(3, "sample", r) < 0.5}
    few = {r.repo for r in walk(InstalledSource("i", exclude=("NumPy", "cpython"))).references}
    assert few == everything - {"numpy", "cpython"}


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def make_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


MEMBERS = {
    "top/LICENSE": b"Apache License, Version 2.0",
    "top/a.py": b"x = 1\n",
    "top/b.c": b"int b;\n",
    "top/.git/x.py": b"x",
    "../escape.py": b"x",
    "/absolute.py": b"x",
    "top/../../up.py": b"x",
    "top/large.py": b"#" * (LIMIT + 1),
    "top/binary.py": b"\0",
}


@pytest.mark.parametrize("name", ["r.zip", "r.tar", "r.tar.gz", "r.tgz", "r.tar.bz2", "r.tar.xz"])
def test_archives_are_repositories(tmp_path: Path, name: str) -> None:
    if name.endswith(".zip"):
        make_zip(tmp_path / name, MEMBERS)
    else:
        mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz", "tar": "w"}
        make_tar(tmp_path / name, MEMBERS, mode[name.rsplit(".", 1)[-1]])
    before = sorted(tmp_path.rglob("*"))
    for source in (FolderSource("s", str(tmp_path)), FolderSource("s", str(tmp_path / name))):
        assert sources.check_source(source) == []
        documents, ledger = read(source)
        assert {k: d.content for k, d in documents.items()} == {
            ("r", "top/a.py"): "x = 1\n",
            ("r", "top/b.c"): "int b;\n",
        }
        assert {d.reference.license for d in documents.values()} == {"Apache-2.0"}
        assert {path: reason for (_, path), reason in ledger.items()} == {
            "../escape.py": "unsafe_path",
            "/absolute.py": "unsafe_path",
            "top/../../up.py": "unsafe_path",
            "top/large.py": "too_large",
            "top/binary.py": "binary",
        }
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["r.zip", "r.tar", "r.tar.gz", "r.tar.bz2", "r.tar.xz"])
@given(data=st.binary(max_size=300), cut=st.floats(0, 1))
def test_broken_archives_are_ledger_rows(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes, cut: float
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    whole = folder / name
    if name == "r.zip":
        make_zip(whole, {"a.py": b"x = 1\n" * 500})
    else:
        mode = {"gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz", "tar": "w"}[name.rsplit(".", 1)[-1]]
        make_tar(whole, {"a.py": b"x = 1\n" * 500}, mode)
    good = whole.read_bytes()
    at = int(cut * len(good))
    for broken in (data, good[:at], good[:at] + data + good[at + len(data) :]):
        whole.write_bytes(broken)
        documents, ledger = read(FolderSource("s", str(folder)))
        assert set(ledger.values()) <= {
            "broken_archive", "archive_too_large", "unreadable", "unsafe_path", "too_large",
            "binary", "undecodable",
        }  # fmt: skip
        assert all(len(d.content) <= LIMIT for d in documents.values())


def test_bombs_are_refused_whole(tmp_path: Path) -> None:
    make_zip(tmp_path / "bomb.zip", {f"{i}.py": b" " * 1_000_000 for i in range(20)})
    make_tar(tmp_path / "bomb.tar.gz", {f"{i}.py": b" " * 1_000_000 for i in range(20)})
    for name in ("bomb.zip", "bomb.tar.gz"):
        with pytest.raises(archives.ArchiveError, match="archive_too_large"):
            archives.list_members(str(tmp_path / name), max_total_bytes=10_000_000)


def test_archive_that_lies_about_sizes_is_read_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    make_zip(path, {"a.py": b"#" * 5_000_000})
    data = path.read_bytes().replace((5_000_000).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    path.write_bytes(data)
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert all(len(d.content) <= LIMIT for d in documents.values())
    assert len(documents) + len(ledger) == 1


def test_parquet_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["x = 1\n", "int a;\n", None, "y" * (LIMIT + 1), "z = 1\n"],
            "max_stars_repo_path": ["a.py", "b.c", "c.py", "d.py", "e.unknown"],
            "repo": ["r", "r", "q", "q", "q"],
            "licenses": [["MIT"], ["MIT", "ISC"], [], None, []],
            "stars": [3.0, None, 1.0, 2.0, 1.0],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 truncated")
    columns = {"content": "text", "path": "max_stars_repo_path", "license": "licenses"}
    source = ParquetSource("s", str(tmp_path), columns=columns)
    documents, ledger = read(source)
    assert {
        k: (d.language, d.reference.license, d.reference.stars) for k, d in documents.items()
    } == {
        ("r", "a.py"): ("Python", "MIT", 3),
        ("r", "b.c"): ("C", "MIT AND ISC", None),
    }
    assert ledger == {
        ("q", "c.py"): "unreadable",
        ("q", "d.py"): "too_large",
        ("s", "b.parquet"): "broken_parquet",
    }
    wrong = ParquetSource("s", str(tmp_path / "a.parquet"))
    assert read(wrong)[1] == {("s", "a.parquet"): "missing_column"}
