"""Entries of tar and zip archives: whatever is stated, time and memory stay within bounds."""

from __future__ import annotations

import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
import source_reading
from source_reading import LIMIT, read_all

from snowcoder_jax.recipe_corpus import FolderSource, Source
from snowcoder_jax.sources import archive_entries
from snowcoder_jax.sources.documents import LedgerRow, SourceDocument


def read(source: Source) -> tuple[dict[str, SourceDocument], dict[str, str]]:
    """Documents, and reasons of ledger rows, by path."""
    documents, ledger = source_reading.read(source)
    return {p: d for (_, p), d in documents.items()}, {p: r for (_, p), r in ledger.items()}


METHODS = [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_of_compression(tmp_path: Path, method: int) -> None:
    path = tmp_path / "r.zip"
    text = b"x = 1\n" * 1_000
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("LICENSE", "Apache License, Version 2.0")
        archive.writestr("a.py", text)
        archive.writestr("at_limit.py", b"#" * LIMIT)
        archive.writestr("large.py", b"#" * (LIMIT + 1))
        archive.writestr("damaged.py", "y = 1\n")
        archive.writestr("empty.py", "")
    checksum = struct.pack("<I", zlib.crc32(b"y = 1\n"))
    path.write_bytes(path.read_bytes().replace(checksum, bytes(4)))
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert set(documents) == {"a.py", "at_limit.py", "empty.py"}
    assert documents["a.py"].content == text
    assert documents["a.py"].license == "Apache-2.0"
    assert ledger == {"large.py": "too_large", "damaged.py": "unreadable"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["a.py", "LICENSE"])
def test_bombs_of_other_methods_that_lie_about_sizes(
    tmp_path: Path, method: int, name: str
) -> None:
    """zipfile alone would unpack all 40 MB at the first byte asked for."""
    path = tmp_path / "r.zip"
    num_bytes = 40_000_000
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, bytes(num_bytes))
    whole = path.read_bytes()
    assert len(whole) < 10_000
    for stated in (9, 5_000):
        lie = whole.replace(struct.pack("<I", num_bytes), struct.pack("<I", stated))
        path.write_bytes(lie)
        tracemalloc.start()
        documents, ledger = read(FolderSource("s", str(tmp_path)))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 12_000_000  # LZMA's dictionary is 8 MiB
        assert documents == {}
        assert set(ledger.values()) <= {"unreadable", "broken_archive"}
        assert len(ledger) == 1


