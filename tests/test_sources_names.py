"""The names of repositories in folders: those that share one are told apart."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from source_reading import LIMIT, read, write

from snowcoder_jax import sources
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_corpus import FolderSource
from snowcoder_jax.sources import Limits
from snowcoder_jax.sources.check import check_source


def test_repositories_that_share_a_name_are_told_apart(tmp_path: Path) -> None:
    names = ("1/a/utils/x.py", "2/a/utils/x.py", "2/b/utils/x.py", "2/b/other/x.py", "2/b/y.py")
    write(tmp_path, dict.fromkeys(names, "x"))
    one = FolderSource("s", f"{tmp_path}/*/*/*", layout="repository")
    many = FolderSource("s", f"{tmp_path}/*/*")
    apart = {("1/a/utils", "x.py"), ("2/a/utils", "x.py"), ("b/utils", "x.py"), ("other", "x.py")}
    assert check_source(one) == check_source(many) == []
    assert set(read(one)[0]) == apart
    assert set(read(many)[0]) == {*apart, ("b", "y.py")}
    opted_out = Limits(LIMIT, frozenset({"utils"}))
    documents, ledger = read(one, opted_out)
    assert set(documents) == {("other", "x.py")}
    assert set(ledger.values()) == {"opted_out"} and len(ledger) == 3
    opted_out = Limits(LIMIT, frozenset({"b/utils"}))
    assert set(read(one, opted_out)[0]) == apart - {("b/utils", "x.py")}


def test_an_opt_out_by_owner_and_name_holds_whatever_else_is_there(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(("alice/utils/x.py", "alice/other/x.py"), "x"))
    with zipfile.ZipFile(tmp_path / "alice" / "more.zip", "w") as archive:
        archive.writestr("d.py", "x = 1\n")
    source = FolderSource("s", f"{tmp_path}/*")
    opted_out = Limits(LIMIT, frozenset({"alice/utils", "alice/more"}))
    alone = {("other", "x.py")}
    assert set(read(source, opted_out)[0]) == alone
    write(tmp_path, {"bob/utils/x.py": "x"})
    assert set(read(source, opted_out)[0]) == {*alone, ("bob/utils", "x.py")}


def test_an_archive_and_loose_files_beside_a_folder_of_the_same_name(tmp_path: Path) -> None:
    root = tmp_path / "x"
    write(root, {"x/a.py": "x", "b.py": "x", "y/c.py": "x"})
    for name in ("x.zip", "y.zip", "z.zip", "z.tar.zip"):
        with zipfile.ZipFile(root / name, "w") as archive:
            archive.writestr("d.py", "x = 1\n")
    assert set(read(FolderSource("s", str(root)))[0]) == {
        ("x", "a.py"), ("x.files", "b.py"), ("y", "c.py"),
        ("x.zip", "d.py"), ("y.zip", "d.py"), ("z", "d.py"), ("z.tar", "d.py"),
    }  # fmt: skip
    opted_out = Limits(LIMIT, frozenset({"x"}))
    assert {repo for repo, _ in read(FolderSource("s", str(root)), opted_out)[0]} == {
        "x.files", "y", "y.zip", "z", "z.tar"
    }  # fmt: skip


def test_the_folder_one_stands_in_has_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"mine/a.py": "x = 1\n"})
    monkeypatch.chdir(tmp_path / "mine")
    for path in (".", "./", f"{tmp_path}/mine/."):
        (part,) = sources.parts(FolderSource("s", path, layout="repository"), seed=0)[0]
        assert part.repo == "mine"


def test_what_a_pattern_finds_twice_is_read_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        archive.writestr("a.py", "x = 1\n")
    pieces = sources.parts(FolderSource("s", f"{tmp_path}/**"), seed=0)
    parts = [part for piece in pieces for part in piece]
    assert [(part.kind, part.repo) for part in parts] == [
        ("loose", tmp_path.name), ("archive", "r")
    ]  # fmt: skip


def test_names_that_cannot_be_told_apart(tmp_path: Path) -> None:
    write(tmp_path, {"x/y/x.py": "x", "x/y.files/x.py": "x"})
    source = FolderSource("s", f"{tmp_path}/*")
    assert {repo for repo, _ in read(source)[0]} == {"y", "y.files"}
    found = [sources.Part("loose", "/y", "y"), sources.Part("repository", "/y.files", "y")]
    with pytest.raises(InputError, match="another repository has the name"):
        sources._with_own_names([*found, sources.Part("archive", "/y.files/y", "y.files")])
