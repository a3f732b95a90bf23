"""Tar and zip archives: repositories like any folder, and hostile ones that do no harm."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snowcoder_jax import sources, storage
from snowcoder_jax.recipe_corpus import FolderSource, Source
from snowcoder_jax.sources import Limits, archive_entries, archives, paths
from snowcoder_jax.sources.check import check_source
from snowcoder_jax.sources.documents import Item, LedgerRow, SourceDocument

LIMIT = 10_000
REASONS = {
    "broken_archive", "archive_too_large", "unreadable", "unsafe_path", "too_large", "binary",
    "undecodable", "symlink", "not_a_file", "hidden", "vendored", "generated", "ignored",
}  # fmt: skip
KINDS = ["r.zip", "r.tar", "r.tar.gz", "r.tgz", "r.tar.bz2", "r.tar.xz"]


def read_all(source: Source) -> list[Item]:
    parts = [part for piece in sources.parts(source, seed=0) for part in piece]
    return [item for part in parts for item in sources.read(source, part, Limits(LIMIT))]


def read(source: Source) -> tuple[dict[str, SourceDocument], dict[str, str]]:
    """Documents, and reasons of ledger rows, by path."""
    found = read_all(source)
    documents = {x.path: x for x in found if isinstance(x, SourceDocument)}
    return documents, {x.path: x.reason for x in found if isinstance(x, LedgerRow)}


def make(path: Path, files: dict[str, bytes]) -> None:
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    suffix = path.name.rsplit(".", 1)[-1]
    mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz", "tar": "w"}[suffix]
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


MEMBERS = {
    "top/LICENSE": b"Apache License, Version 2.0",
    "top/a.py": b"x = 1\n",
    "top/b.c": b"int b;\n",
    "top/sub/LICENSE": b"Mozilla Public License Version 2.0",
    "top/sub/c.py": b"# SPDX-License-Identifier: MIT\n",
    "top/sub/./d.py": b"d = 1\n",
    "top/sub/d.py": b"of two the first counts\n",
    "top/.git/x.py": b"x",
    "top/.gitignore": b"out/\n",
    "top/out/x.py": b"x",
    "top/vendor/x.py": b"x",
    "top/inner.zip": b"PK\x03\x04 not opened",
    "../escape.py": b"x",
    "/absolute.py": b"x",
    "top/../../up.py": b"x",
    "c:\\windows.py": b"x",
    "top/new\nline.py": b"x",
    "top/large.py": b"#" * (LIMIT + 1),
    "top/binary.py": b"\0",
}


@pytest.mark.parametrize("name", KINDS)
def test_archives_are_repositories(tmp_path: Path, name: str) -> None:
    make(tmp_path / name, MEMBERS)
    before = sorted(tmp_path.rglob("*"))
    storage.write_bytes(f"memory://archives/{name}", (tmp_path / name).read_bytes())
    for place in (tmp_path, tmp_path / name, f"{tmp_path}/r.*", "memory://archives"):
        source = FolderSource("s", str(place), license="ISC")
        assert check_source(source) == []
        documents, ledger = read(source)
        assert {path: (d.repo, d.license) for path, d in documents.items()} == {
            "a.py": ("r", "Apache-2.0"),
            "b.c": ("r", "Apache-2.0"),
            "sub/c.py": ("r", "MIT"),
            "sub/d.py": ("r", "MPL-2.0"),
        }
        assert documents["sub/d.py"].content == b"d = 1\n"
        assert ledger == {
            "../escape.py": "unsafe_path",
            "/absolute.py": "unsafe_path",
            "top/../../up.py": "unsafe_path",
            "c:\\windows.py": "unsafe_path",
            "top/new\nline.py": "unsafe_path",
            "out/": "ignored",
            "vendor/": "vendored",
            "large.py": "too_large",
            "binary.py": "binary",
        }
    assert sorted(tmp_path.rglob("*")) == before
    storage.remove("memory://archives")


def test_an_archive_gives_what_its_folder_gives(tmp_path: Path) -> None:
    files = {
        "a.py": b"x = 1\n", "LICENSE": b"Apache License, Version 2.0", "package.json": b"{}",
        "sub/deep/b.h": b"class A;\n", "sub/.gitignore": b"c.py\n", "sub/c.py": b"x", "n.txt": b"",
        "tests/fixtures/x.py": b"x", ".github/x.py": b"x", "LICENSES/MIT.txt": b"x",
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / "r" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "r" / name).write_bytes(data)
    folder = read(FolderSource("s", str(tmp_path / "r"), layout="repository"))
    assert len(folder[0]) == 2
    assert len(folder[1]) == 3
    make(tmp_path / "r.zip", files)
    make(tmp_path / "r.tar.gz", {f"./r-main/{name}": data for name, data in files.items()})
    assert read(FolderSource("s", str(tmp_path / "r.zip"))) == folder
    assert read(FolderSource("s", str(tmp_path / "r.tar.gz"))) == folder


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "r.tar", "w") as tar:
        for name, kind in (("soft.py", tarfile.SYMTYPE), ("hard.py", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        fifo = tarfile.TarInfo("pipe.py")
        fifo.type = tarfile.FIFOTYPE
        tar.addfile(fifo)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        link = zipfile.ZipInfo("soft.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("soft.py/below.py", "x = 1\n")
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert set(documents) == {"soft.py/below.py"}
    assert ledger == {"soft.py": "symlink", "hard.py": "symlink", "pipe.py": "not_a_file"}


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    make(tmp_path / "r.tar", {"\udcff.py": b"x = 1\n"})
    documents, _ = read(FolderSource("s", str(tmp_path)))
    assert set(documents) == {"\\xff.py"}


@pytest.mark.parametrize("name", [n for n in KINDS if n != "r.tgz"])
@given(data=st.binary(max_size=300), cut=st.floats(0, 1))
@example(data=bytes(4), cut=0.59375)  # in a zip, a member without a name
def test_broken_archives_are_ledger_rows(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes, cut: float
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    whole = folder / name
    make(whole, {"LICENSE": b"x", "a.py": b"x = 1\n" * 500, "sub/b.py": b"y = 1\n" * 50})
    good = whole.read_bytes()
    at = int(cut * len(good))
    for broken in (data, good[:at], good[:at] + data + good[at + len(data) :]):
        whole.write_bytes(broken)
        found = read_all(FolderSource("s", str(folder)))
        assert found
        assert {x.reason for x in found if isinstance(x, LedgerRow)} <= REASONS
        assert all(len(x.content) <= LIMIT for x in found if isinstance(x, SourceDocument))
    assert sorted(folder.iterdir()) == [whole]


def test_one_bad_member_of_a_zip_costs_that_member(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.py", "x = 'damaged'\n")
        archive.writestr("b.py", "x = 'whole'\n")
    path.write_bytes(path.read_bytes().replace(b"damaged", b"changed"))
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert set(documents) == {"b.py"}
    assert ledger == {"a.py": "unreadable"}


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz", "bomb.tar.xz"])
def test_bombs_are_refused_whole(tmp_path: Path, name: str) -> None:
    make(tmp_path / name, {f"{i}.py": b" " * 1_000_000 for i in range(20)})
    entry = paths.entry(str(tmp_path / name))
    with pytest.raises(archives.ArchiveError, match="archive_too_large"):
        archives.scan(entry, max_total_bytes=10_000_000)
    assert len(archives.scan(entry)[0]) == 20


@pytest.mark.parametrize("name", ["r.zip", "r.tar.gz"])
def test_a_bomb_by_its_ratio(tmp_path: Path, name: str) -> None:
    """80 MB of zeros in 80 kB: nothing of it is read."""
    make(tmp_path / name, {"zeros.bin": bytes(80_000_000), "a.py": b"x = 1\n"})
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert documents == {}
    assert ledger == {name: "archive_too_large"}


def test_nested_bombs_are_not_opened(tmp_path: Path) -> None:
    make(tmp_path / "inner.zip", {"a.py": b" " * 1_000_000})
    make(tmp_path / "r.zip", {f"{i}.zip": (tmp_path / "inner.zip").read_bytes() for i in range(9)})
    (tmp_path / "inner.zip").unlink()
    assert read(FolderSource("s", str(tmp_path))) == ({}, {})


@pytest.mark.parametrize("stated", [9, 5_000_001, 0xFFFFFFF0])
def test_archive_that_lies_about_sizes_is_read_to_the_limit(tmp_path: Path, stated: int) -> None:
    path = tmp_path / "r.zip"
    make(path, {"a.py": b"#" * 5_000_000})
    data = path.read_bytes().replace((5_000_000).to_bytes(4, "little"), struct.pack("<I", stated))
    path.write_bytes(data)
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert documents == {}
    assert len(ledger) == 1


def test_tar_headers_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders count as members too: else headers alone could go on for ever."""
    monkeypatch.setattr(archive_entries, "MAX_MEMBERS", 50)
    with tarfile.open(tmp_path / "r.tar", "w") as tar:
        for i in range(51):
            info = tarfile.TarInfo(f"f{i}")
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
    assert read(FolderSource("s", str(tmp_path)))[1] == {"r.tar": "archive_too_large"}