def test_an_lzma_member_that_asks_for_a_dictionary_of_4_gb(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.py", "x = 1\n" * 100)
    whole = path.read_bytes()
    at = whole.index(b"a.py") + 4
    assert whole[at + 2 : at + 4] == b"\5\0"
    path.write_bytes(whole[: at + 5] + b"\xff" * 4 + whole[at + 9 :])
    assert read(FolderSource("s", str(tmp_path))) == ({}, {"a.py": "unreadable"})


def pax_tar(path: Path, records: bytes, data: bytes = b"x = 1\n") -> None:
    """An archive of one file with an extended header of these bytes."""
    with tarfile.open(path, "w") as tar:
        header = tarfile.TarInfo("header")
        header.type, header.size = tarfile.XHDTYPE, len(records)
        tar.addfile(header, io.BytesIO(records))
        file = tarfile.TarInfo("a.py")
        file.size = len(data)
        tar.addfile(file, io.BytesIO(data))


def pax_record(keyword: bytes, value: bytes) -> bytes:
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + next(n for n in range(1, 9) if len(str(len(rest) + n)) == n)
    return str(length).encode() + rest


@pytest.mark.timeout(30)
def test_extended_headers_are_read_in_linear_time(tmp_path: Path) -> None:
    """100 kB of digits kept Python 3.11's tarfile busy for a minute."""
    digits = b"1" * 60_000
    pax_tar(tmp_path / "a.tar", pax_record(b"comment", digits))
    pax_tar(tmp_path / "b.tar", digits)
    pax_tar(tmp_path / "c.tar", pax_record(b"path", b"sub/b.py") + pax_record(b"x", digits))
    pax_tar(tmp_path / "d.tar", pax_record(b"path", digits + b"/b.py"))
    found = read_all(FolderSource("s", str(tmp_path)))
    assert [(x.repo, x.path) for x in found if isinstance(x, SourceDocument)] == [
        ("a", "a.py"),
        ("c", "b.py"),
    ]
    assert [(x.repo, x.reason) for x in found if isinstance(x, LedgerRow)] == [
        ("b", "broken_archive"),
        ("d", "unsafe_path"),
    ]


@pytest.mark.parametrize(
    "records",
    [
        b"x",
        b"0 path=a\n",
        b"5 path=a\n",
        b"99 path=b.py\n",
        b"-9 path=b.py\n",
        b"13 path=b.py.",
        b"9 nothing\n",
        b"000000000000000000000000013 path=b.py\n",
        pax_record(b"size", b"-512"),
        pax_record(b"size", b"9" * 5_000),
        pax_record(b"comment", b"c" * archive_entries.MAX_HEADER_BYTES),
    ],
)
def test_extended_headers_that_are_none(tmp_path: Path, records: bytes) -> None:
    pax_tar(tmp_path / "r.tar", records)
    assert read(FolderSource("s", str(tmp_path))) == ({}, {"r.tar": "broken_archive"})


def test_what_extended_headers_say(tmp_path: Path) -> None:
    """Of a path, a size that the header itself cannot hold, and holes; git's own comment."""
    with tarfile.open(tmp_path / "r.tar", "w", pax_headers={"comment": "5f3e"}) as tar:
        file = tarfile.TarInfo("a.py")
        file.pax_headers = {"path": "sub/é.py", "size": "6", "mtime": "1.5"}
        tar.addfile(file)
        assert tar.fileobj is not None
        tar.fileobj.write(b"x = 1\n".ljust(512, b"\0"))
        tar.offset += 512
        holes = tarfile.TarInfo("GNUSparseFile.0/b.py")
        holes.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "b.py"}
        tar.addfile(holes)
        tar.addfile(tarfile.TarInfo("c.py"))
    documents, ledger = read(FolderSource("s", str(tmp_path)))
    assert {path: d.content for path, d in documents.items()} == {
        "sub/é.py": b"x = 1\n",
        "c.py": b"",
    }
    assert ledger == {"b.py": "not_a_file"}


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_both_formats(tmp_path: Path, tar_format: int) -> None:
    names = ["n" * 300 + "/a.py", "d/" * 400 + "a.py"]
    with tarfile.open(tmp_path / "r.tar", "w", format=tar_format) as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    assert set(read(FolderSource("s", str(tmp_path)))[0]) == set(names)
    with tarfile.open(tmp_path / "r.tar", "w", format=tar_format) as tar:
        tar.addfile(tarfile.TarInfo("n" * 100_000))
    assert read(FolderSource("s", str(tmp_path))) == ({}, {"r.tar": "broken_archive"})


def test_headers_before_headers(tmp_path: Path) -> None:
    """Every header may announce another one: they end where their bytes have added up."""
    with tarfile.open(tmp_path / "r.tar", "w") as tar:
        for _ in range(100):
            header = tarfile.TarInfo("header")
            header.type, header.size = tarfile.XGLTYPE, 512
            tar.addfile(header, io.BytesIO(bytes(512)))
        tar.addfile(tarfile.TarInfo("a.py"))
    assert read(FolderSource("s", str(tmp_path))) == ({}, {"r.tar": "broken_archive"})


@pytest.mark.parametrize("comment", [b"", b"c" * 0xFFFF])
def test_the_size_of_a_zips_directory(
    tmp_path: Path, comment: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zipfile goes by the 64-bit record where there is one, whatever the short one says."""
    path = tmp_path / "r.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.py", "x = 1\n")
    data = path.read_bytes()
    at = data.rindex(b"PK\5\6")
    size, offset = struct.unpack_from("<II", data, at + 12)
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = data[at : at + 12] + bytes(4) + data[at + 16 : at + 20]  # its own size says nothing
    end += struct.pack("<H", len(comment)) + comment
    path.write_bytes(data[:at] + wide + locator + end)
    monkeypatch.setattr(archive_entries, "MAX_DIRECTORY_BYTES", size)
    assert set(read(FolderSource("s", str(tmp_path)))[0]) == {"a.py"}
    monkeypatch.setattr(archive_entries, "MAX_DIRECTORY_BYTES", size - 1)
    refused = {"r.zip": "archive_too_large"}
    assert read(FolderSource("s", str(tmp_path))) == ({}, refused)
    path.write_bytes(data[:at] + locator + end)
    assert read(FolderSource("s", str(tmp_path)))[0] == {}