def test_a_tar_that_goes_back_to_its_own_start(tmp_path: Path) -> None:
    """A member of negative size once sent readers round in circles."""
    make(tmp_path / "r.tar", {"a.py": b"x = 1\n"})
    data = bytearray((tmp_path / "r.tar").read_bytes())
    data[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512 in base 256
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "r.tar").write_bytes(data)
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert documents == {}
    assert set(ledger.values()) <= REASONS


def test_deep_and_long_paths(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 400) + "/a.py"
    long = "n" * 2_000 + "/a.py"
    make(tmp_path / "r.tar.gz", {"a.py": b"", deep: b"x = 1\n", long: b"x = 1\n"})
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert set(documents) == {"a.py", deep}
    assert ledger == {long: "unsafe_path"}


CHILD = """
import resource, sys
from snowcoder_jax import sources
from snowcoder_jax.recipe_corpus import FolderSource
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = FolderSource("s", sys.argv[1])
found = []
for piece in sources.parts(source, seed=0):
    for part in piece:
        for item in sources.read(source, part, sources.Limits(1_000_000)):
            found.append(type(item).__name__)
print(sorted(set(found)), len(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded_by_one_text(tmp_path: Path) -> None:
    """100 texts of a megabyte in an archive, and a member and a file of 300 MB."""
    with zipfile.ZipFile(tmp_path / "r.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for i in range(100):
            archive.writestr(f"{i}.py", os.urandom(1_000) + b"\n" + b"#" * 990_000)
        for i in range(100):
            archive.writestr(f"ok{i}.py", f"x = {i}\n" + "# comment\n" * 90_000)
    folder = tmp_path / "code"
    folder.mkdir()
    (tmp_path / "r.zip").rename(folder / "r.zip")
    with open(folder / "huge.py", "wb") as f:
        f.truncate(300_000_000)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    kinds, count, kilobytes = result.stdout.rsplit(" ", 2)
    assert kinds == "['LedgerRow', 'SourceDocument']"
    assert int(count) == 201
    assert int(kilobytes) < 60_000
